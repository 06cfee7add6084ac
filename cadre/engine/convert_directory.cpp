// A GGUF file as a checkpoint directory.

#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/engine/architectures.h"
#include "cadre/engine/checkpoint_source.h"
#include "cadre/engine/convert.h"
#include "cadre/engine/tokenizer_from_gguf.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"
#include "cadre/formats/model_config.h"
#include "cadre/formats/safetensors.h"
#include "cadre/formats/spm.h"

namespace cadre::engine {
namespace {

namespace fs = std::filesystem;
using kernels::BlockType;
using nlohmann::json;

/// A layer's tensors in the order in which checkpoints hold them; experts go between the two lists.
constexpr std::array kBeforeExperts = {
    "input_layernorm.weight",
    "self_attn.q_proj.weight",
    "self_attn.q_proj.bias",
    "self_attn.k_proj.weight",
    "self_attn.k_proj.bias",
    "self_attn.v_proj.weight",
    "self_attn.v_proj.bias",
    "self_attn.o_proj.weight",
    "self_attn.q_norm.weight",
    "self_attn.k_norm.weight",
    "post_attention_layernorm.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
};
constexpr std::array kSharedParts = {"gate_proj.weight", "up_proj.weight", "down_proj.weight"};

/// How a kind of directory calls its experts.
struct Style {
  const char* model_type;
  const char* router;
  const char* experts;
  std::array<const char*, 3> parts;  ///< gate, up, down
  const char* shared;
};
constexpr std::array<const char*, 3> kPartNames = {"gate_proj", "up_proj", "down_proj"};
constexpr Style kUsual = {"", "mlp.gate.weight", "mlp.experts.", kPartNames, "mlp.shared_experts."};
constexpr std::array kStyles = {
    Style{"mixtral",
          "block_sparse_moe.gate.weight",
          "block_sparse_moe.experts.",
          {"w1", "w3", "w2"},
          ""},
    Style{"qwen2_moe", "mlp.gate.weight", "mlp.experts.", kPartNames, "mlp.shared_expert."},
};

const Style& style_of(const std::string& model_type) {
  for (const Style& style : kStyles)
    if (model_type == style.model_type) return style;
  return kUsual;
}

DType dtype_of(BlockType type) {
  if (type == BlockType::kF16) return DType::kF16;
  if (type == BlockType::kBF16) return DType::kBF16;
  if (type == BlockType::kF32) return DType::kF32;
  throw UsageError("a checkpoint directory holds F32, F16 or BF16, not {}",
                   kernels::block_info(type).name);
}

/// Where one tensor of the directory comes from.
struct Origin {
  std::string name;
  const ImageTensor* tensor;
  int64_t expert = -1;  ///< of a stack; -1 = the whole tensor
  int64_t heads = 0;    ///< > 0: rows go from adjacent pairs back to halves
};

class DirectoryWriter {
 public:
  DirectoryWriter(const fs::path& gguf, BlockType type)
      : file_(gguf), image_(image_of_gguf(gguf)), type_(type), dtype_(dtype_of(type)) {
    architecture_ = file_.text("general.architecture");
    for (const ImageTensor& tensor : image_.tensors) by_name_[tensor.name] = &tensor;
    config_ = read_config();
    const std::string where = gguf.string() + ": " + kConfigKey;
    const CheckpointConfig checkpoint = read_checkpoint_config(json::parse(config_), where);
    if (checkpoint.architecture != architecture_)
      throw FormatError("{}: is of a {} model, the file of a {} model", where,
                        checkpoint.architecture, architecture_);
    const Architecture& row = architecture_named(architecture_, where);
    spec_ = read_spec(row, checkpoint.keys);
    reorders_ = row.rope == RopeLayout::kAdjacent && checkpoint.rope == RopeLayout::kHalves;
    list_tensors(style_of(json::parse(config_).at("model_type").get<std::string>()));
  }

  void write(const fs::path& folder, const ImageProgress& progress) {
    AtomicFolder atomic(folder);
    write_file(atomic.staging() / "config.json", config_);
    write_tokenizer(atomic.staging());
    std::vector<TensorSpec> specs;
    for (const Origin& origin : origins_) specs.push_back({origin.name, dtype_, shape_of(origin)});
    ShardedWriter writer(atomic.staging(), specs);
    for (const Origin& origin : origins_) {
      const std::vector<std::byte> bytes = encode(origin);
      writer.write(origin.name, bytes);
      if (progress) progress(static_cast<int64_t>(bytes.size()));
    }
    writer.commit();
    atomic.commit();
  }

 private:
  std::string read_config() const {
    if (file_.contains(kConfigKey)) {
      std::string text(file_.text(kConfigKey));
      json config = parse_json(text, image_.where + ": " + kConfigKey);
      const bool known =
          config.is_object() && config.contains("model_type") && config["model_type"].is_string();
      if (!known) throw FormatError("{}: {} names no model_type", image_.where, kConfigKey);
      const json dtype = config.contains("torch_dtype") ? config["torch_dtype"] : json();
      const json ours = type_ == BlockType::kF32   ? "float32"
                        : type_ == BlockType::kF16 ? "float16"
                                                   : "bfloat16";
      if (dtype.is_null() || dtype == ours) return text;
      config["torch_dtype"] = ours;
      return config.dump(2) + "\n";
    }
    json config = to_json(made_config());
    config["torch_dtype"] = type_ == BlockType::kF32   ? "float32"
                            : type_ == BlockType::kF16 ? "float16"
                                                       : "bfloat16";
    return config.dump(2) + "\n";
  }

  int64_t integer(const std::string& key, int64_t fallback) const {
    const std::string full = architecture_ + "." + key;
    return file_.contains(full) ? file_.integer(full) : fallback;
  }
  int64_t integer(const std::string& key) const { return file_.integer(architecture_ + "." + key); }

  /// From the keys alone, for the architectures whose config.json we know how to write.
  ModelConfig made_config() const {
    const bool dense_llama = architecture_ == "llama" && integer("expert_count", 0) == 0;
    if (!dense_llama && architecture_ != "olmoe" && architecture_ != "deepseek")
      throw FormatError(
          "{}: a config.json can be made for llama without experts, olmoe and deepseek; for {} the "
          "key {} would be needed",
          image_.where, architecture_, kConfigKey);
    ModelConfig config;
    config.architecture = cadre::architecture_named(architecture_);
    config.layers = integer("block_count");
    config.hidden = integer("embedding_length");
    config.max_positions = integer("context_length");
    config.heads = integer("attention.head_count");
    config.kv_heads = integer("attention.head_count_kv", config.heads);
    config.intermediate = integer("feed_forward_length");
    if (dense_llama) config.head_dim = integer("attention.key_length", 0);
    config.norm_eps = shortest(file_.number(architecture_ + ".attention.layer_norm_rms_epsilon"));
    const std::string base = architecture_ + ".rope.freq_base";
    if (file_.contains(base)) config.rope_theta = shortest(file_.number(base));
    config.experts = integer("expert_count", 0);
    config.experts_per_token = integer("expert_used_count", 0);
    config.expert_intermediate = integer("expert_feed_forward_length", config.intermediate);
    config.shared_experts = integer("expert_shared_count", 0);
    config.first_dense_layers = integer("leading_dense_block_count", 0);
    const std::string norm = architecture_ + ".expert_weights_norm";
    config.normalize_expert_weights = file_.contains(norm) && file_.flag(norm);
    if (config.experts == 0) config.expert_intermediate = 0;
    config.vocabulary = require("token_embd.weight").shape.at(0);
    config.tied_embeddings = !by_name_.contains("output.weight");
    const std::string end = "tokenizer.ggml.eos_token_id";
    if (file_.contains(end)) config.end_of_text = file_.integer(end);
    return config;
  }

  /// A float as people wrote it: 1e-5, not 9.99999974e-6.
  static double shortest(double value) {
    return std::stod(fmt::format("{}", static_cast<float>(value)));
  }

  const ImageTensor& require(const std::string& name) const {
    const auto found = by_name_.find(name);
    if (found == by_name_.end())
      throw FormatError("{}: tensor {} is missing", image_.where, quote(name));
    return *found->second;
  }

  void list_tensors(const Style& style) {
    add_if_there("model.embed_tokens.weight");
    for (int64_t layer = 0; layer < spec_.layers; ++layer) {
      const std::string prefix = fmt::format("model.layers.{}.", layer);
      for (const char* name : kBeforeExperts) add_if_there(prefix + name);
      add_if_there(prefix + style.router);
      add_experts(prefix, style);
      for (const char* part : kSharedParts) add_if_there(prefix + style.shared + part);
      add_if_there(prefix + "mlp.shared_expert_gate.weight");
    }
    add_if_there("model.norm.weight");
    // A copy of the embedding that only GGUF wanted.
    const json config = json::parse(config_);
    if (config.value("tie_word_embeddings", json(false)) == true)
      used_.insert("output.weight");
    else
      add_if_there("lm_head.weight");
    for (const auto& [name, tensor] : by_name_)
      if (!used_.contains(name))
        throw FormatError("{}: tensor {} has no place in a {} directory", image_.where, quote(name),
                          architecture_);
  }

  void add_if_there(const std::string& name) {
    const std::string gguf = gguf_name_of(name);
    const auto found = by_name_.find(gguf);
    if (gguf.empty() || found == by_name_.end() || used_.contains(gguf)) return;
    int64_t heads = 0;
    if (reorders_ && gguf.find(".attn_q.") != std::string::npos) heads = spec_.heads;
    if (reorders_ && gguf.find(".attn_k.") != std::string::npos) heads = spec_.kv_heads;
    const int64_t rows = found->second->shape[0];
    if (heads > 0 && rows != heads * spec_.key_width)
      throw FormatError("{}: tensor {} has {} rows, {} heads of {} were expected", image_.where,
                        quote(gguf), rows, heads, spec_.key_width);
    used_.insert(gguf);
    origins_.push_back({.name = name, .tensor = found->second, .heads = heads});
  }

  void add_experts(const std::string& prefix, const Style& style) {
    for (int64_t expert = 0; expert < spec_.experts; ++expert) {
      for (const char* part : style.parts) {
        const std::string name =
            fmt::format("{}{}{}.{}.weight", prefix, style.experts, expert, part);
        const auto known = expert_name_of(name);
        const auto found = by_name_.find(known ? known->stacked : "");
        if (found == by_name_.end()) continue;
        const ImageTensor& stack = *found->second;
        if (stack.shape.size() != 3 || stack.shape[0] != spec_.experts)
          throw FormatError("{}: tensor {} must hold {} matrices", image_.where, quote(stack.name),
                            spec_.experts);
        used_.insert(stack.name);
        origins_.push_back({.name = name, .tensor = &stack, .expert = expert});
      }
    }
  }

  static std::vector<int64_t> shape_of(const Origin& origin) {
    std::vector<int64_t> shape = origin.tensor->shape;
    if (origin.expert >= 0) shape.erase(shape.begin());
    if (origin.name.ends_with("shared_expert_gate.weight")) shape.insert(shape.begin(), 1);
    return shape;
  }

  std::vector<std::byte> encode(const Origin& origin) const {
    const ImageTensor& tensor = *origin.tensor;
    const bool vector = tensor.shape.size() == 1 && origin.heads > 0;  // a bias by heads
    const int64_t columns = vector ? 1 : tensor.columns();
    int64_t rows = tensor.elements() / columns, first = 0;
    if (origin.expert >= 0) {
      rows /= tensor.shape[0];
      first = origin.expert * rows;
    }
    const ImagePart& part = tensor.parts.front();
    const int64_t from_size = kernels::row_bytes(part.type, columns);
    const int64_t row_size = kernels::row_bytes(type_, columns);
    std::vector<std::byte> out(static_cast<size_t>(rows * row_size));
    parallel_for(rows, std::max<int64_t>(1, (1 << 16) / columns), [&](int64_t begin, int64_t end) {
      std::vector<float> values(static_cast<size_t>(columns));
      for (int64_t row = begin; row < end; ++row) {
        const int64_t source = first + source_row(row, rows, origin.heads);
        kernels::dequantize(part.type, part.bytes.data() + source * from_size, columns,
                            values.data());
        for (const float value : values) {
          if (!std::isfinite(value))
            throw UsageError("{}: tensor {} holds {}: a model with such weights is broken",
                             image_.where, quote(tensor.name), value);
        }
        kernels::quantize(type_, values.data(), columns, out.data() + row * row_size);
      }
    });
    return out;
  }

  /// Where a row of halves stands among adjacent pairs.
  static int64_t source_row(int64_t row, int64_t rows, int64_t heads) {
    if (heads == 0) return row;
    const int64_t width = rows / heads, half = width / 2, within = row % width;
    return row - within + 2 * (within % half) + within / half;
  }

  void write_tokenizer(const fs::path& folder) const {
    if (file_.contains(kTokenizerJsonKey)) {
      write_file(folder / "tokenizer.json", file_.text(kTokenizerJsonKey));
    } else if (file_.contains("tokenizer.ggml.tokens")) {
      TokenizerLists lists = read_tokenizer_lists(file_, image_.where);
      while (!lists.tokens.empty() && lists.types.back() == spm::kUnused &&
             lists.tokens.back() == fmt::format("[PAD{}]", lists.tokens.size() - 1)) {
        lists.tokens.pop_back();
        lists.types.pop_back();
        if (!lists.scores.empty()) lists.scores.pop_back();
      }
      write_file(folder / "tokenizer.json", tokenizer_of(lists, image_.where).to_json());
    }
    if (file_.contains("tokenizer.chat_template"))
      write_file(folder / "chat_template.jinja", file_.text("tokenizer.chat_template"));
  }

  GgufReader file_;
  GgufImage image_;
  BlockType type_;
  DType dtype_;
  std::string architecture_, config_;
  std::map<std::string, const ImageTensor*> by_name_;
  std::set<std::string> used_;
  ModelSpec spec_;
  bool reorders_ = false;
  std::vector<Origin> origins_;
};

}  // namespace

void write_checkpoint(const fs::path& folder, const fs::path& gguf, BlockType type,
                      const ImageProgress& progress) {
  DirectoryWriter(gguf, type).write(folder, progress);
}

}  // namespace cadre::engine
