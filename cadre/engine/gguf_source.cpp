#include "cadre/engine/gguf_source.h"

#include <charconv>
#include <map>
#include <optional>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/engine/architectures.h"
#include "cadre/engine/expert_names.h"
#include "cadre/engine/fingerprint.h"
#include "cadre/engine/tokenizer_from_gguf.h"
#include "cadre/formats/gguf.h"
#include "cadre/formats/json.h"

namespace cadre::engine {
namespace {

using kernels::BlockType;

constexpr int64_t kMaxParts = 99999;  // the width of the number in a part's name

std::optional<BlockType> block_type_of(uint32_t id) {
  switch (id) {
    case 0:
      return BlockType::kF32;
    case 1:
      return BlockType::kF16;
    case 2:
      return BlockType::kQ4_0;
    case 8:
      return BlockType::kQ8_0;
    case 10:
      return BlockType::kQ2_K;
    case 11:
      return BlockType::kQ3_K;
    case 12:
      return BlockType::kQ4_K;
    case 13:
      return BlockType::kQ5_K;
    case 14:
      return BlockType::kQ6_K;
    case 20:
      return BlockType::kIQ4_NL;
    case 30:
      return BlockType::kBF16;
    case 39:
      return BlockType::kMXFP4;
    default:
      return std::nullopt;
  }
}

/// What a key of the file becomes; token lists and other arrays of no interest here become nothing.
std::optional<KeyValue> convert(const GgufReader& file, const std::string& key,
                                const GgufValue& value) {
  if (const auto* natural = std::get_if<uint64_t>(&value)) {
    if (*natural > INT64_MAX) return std::nullopt;
    return static_cast<int64_t>(*natural);
  }
  if (const auto* integer = std::get_if<int64_t>(&value)) return *integer;
  if (const auto* real = std::get_if<double>(&value)) return *real;
  if (const auto* flag = std::get_if<bool>(&value)) return *flag;
  if (const auto* text = std::get_if<std::string_view>(&value)) return std::string(*text);
  const auto& array = std::get<GgufArray>(value);
  const bool whole = array.type == GgufType::kU32 || array.type == GgufType::kI32;
  if (whole && array.size <= 4096) return file.integers(key);
  return std::nullopt;
}

KeyValues keys_of(const GgufReader& file, const std::string& architecture,
                  const std::string& where) {
  const std::string prefix = architecture + ".";
  KeyValues keys(where, prefix);
  for (const auto& [key, value] : file.metadata()) {
    if (!key.starts_with(prefix)) continue;
    if (auto converted = convert(file, key, value)) {
      keys.set(key.substr(prefix.size()), std::move(*converted));
    }
  }
  return keys;
}

/// "NAME" and count of "NAME-00001-of-00003.gguf".
std::optional<std::pair<std::string, int64_t>> parse_part(const std::string& path) {
  constexpr std::string_view kTail = "-00001-of-00001.gguf";
  if (path.size() <= kTail.size()) return std::nullopt;
  const std::string tail = path.substr(path.size() - kTail.size());
  const auto number_at = [&](size_t at) -> int64_t {
    int64_t value = -1;
    const char* end = tail.data() + at + 5;
    const auto [stop, error] = std::from_chars(tail.data() + at, end, value);
    return error == std::errc() && stop == end ? value : -1;
  };
  const bool fits = tail[0] == '-' && tail.compare(6, 4, "-of-") == 0 && tail.ends_with(".gguf");
  if (!fits || number_at(1) < 1 || number_at(10) < 1) return std::nullopt;
  return std::pair(path.substr(0, path.size() - kTail.size()), number_at(10));
}

std::vector<std::filesystem::path> parts_of(const std::filesystem::path& path) {
  const auto part = parse_part(path.string());
  if (!part || part->second > kMaxParts) return {path};
  std::vector<std::filesystem::path> parts;
  for (int64_t i = 1; i <= part->second; ++i) {
    parts.emplace_back(fmt::format("{}-{:05d}-of-{:05d}.gguf", part->first, i, part->second));
  }
  return parts;
}

class GgufSource : public TensorSource {
 public:
  explicit GgufSource(const std::filesystem::path& path) : files_(parts_of(path)) {
    for (size_t i = 0; i < files_.size(); ++i) open_part(static_cast<int>(i));
    check_parts();
    const std::string architecture(first().text("general.architecture"));
    const KeyValues keys = keys_of(first(), architecture, where());
    spec_ = read_spec(architecture_named(architecture, where()), keys);
    if (first().contains("general.name")) spec_.name = first().text("general.name");
    const SourceTensor& embedding = require("token_embd.weight");
    if (embedding.shape.size() != 2) {
      throw FormatError("{}: tensor \"token_embd.weight\" must have two dimensions", where());
    }
    spec_.vocabulary = embedding.shape[0];
    for (int64_t layer = 0; layer < spec_.layers; ++layer) read_expert_map(layer);
  }

  const ModelSpec& spec() const override { return spec_; }
  const std::vector<std::filesystem::path>& files() const override { return files_; }
  std::string where() const override { return files_.front().string(); }
  StoredAs stored_as() const override { return StoredAs::kAsIs; }
  Tokenizer tokenizer() const override {
    Tokenizer tokenizer = tokenizer_from_gguf(first(), where());
    drop_pages();
    return tokenizer;
  }
  void drop_pages() const override {
    for (const MappedFile& map : maps_) cadre::drop_pages(map.bytes());
  }

  const SourceTensor* find(const std::string& name) const override {
    const auto unsupported = unsupported_.find(name);
    if (unsupported != unsupported_.end()) {
      throw FormatError("{}: tensor {} has type {}, which is not supported", where(), quote(name),
                        unsupported->second);
    }
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : &found->second;
  }

  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : tensors_) names.push_back(name);
    for (const auto& [name, type] : unsupported_) names.push_back(name);
    return names;
  }

  std::optional<std::string> chat_template() const override {
    if (!first().contains("tokenizer.chat_template")) return std::nullopt;
    return std::string(first().text("tokenizer.chat_template"));
  }

  SourceTensor expert_slice(const std::string& stacked_name, int64_t expert) const override {
    if (const SourceTensor* stacked = find(stacked_name)) {
      check_stack(*stacked);
      return entry_of(*stacked, expert);
    }
    const std::string alone = single_expert_name(stacked_name, stored_expert(stacked_name, expert));
    if (const SourceTensor* tensor = find(alone)) return *tensor;
    const std::string stem = stacked_name.substr(0, stacked_name.find("_exps.weight"));
    const std::string block = stem.substr(0, stem.rfind('.'));
    if (const SourceTensor* fused = find(block + ".ffn_gate_up_exps.weight")) {
      check_stack(*fused);
      const SourceTensor both = entry_of(*fused, expert);
      const int64_t half = both.shape[0] / 2;
      if (half > 0 && stem.ends_with("ffn_gate")) return slice_of(both, 0, half);
      if (half > 0 && stem.ends_with("ffn_up")) return slice_of(both, half, half);
    }
    throw FormatError("{}: tensor {} is missing", where(), quote(stacked_name));
  }

  std::vector<int32_t> integers(const std::string& name, int64_t) const override {
    const auto found = expert_maps_.find(name);
    return found == expert_maps_.end() ? std::vector<int32_t>() : found->second;
  }

  std::string fingerprint() const override {
    Fingerprint print;
    print.add(spec_.architecture);
    for (const auto& [name, tensor] : tensors_) {
      print.add(name);
      print.add(static_cast<int64_t>(tensor.type));
      for (const int64_t size : tensor.shape) print.add(size);
      print.add(tensor.file_offset);
    }
    for (const MappedFile& map : maps_) print.add(static_cast<int64_t>(map.bytes().size()));
    return print.digits();
  }

 private:
  const GgufReader& first() const { return readers_.front(); }

  /// Merged experts: several of the router's experts are one stored expert.
  void read_expert_map(int64_t layer) {
    const std::string key = expert_map_key(layer);
    if (!first().contains(key)) return;
    std::vector<int32_t> map;
    for (const int64_t expert : first().integers(key)) {
      if (expert < 0 || expert >= spec_.experts)
        throw FormatError("{}: {} names expert {} of {}", where(), key, expert, spec_.experts);
      map.push_back(static_cast<int32_t>(expert));
    }
    if (static_cast<int64_t>(map.size()) != spec_.experts)
      throw FormatError("{}: {} must name a stored expert for each of {}", where(), key,
                        spec_.experts);
    expert_maps_[fmt::format("blk.{}.ffn_exp_map", layer)] = std::move(map);
  }

  int64_t stored_expert(const std::string& stacked_name, int64_t expert) const {
    const std::string layer = stacked_name.substr(0, stacked_name.find('.', 4));
    const auto map = expert_maps_.find(layer + ".ffn_exp_map");
    return map == expert_maps_.end() ? expert : map->second[static_cast<size_t>(expert)];
  }

  void open_part(int part) {
    const MappedFile& map = maps_.emplace_back(files_[part]);
    const GgufReader& reader = readers_.emplace_back(map.bytes(), files_[part].string());
    for (const GgufTensor& tensor : reader.tensors()) add(tensor, part);
  }

  void add(const GgufTensor& tensor, int part) {
    const auto type = block_type_of(tensor.type.id);
    if (!type) {
      unsupported_[tensor.name] = tensor.type.name;
      return;
    }
    std::vector<int64_t> shape(tensor.dims.rbegin(), tensor.dims.rend());
    const auto offset = tensor.bytes.data() - maps_[part].bytes().data();
    const bool added =
        tensors_
            .emplace(tensor.name, SourceTensor{tensor.name, *type, std::move(shape), tensor.bytes,
                                               part, static_cast<int64_t>(offset)})
            .second;
    if (!added) {
      throw FormatError("{}: tensor {} is in two parts", files_[part].string(), quote(tensor.name));
    }
  }

  void check_parts() const {
    const std::string key = "split.count";
    const int64_t stated = first().contains(key) ? first().integer(key) : 1;
    if (std::max<int64_t>(stated, 1) == static_cast<int64_t>(files_.size())) return;
    throw FormatError("{}: {} is {}, but the file name names {} parts", where(), key, stated,
                      files_.size());
  }

  void check_stack(const SourceTensor& tensor) const {
    if (tensor.shape.size() == 3 && tensor.shape[0] == spec_.experts) return;
    throw FormatError("{}: tensor {} must hold {} matrices", where(), quote(tensor.name),
                      spec_.experts);
  }

  std::vector<std::filesystem::path> files_;
  std::vector<MappedFile> maps_;
  std::vector<GgufReader> readers_;
  std::map<std::string, SourceTensor> tensors_;
  std::map<std::string, std::string> unsupported_;           ///< name -> type
  std::map<std::string, std::vector<int32_t>> expert_maps_;  ///< by "blk.L.ffn_exp_map"
  ModelSpec spec_;
};

}  // namespace

std::unique_ptr<TensorSource> open_gguf(const std::filesystem::path& path) {
  return std::make_unique<GgufSource>(path);
}

}  // namespace cadre::engine
