#include "cadre/engine/checkpoint_source.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/engine/architectures.h"
#include "cadre/engine/fingerprint.h"
#include "cadre/engine/low_rank_experts.h"
#include "cadre/engine/panel_memory.h"
#include "cadre/engine/router_kinds.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"
#include "cadre/formats/safetensors.h"

namespace cadre::engine {
namespace {

using kernels::BlockType;

BlockType block_type_of(DType type, const std::string& name, const std::string& where) {
  switch (type) {
    case DType::kF32:
      return BlockType::kF32;
    case DType::kF16:
      return BlockType::kF16;
    case DType::kBF16:
      return BlockType::kBF16;
    default:
      throw FormatError("{}: tensor {} has type {}, must be F32, F16 or BF16", where, quote(name),
                        name_of(type));
  }
}

constexpr std::string_view kFused = "ffn_gate_up_";

class CheckpointSource : public TensorSource {
 public:
  explicit CheckpointSource(const std::filesystem::path& folder)
      : folder_(folder), reader_(folder) {
    const std::filesystem::path file = folder / "config.json";
    const nlohmann::json json = parse_json(read_file(file), file.string());
    CheckpointConfig config = read_checkpoint_config(json, file.string());
    const Architecture& row = architecture_named(config.architecture, file.string());
    spec_ = read_spec(row, config.keys);
    ffn_norm_ = row.ffn_norm;
    stacks_ = config.stacks;
    read_router(json, file.string(), spec_);
    if (spec_.rope.layout != RopeLayout::kNone) spec_.rope.layout = config.rope;
    spec_.name = std::filesystem::absolute(folder).lexically_normal().filename().string();
    for (const MappedFile& map : reader_.files()) files_.push_back(map.path());
    for (const auto& [name, view] : reader_.tensors()) add(name, view);
    for (auto& [name, vector] : config.vectors) {
      const auto size = static_cast<int64_t>(vector.size());
      add_own(name, std::move(vector), {size});
    }
    read_expert_forms();
    const SourceTensor& embedding = require("token_embd.weight");
    if (embedding.shape.size() != 2) {
      throw FormatError("{}: tensor \"model.embed_tokens.weight\" must have two dimensions",
                        where());
    }
    spec_.vocabulary = embedding.shape[0];
  }

  const ModelSpec& spec() const override { return spec_; }
  const std::vector<std::filesystem::path>& files() const override { return files_; }
  std::string where() const override { return folder_.string(); }
  StoredAs stored_as() const override { return StoredAs::kAsAsked; }
  Tokenizer tokenizer() const override { return Tokenizer::load(folder_); }
  void drop_pages() const override {
    for (const MappedFile& map : reader_.files()) cadre::drop_pages(map.bytes());
  }

  const SourceTensor* find(const std::string& name) const override {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : &found->second;
  }

  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : tensors_) names.push_back(name);
    return names;
  }

  std::optional<std::string> chat_template() const override {
    const auto alone = folder_ / "chat_template.jinja";
    if (std::filesystem::exists(alone)) return read_file(alone);
    const auto config = folder_ / "tokenizer_config.json";
    if (!std::filesystem::exists(config)) return std::nullopt;
    const auto json = parse_json(read_file(config), config.string());
    const auto found = json.is_object() ? json.find("chat_template") : json.end();
    if (found == json.end() || !found->is_string()) return std::nullopt;
    return found->get<std::string>();
  }

  bool has_expert(const std::string& stacked_name, int64_t expert) const override {
    return experts_.contains({stacked_name, stored_expert(stacked_name, expert)});
  }

  std::vector<int32_t> integers(const std::string& name, int64_t expert) const override {
    const auto found = integers_.find({name, expert < 0 ? -1 : stored_expert(name, expert)});
    return found == integers_.end() ? std::vector<int32_t>() : found->second;
  }

  SourceTensor expert_slice(const std::string& stacked_name, int64_t expert) const override {
    const auto found = experts_.find({stacked_name, stored_expert(stacked_name, expert)});
    if (found != experts_.end()) return found->second;
    if (auto slice = stacked_slice(stacked_name, stored_expert(stacked_name, expert)))
      return *slice;
    throw FormatError("{}: the tensor for {}, expert {}, is missing", where(), stacked_name,
                      expert);
  }

  std::string fingerprint() const override {
    Fingerprint print;
    print.add(spec_.architecture);
    for (const auto& [name, view] : reader_.tensors()) {
      print.add(name);
      print.add(std::string(name_of(view.dtype)));
      for (const int64_t size : view.shape) print.add(size);
    }
    for (const auto& file : files_) {
      print.add(static_cast<int64_t>(std::filesystem::file_size(file)));
    }
    return print.digits();
  }

 private:
  /// Merged experts: several of the router's experts are one stored expert.
  int64_t stored_expert(const std::string& stacked_name, int64_t expert) const {
    const std::string layer = stacked_name.substr(0, stacked_name.find('.', 4));
    const auto map = integers_.find({layer + ".ffn_exp_map", -1});
    if (map == integers_.end()) return expert;
    return map->second[static_cast<size_t>(expert)];
  }

  /// Checks the maps, and finds layers whose experts are low rank.
  void read_expert_forms() {
    for (int64_t layer = 0; layer < spec_.layers; ++layer) {
      const auto map = integers_.find({fmt::format("blk.{}.ffn_exp_map", layer), -1});
      if (map != integers_.end()) check_expert_map(layer, map->second);
      if (!has_low_rank_experts(*this, layer)) continue;
      spec_.low_rank_layers.resize(static_cast<size_t>(spec_.layers));
      spec_.low_rank_layers[static_cast<size_t>(layer)] = 1;
    }
  }

  void check_expert_map(int64_t layer, const std::vector<int32_t>& map) const {
    const auto inside = [&](int32_t e) { return e >= 0 && e < spec_.experts; };
    if (static_cast<int64_t>(map.size()) == spec_.experts &&
        std::all_of(map.begin(), map.end(), inside)) {
      return;
    }
    throw FormatError(
        "{}: the expert_map of layer {} must name a stored "
        "expert for each of {}",
        where(), layer, spec_.experts);
  }

  void add(const std::string& name, const TensorView& view) {
    const auto expert = expert_name_of(name);
    const std::string known = gguf_name_of(name);
    if (!expert && known.empty()) {
      if (name.ends_with("rotary_emb.inv_freq")) return;  // written by old transformers; derived
      if (layer_of(name).value_or(0) >= spec_.layers) return;  // DeepSeek-V3's next-token head
      throw FormatError("{}: tensor {} is not part of a {} model", where(), quote(name),
                        spec_.architecture);
    }
    if (view.dtype == DType::kI32) {
      std::vector<int32_t> numbers(static_cast<size_t>(view.elements()));
      std::memcpy(numbers.data(), view.bytes.data(), view.bytes.size());
      const auto key =
          expert ? std::pair(expert->stacked, expert->expert) : std::pair(known, int64_t{-1});
      integers_.emplace(key, std::move(numbers));
      return;
    }
    SourceTensor tensor = {.name = name,
                           .type = block_type_of(view.dtype, name, where()),
                           .shape = view.shape,
                           .bytes = view.bytes};
    place(tensor);
    if (expert) {
      experts_.emplace(std::pair(expert->stacked, expert->expert), std::move(tensor));
    } else {
      add_known(known, std::move(tensor));
    }
  }

  /// Tensors that GGUF has in two are parted.
  void add_known(std::string known, SourceTensor tensor) {
    const auto at = known.find(".ffn_norm.");
    if (at != std::string::npos) known.replace(at + 1, 8, ffn_norm_);
    const bool is_stack = known.ends_with("_exps.weight");
    const auto fused = known.find(kFused);
    if (is_stack) check_stack(tensor);
    if (is_stack || fused == std::string::npos) {
      tensors_.emplace(known, std::move(tensor));
      return;
    }
    std::string gate = known, up = known;
    gate.replace(fused, kFused.size(), "ffn_gate_");
    up.replace(fused, kFused.size(), "ffn_up_");
    if (tensor.shape.empty())
      throw FormatError("{}: tensor {} has no rows", where(), quote(tensor.name));
    if (known.ends_with(".bias")) {
      part_bias(tensor, gate, up);
    } else {
      const int64_t half = tensor.shape.front() / 2;
      tensors_.emplace(gate, slice_of(tensor, 0, half));
      tensors_.emplace(up, slice_of(tensor, half, half));
    }
  }

  /// Experts' biases [E, 2 inner] of gate and up in turn become two.
  void part_bias(const SourceTensor& tensor, const std::string& gate, const std::string& up) {
    const std::vector<float> both = floats_of(tensor);
    std::array<std::vector<float>, 2> parts;
    for (size_t i = 0; i < both.size(); ++i) parts[i % 2].push_back(both[i]);
    std::vector<int64_t> shape = tensor.shape;
    shape.back() /= 2;
    add_own(gate, std::move(parts[0]), shape);
    add_own(up, std::move(parts[1]), shape);
  }

  /// A tensor that no file holds as it is.
  void add_own(const std::string& name, std::vector<float> values,
               const std::vector<int64_t>& shape) {
    const std::vector<float>& kept = own_.emplace_back(std::move(values));
    tensors_.emplace(name, SourceTensor{.name = name,
                                        .type = BlockType::kF32,
                                        .shape = shape,
                                        .bytes = std::as_bytes(std::span(kept))});
  }

  /// A tensor of all experts gets the shape [E, ...].
  void check_stack(SourceTensor& tensor) const {
    if (stacks_ == StackForm::kDownTransposed && tensor.shape.size() == 2 && spec_.experts > 0 &&
        tensor.shape[0] % spec_.experts == 0)
      tensor.shape = {spec_.experts, tensor.shape[0] / spec_.experts, tensor.shape[1]};
    if (tensor.shape.size() != 3 || tensor.shape[0] != spec_.experts || tensor.shape[1] < 2 ||
        tensor.shape[2] < 2)
      throw FormatError("{}: tensor {} does not hold a matrix of each of {} experts", where(),
                        quote(tensor.name), spec_.experts);
  }

  /// An expert's matrix out of a tensor of all experts.
  std::optional<SourceTensor> stacked_slice(const std::string& stacked_name, int64_t expert) const {
    const bool down = stacked_name.ends_with("ffn_down_exps.weight");
    const bool up = stacked_name.ends_with("ffn_up_exps.weight");
    if (const SourceTensor* stack = find(stacked_name)) {
      const SourceTensor stored = entry_of(*stack, expert);
      const bool plain = stacks_ == StackForm::kRows || !down;
      return plain ? stored : transposed(stored, 0, 1);
    }
    const std::string layer = stacked_name.substr(0, stacked_name.find(".ffn_"));
    const SourceTensor* fused = find(layer + ".ffn_gate_up_exps.weight");
    if (fused == nullptr || down) return std::nullopt;
    const SourceTensor both = entry_of(*fused, expert);
    if (stacks_ == StackForm::kAllTransposed) return transposed(both, up ? 1 : 0, 2);
    const int64_t half = both.shape[0] / 2;
    return slice_of(both, up ? half : 0, half);
  }

  /// The columns first, first + every, ... of [n, m] as the rows of [m / every,
  /// n].
  static SourceTensor transposed(const SourceTensor& stored, int64_t first, int64_t every) {
    SourceTensor matrix = stored;
    const int64_t n = stored.shape[0], m = stored.shape[1];
    const int64_t rows = m / every;
    matrix.shape = {rows, n};
    matrix.steps = {.row = every, .column = m};
    const int64_t size = kernels::row_bytes(stored.type, 1);
    const int64_t last = first + (rows - 1) * every + (n - 1) * m;
    matrix.bytes = stored.bytes.subspan(static_cast<size_t>(first * size),
                                        static_cast<size_t>((last + 1 - first) * size));
    matrix.file_offset += first * size;
    return matrix;
  }

  /// Finds the file whose map holds the bytes.
  void place(SourceTensor& tensor) const {
    const std::byte* first = tensor.bytes.data();
    for (size_t i = 0; i < reader_.files().size(); ++i) {
      const std::span<const std::byte> map = reader_.files()[i].bytes();
      if (first < map.data() || first > map.data() + map.size()) continue;
      tensor.file = static_cast<int>(i);
      tensor.file_offset = first - map.data();
    }
  }

  std::filesystem::path folder_;
  SafetensorsReader reader_;
  std::vector<std::filesystem::path> files_;
  std::map<std::string, SourceTensor> tensors_;
  std::map<std::pair<std::string, int64_t>, SourceTensor> experts_;
  std::map<std::pair<std::string, int64_t>, std::vector<int32_t>> integers_;
  std::deque<std::vector<float>> own_;  ///< what some of tensors_ point to
  ModelSpec spec_;
  std::string ffn_norm_;
  StackForm stacks_ = StackForm::kRows;
};

}  // namespace

std::unique_ptr<TensorSource> open_checkpoint(const std::filesystem::path& folder) {
  return std::make_unique<CheckpointSource>(folder);
}

}  // namespace cadre::engine
