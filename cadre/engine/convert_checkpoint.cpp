// A checkpoint directory as a GGUF image.

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/engine/architectures.h"
#include "cadre/engine/checkpoint_source.h"
#include "cadre/engine/convert_image.h"
#include "cadre/engine/expert_names.h"
#include "cadre/engine/router_kinds.h"
#include "cadre/engine/tokenizer_from_gguf.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"
#include "cadre/formats/safetensors.h"

namespace cadre::engine {
namespace {

namespace fs = std::filesystem;
using kernels::BlockType;
using nlohmann::json;

constexpr std::array kArchitectures = {"llama", "olmoe",    "deepseek", "qwen2",
                                       "qwen3", "qwen2moe", "qwen3moe"};
/// Those whose graph in llama.cpp has no tied head: they get a copy of the embedding.
constexpr std::array kUntiedOnly = {"olmoe", "deepseek", "qwen2moe"};

template <size_t n>
bool among(const std::array<const char*, n>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

constexpr std::array kIntegers = {
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "expert_count",
    "expert_used_count",
    "expert_shared_count",
    "expert_feed_forward_length",
    "expert_shared_feed_forward_length",
    "leading_dense_block_count",
    "rope.scaling.original_context_length",
};
constexpr std::array kNumbers = {
    "attention.layer_norm_rms_epsilon",
    "rope.freq_base",
    "expert_weights_scale",
    "attention.clamp_kqv",
    "rope.scaling.factor",
};

/// The model's shape under GGUF's names.
void add_model_keys(GgufKeys& keys, const std::string& architecture, const KeyValues& values,
                    const ModelSpec& spec, const std::string& name) {
  const std::string prefix = architecture + ".";
  keys.add("general.architecture", architecture);
  keys.add("general.name", name);
  for (const char* key : kIntegers) {
    if (values.contains(key))
      keys.add(prefix + key, static_cast<uint32_t>(values.size(key, 0, UINT32_MAX)));
  }
  for (const char* key : kNumbers)
    if (values.contains(key)) keys.add(prefix + key, values.number(key));
  if (values.contains("attention.key_length"))
    keys.add(prefix + "attention.value_length", static_cast<uint32_t>(spec.value_width));
  keys.add(prefix + "rope.dimension_count", static_cast<uint32_t>(spec.rope.dimension));
  keys.add(prefix + "vocab_size", static_cast<uint32_t>(spec.vocabulary));
  if (spec.rope.scaling != RopeSpec::Scaling::kNone)
    keys.add(prefix + "rope.scaling.type", values.text("rope.scaling.type", "none"));
  if (spec.experts == 0) return;
  keys.add(prefix + "expert_weights_norm", spec.router.normalize);
  // llama.cpp will not open a deepseek model without the scale.
  if (architecture == "deepseek" && !values.contains("expert_weights_scale"))
    keys.add(prefix + "expert_weights_scale", spec.router.scale);
}

BlockType block_type_of(DType type, const std::string& name, const std::string& where) {
  if (type == DType::kF32) return BlockType::kF32;
  if (type == DType::kF16) return BlockType::kF16;
  if (type == DType::kBF16) return BlockType::kBF16;
  throw FormatError("{}: tensor {} has type {}, must be F32, F16 or BF16", where, quote(name),
                    name_of(type));
}

/// Embedding, layers in order, the rest.
std::tuple<int64_t, std::string> place_of(const std::string& name) {
  if (name.starts_with("token_embd")) return {-1, name};
  const int64_t layer = layer_of_tensor(name);
  return {layer < 0 ? INT64_MAX : layer, name};
}

struct Stack {
  std::vector<int64_t> shape;  // of one expert
  std::map<int64_t, ImagePart> experts;
};

class CheckpointImage {
 public:
  explicit CheckpointImage(const fs::path& folder)
      : folder_(folder),
        config_file_(folder / "config.json"),
        config_text_(read_file(config_file_)),
        config_(parse_json(config_text_, config_file_.string())),
        checkpoint_(read_checkpoint_config(config_, config_file_.string())),
        reader_(std::make_shared<const SafetensorsReader>(folder)) {
    const Architecture& row = architecture_named(checkpoint_.architecture, config_file_.string());
    spec_ = read_spec(row, checkpoint_.keys);
    read_router(config_, config_file_.string(), spec_);
    if (!spec_.router_config.is_standard())
      throw FormatError("{}: a GGUF file has no place for the router {}", config_file_.string(),
                        spec_.router_config.kind);
    if (!among(kArchitectures, checkpoint_.architecture))
      throw FormatError("{}: {} cannot be converted (only {})", config_file_.string(),
                        checkpoint_.architecture, fmt::join(kArchitectures, ", "));
    if (spec_.rope.scaling == RopeSpec::Scaling::kLlama3 ||
        spec_.rope.scaling == RopeSpec::Scaling::kYarn)
      throw FormatError("{}: rope_scaling of this type cannot be converted", config_file_.string());
    reorders_ = row.rope == RopeLayout::kAdjacent && checkpoint_.rope == RopeLayout::kHalves;
  }

  GgufImage image() {
    GgufImage image = {.where = folder_.string()};
    image.files.push_back(reader_);
    for (const auto& [name, view] : reader_->tensors()) add(image, name, view);
    for (const auto& [name, stack] : stacks_) add_experts(image, name, stack);
    add_head(image);
    std::sort(image.tensors.begin(), image.tensors.end(),
              [](const auto& a, const auto& b) { return place_of(a.name) < place_of(b.name); });
    const auto embedding = std::find_if(image.tensors.begin(), image.tensors.end(),
                                        [](auto& t) { return t.name == "token_embd.weight"; });
    if (embedding == image.tensors.end() || embedding->shape.size() != 2)
      throw FormatError("{}: tensor \"model.embed_tokens.weight\" is missing or no matrix",
                        image.where);
    spec_.vocabulary = embedding->shape[0];
    const std::string name = fs::absolute(folder_).lexically_normal().filename().string();
    add_model_keys(image.keys, checkpoint_.architecture, checkpoint_.keys, spec_, name);
    add_tokenizer(image);
    image.keys.add(kConfigKey, config_text_);
    add_notes(image);
    return image;
  }

 private:
  void add(GgufImage& image, const std::string& name, const TensorView& view) {
    if (name.ends_with(".expert_map")) return add_expert_map(image, name, view);
    ImagePart part = {view.bytes, block_type_of(view.dtype, name, folder_.string())};
    if (const auto expert = expert_name_of(name)) {
      Stack& stack = stacks_[expert->stacked];
      if (stack.experts.empty()) stack.shape = view.shape;
      if (stack.shape != view.shape || view.shape.size() != 2)
        throw FormatError("{}: tensor {} has another shape than the other experts",
                          folder_.string(), quote(name));
      if (stack.experts.begin() != stack.experts.end() &&
          stack.experts.begin()->second.type != part.type)
        throw FormatError("{}: tensor {} has another type than the other experts", folder_.string(),
                          quote(name));
      stack.experts.emplace(expert->expert, part);
      return;
    }
    const std::string known = gguf_name_of(name);
    if (known.empty()) {
      if (name.ends_with("rotary_emb.inv_freq")) return;  // derived
      throw FormatError("{}: tensor {} is not part of a {} model", folder_.string(), quote(name),
                        checkpoint_.architecture);
    }
    if (reorders_ && known.find(".attn_q.") != std::string::npos) part.rotary_heads = spec_.heads;
    if (reorders_ && known.find(".attn_k.") != std::string::npos)
      part.rotary_heads = spec_.kv_heads;
    ImageTensor tensor = {.name = known, .shape = view.shape, .parts = {part}};
    check_heads(tensor, name);
    // The shared expert's gate is a matrix of one row here, a vector there.
    if (tensor.shape.size() == 2 && tensor.shape[0] == 1) tensor.shape.erase(tensor.shape.begin());
    if (tensor.shape.empty() || tensor.elements() == 0)
      throw FormatError("{}: tensor {} is empty", folder_.string(), quote(name));
    image.tensors.push_back(std::move(tensor));
  }

  void check_heads(const ImageTensor& tensor, const std::string& name) const {
    const int64_t heads = tensor.parts.front().rotary_heads;
    if (heads == 0) return;
    if (tensor.shape.empty() || tensor.shape[0] != heads * spec_.key_width)
      throw FormatError("{}: tensor {} must have {} rows: {} heads of {}", folder_.string(),
                        quote(name), heads * spec_.key_width, heads, spec_.key_width);
  }

  /// Merged layers: the map is a key of the file, and each stored expert a tensor of its own.
  void add_expert_map(GgufImage& image, const std::string& name, const TensorView& view) {
    const int64_t layer = layer_of(name).value_or(-1);
    std::vector<int32_t> map(static_cast<size_t>(view.elements()));
    if (view.dtype != DType::kI32 || static_cast<int64_t>(map.size()) != spec_.experts)
      throw FormatError("{}: tensor {} must name a stored expert for each of {}", folder_.string(),
                        quote(name), spec_.experts);
    std::memcpy(map.data(), view.bytes.data(), view.bytes.size());
    image.keys.add(expert_map_key(layer), std::span<const int32_t>(map));
    image.expert_maps[layer] = std::move(map);
  }

  void add_experts(GgufImage& image, const std::string& name, const Stack& stack) const {
    if (!image.expert_maps.contains(layer_of_tensor(name))) {
      image.tensors.push_back(stacked(name, stack));
      return;
    }
    for (const auto& [expert, part] : stack.experts)
      image.tensors.push_back({single_expert_name(name, expert), stack.shape, {part}});
  }

  ImageTensor stacked(const std::string& name, const Stack& stack) const {
    ImageTensor tensor = {.name = name, .shape = {spec_.experts, stack.shape[0], stack.shape[1]}};
    for (int64_t expert = 0; expert < spec_.experts; ++expert) {
      const auto found = stack.experts.find(expert);
      if (found == stack.experts.end())
        throw FormatError("{}: expert {} of {} is missing", folder_.string(), expert, name);
      tensor.parts.push_back(found->second);
    }
    if (static_cast<int64_t>(stack.experts.size()) != spec_.experts || tensor.elements() == 0)
      throw FormatError("{}: {} has {} experts, config.json says {}", folder_.string(), name,
                        stack.experts.size(), spec_.experts);
    return tensor;
  }

  void add_head(GgufImage& image) const {
    const auto named = [&](const char* name) {
      return std::find_if(image.tensors.begin(), image.tensors.end(),
                          [&](const ImageTensor& tensor) { return tensor.name == name; });
    };
    if (named("output.weight") != image.tensors.end()) return;
    if (!among(kUntiedOnly, checkpoint_.architecture)) return;
    const auto embedding = named("token_embd.weight");
    if (embedding == image.tensors.end()) return;
    ImageTensor head = *embedding;
    head.name = "output.weight";
    image.tensors.push_back(std::move(head));
    image.notes.push_back("the head is a copy of the embedding: llama.cpp wants one of its own");
  }

  void add_tokenizer(GgufImage& image) const {
    const fs::path file = folder_ / "tokenizer.json";
    if (!fs::exists(file)) {
      image.keys.add("tokenizer.ggml.model", "no_vocab");
      image.notes.push_back(
          fmt::format("{} is missing: the file will hold no tokenizer", file.string()));
      return;
    }
    const std::string text = read_file(file);
    TokenizerLists lists = tokenizer_lists_of(text, file.string());
    const bool complete = tokenizer_of(lists, file.string()).to_json() == text;
    const auto tokens = static_cast<int64_t>(lists.tokens.size());
    if (tokens > spec_.vocabulary)
      throw FormatError("{}: has {} tokens, more than the embedding's {} rows", file.string(),
                        tokens, spec_.vocabulary);
    for (int64_t id = tokens; id < spec_.vocabulary; ++id) {
      lists.tokens.push_back(fmt::format("[PAD{}]", id));
      lists.types.push_back(5);
      if (lists.model == "llama") lists.scores.push_back(0);
    }
    add_tokenizer_keys(image.keys, lists);
    add_special_ids(image.keys);
    if (!complete) image.keys.add(kTokenizerJsonKey, text);
  }

  void add_special_ids(GgufKeys& keys) const {
    const auto copy_id = [&](const char* theirs, const char* ours) {
      const auto found = config_.find(theirs);
      if (found == config_.end()) return;
      const json& id = found->is_array() && !found->empty() ? found->front() : *found;
      if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(spec_.vocabulary))
        return;
      keys.add(fmt::format("tokenizer.ggml.{}_token_id", ours), id.get<uint32_t>());
    };
    copy_id("bos_token_id", "bos");
    copy_id("eos_token_id", "eos");
    copy_id("pad_token_id", "padding");
    bool add_begin = false;
    const fs::path file = folder_ / "tokenizer_config.json";
    const json more =
        fs::exists(file) ? parse_json(read_file(file), file.string()) : json::object();
    if (more.is_object() && more.value("add_bos_token", json(false)) == true) add_begin = true;
    keys.add("tokenizer.ggml.add_bos_token", add_begin);
    if (const auto chat = chat_template(more)) keys.add("tokenizer.chat_template", *chat);
  }

  std::optional<std::string> chat_template(const json& tokenizer_config) const {
    const fs::path alone = folder_ / "chat_template.jinja";
    if (fs::exists(alone)) return read_file(alone);
    if (!tokenizer_config.is_object()) return std::nullopt;
    const auto found = tokenizer_config.find("chat_template");
    if (found == tokenizer_config.end() || !found->is_string()) return std::nullopt;
    return found->get<std::string>();
  }

  void add_notes(GgufImage& image) const {
    const std::string& architecture = checkpoint_.architecture;
    if (architecture == "olmoe" && spec_.kv_heads != spec_.heads)
      image.notes.push_back("llama.cpp opens olmoe only with as many KV heads as heads");
    const bool theirs = architecture == "llama" || architecture == "qwen3moe";
    if (spec_.experts == 0 || spec_.router.normalize == theirs) return;
    image.notes.push_back(fmt::format(
        "llama.cpp takes norm_topk_prob of {} for {}, this model has {}: results will differ there",
        theirs, architecture, spec_.router.normalize));
  }

  fs::path folder_, config_file_;
  std::string config_text_;
  json config_;
  CheckpointConfig checkpoint_;
  std::shared_ptr<const SafetensorsReader> reader_;
  ModelSpec spec_;
  bool reorders_ = false;
  std::map<std::string, Stack> stacks_;
};

}  // namespace

GgufImage image_of_checkpoint(const fs::path& folder) { return CheckpointImage(folder).image(); }

}  // namespace cadre::engine
