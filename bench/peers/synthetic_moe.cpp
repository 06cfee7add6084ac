// Writes a mixture-of-experts GGUF with random weights, for measuring speed at the size of real
// models:
//
//   synthetic_moe olmoe Q4_0 model.gguf      OLMoE-1B-7B's shape: 16 layers, 64 experts of 1024
//   synthetic_moe qwen3moe Q4_0 model.gguf   Qwen3-30B-A3B's layers: 12 of them, 128 experts of 768
//
// Hidden 2048, top-8, a vocabulary of bytes and numbered tokens that llama.cpp loads as well. Needs
// little memory: rows are drawn from a pool of quantised random ones.

#include <CLI/CLI.hpp>
#include <cmath>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "cadre/base/random.h"
#include "cadre/base/units.h"
#include "cadre/formats/gguf_writer.h"
#include "cadre/formats/tokenizer.h"
#include "cadre/kernels/blocks.h"

namespace {

using namespace cadre;

constexpr uint32_t kF32 = 0;
constexpr int64_t kPoolRows = 4096;
constexpr uint64_t kSeed = 1;

struct Shape {
  std::string architecture;
  std::string pre_tokenizer;
  int64_t layers, heads, kv_heads, experts, expert_width;
  float rope_base;
  int64_t hidden = 2048, head_width = 128, used = 8, vocabulary = 4096, context = 4096;
  bool norm_of_heads = false;  ///< query and key norms: of each head, or of all heads together
};

const std::map<std::string, Shape> kShapes = {
    {"olmoe",
     {.architecture = "olmoe",
      .pre_tokenizer = "olmo",
      .layers = 16,
      .heads = 16,
      .kv_heads = 16,
      .experts = 64,
      .expert_width = 1024,
      .rope_base = 1e4F}},
    {"qwen3moe",
     {.architecture = "qwen3moe",
      .pre_tokenizer = "qwen2",
      .layers = 12,
      .heads = 32,
      .kv_heads = 4,
      .experts = 128,
      .expert_width = 768,
      .rope_base = 1e6F,
      .norm_of_heads = true}},
};

/// The 256 bytes behind one special token, then numbered tokens that no text contains.
void add_tokenizer(const Shape& shape, GgufKeys& keys) {
  const Tokenizer bytes =
      Tokenizer::train({}, {.vocabulary = 257, .special_tokens = {"<|endoftext|>"}});
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  for (TokenId id = 0; id < shape.vocabulary; ++id) {
    const bool is_byte = id < bytes.vocabulary_size();
    tokens.push_back(is_byte ? bytes.token(id) : "token" + std::to_string(id));
    types.push_back(is_byte && bytes.is_special(id) ? 3 : 1);
  }
  keys.add("tokenizer.ggml.model", "gpt2");
  keys.add("tokenizer.ggml.pre", shape.pre_tokenizer);
  keys.add("tokenizer.ggml.tokens", tokens);
  keys.add("tokenizer.ggml.token_type", std::span<const int32_t>(types));
  keys.add("tokenizer.ggml.merges", std::vector<std::string>{});
  keys.add("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(bytes.end_of_text()));
}

GgufKeys model_keys(const Shape& shape) {
  GgufKeys keys;
  keys.add("general.architecture", shape.architecture);
  const std::map<std::string, int64_t> numbers = {
      {"block_count", shape.layers},
      {"embedding_length", shape.hidden},
      {"context_length", shape.context},
      {"feed_forward_length", shape.expert_width},
      {"expert_feed_forward_length", shape.expert_width},
      {"expert_count", shape.experts},
      {"expert_used_count", shape.used},
      {"attention.head_count", shape.heads},
      {"attention.head_count_kv", shape.kv_heads},
      {"attention.key_length", shape.head_width},
      {"attention.value_length", shape.head_width}};
  const std::string prefix = shape.architecture + ".";
  for (const auto& [key, value] : numbers) keys.add(prefix + key, static_cast<uint32_t>(value));
  keys.add(prefix + "attention.layer_norm_rms_epsilon", 1e-5F);
  keys.add(prefix + "rope.freq_base", shape.rope_base);
  add_tokenizer(shape, keys);
  return keys;
}

std::vector<GgufTensorSpec> model_tensors(const Shape& shape, uint32_t type) {
  std::vector<GgufTensorSpec> tensors;
  const auto add = [&](const std::string& name, uint32_t stored, std::vector<int64_t> dims) {
    tensors.push_back({name + ".weight", std::move(dims), stored});
  };
  const int64_t hidden = shape.hidden;
  const int64_t queries = shape.heads * shape.head_width;
  const int64_t keys = shape.kv_heads * shape.head_width;
  add("token_embd", type, {hidden, shape.vocabulary});
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    const std::string block = "blk." + std::to_string(layer) + ".";
    add(block + "attn_norm", kF32, {hidden});
    add(block + "ffn_norm", kF32, {hidden});
    add(block + "attn_q_norm", kF32, {shape.norm_of_heads ? shape.head_width : queries});
    add(block + "attn_k_norm", kF32, {shape.norm_of_heads ? shape.head_width : keys});
    add(block + "attn_q", type, {hidden, queries});
    add(block + "attn_k", type, {hidden, keys});
    add(block + "attn_v", type, {hidden, keys});
    add(block + "attn_output", type, {queries, hidden});
    add(block + "ffn_gate_inp", kF32, {hidden, shape.experts});
    add(block + "ffn_gate_exps", type, {hidden, shape.expert_width, shape.experts});
    add(block + "ffn_up_exps", type, {hidden, shape.expert_width, shape.experts});
    add(block + "ffn_down_exps", type, {shape.expert_width, hidden, shape.experts});
  }
  add("output_norm", kF32, {hidden});
  add("output", type, {hidden, shape.vocabulary});
  return tensors;
}

/// Normal numbers of deviation 2 / sqrt(columns), so that every product keeps its input's size.
std::vector<float> random_row(int64_t columns, Random& random) {
  const auto deviation = static_cast<float>(2 / std::sqrt(static_cast<double>(columns)));
  std::vector<float> row(static_cast<size_t>(columns));
  for (float& value : row) value = deviation * random.normal();
  return row;
}

/// Quantised random rows of every width that is asked for.
class RowPool {
 public:
  explicit RowPool(kernels::BlockType type) : type_(type) {}

  /// `rows` rows drawn from the pool.
  std::vector<std::byte> draw(int64_t rows, int64_t columns, Random& random) {
    const std::vector<std::byte>& pool = of(columns);
    const int64_t bytes = kernels::row_bytes(type_, columns);
    std::vector<std::byte> drawn(static_cast<size_t>(rows * bytes));
    for (int64_t row = 0; row < rows; ++row) {
      const auto chosen = static_cast<int64_t>(random.below(kPoolRows));
      std::copy_n(pool.data() + chosen * bytes, bytes, drawn.data() + row * bytes);
    }
    return drawn;
  }

 private:
  const std::vector<std::byte>& of(int64_t columns) {
    std::vector<std::byte>& pool = pools_[columns];
    if (!pool.empty()) return pool;
    const int64_t bytes = kernels::row_bytes(type_, columns);
    pool.resize(static_cast<size_t>(kPoolRows * bytes));
    Random random(kSeed, {static_cast<uint64_t>(columns)});
    for (int64_t row = 0; row < kPoolRows; ++row) {
      kernels::quantize(type_, random_row(columns, random).data(), columns,
                        pool.data() + row * bytes);
    }
    return pool;
  }

  kernels::BlockType type_;
  std::map<int64_t, std::vector<std::byte>> pools_;
};

void write_floats(const GgufTensorSpec& tensor, Random& random, GgufWriter& writer) {
  const bool is_norm = tensor.dims.size() == 1;
  for (int64_t row = 0; row < (is_norm ? 1 : tensor.dims[1]); ++row) {
    const auto values = is_norm ? std::vector<float>(static_cast<size_t>(tensor.dims[0]), 1.0F)
                                : random_row(tensor.dims[0], random);
    writer.write(tensor.name, std::as_bytes(std::span(values)));
  }
}

void write_blocks(const GgufTensorSpec& tensor, RowPool& pool, Random& random, GgufWriter& writer) {
  const int64_t matrices = tensor.dims.size() == 3 ? tensor.dims[2] : 1;
  for (int64_t i = 0; i < matrices; ++i) {
    writer.write(tensor.name, pool.draw(tensor.dims[1], tensor.dims[0], random));
  }
}

int run(int argc, char** argv) {
  std::string shape_name, type_name, path;
  std::optional<int64_t> layers, experts;
  CLI::App app("Writes a mixture-of-experts GGUF with random weights", "synthetic_moe");
  app.add_option("shape", shape_name, "olmoe or qwen3moe")
      ->required()
      ->check(CLI::IsMember(kShapes));
  app.add_option("type", type_name, "Blocks of the matrices: Q4_0, Q4_K, Q8_0 ...")->required();
  app.add_option("out", path, "The file")->required();
  app.add_option("--layers", layers, "Instead of the shape's")->check(CLI::PositiveNumber);
  app.add_option("--experts", experts, "Instead of the shape's")->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);

  Shape shape = kShapes.at(shape_name);
  shape.layers = layers.value_or(shape.layers);
  shape.experts = experts.value_or(shape.experts);
  if (shape.experts < shape.used) {
    throw UsageError("--experts is {}, a token uses {}", shape.experts, shape.used);
  }
  const kernels::BlockType type = kernels::block_type_named(type_name);
  const auto tensors = model_tensors(shape, find_gguf_tensor_type(type_name)->id);
  GgufWriter writer(path, model_keys(shape), tensors);
  RowPool pool(type);
  int64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    Random random(kSeed, {i, 1});
    if (tensors[i].type == kF32) {
      write_floats(tensors[i], random, writer);
    } else {
      write_blocks(tensors[i], pool, random, writer);
    }
    bytes += tensor_bytes(tensors[i]);
  }
  writer.commit();
  std::cout << path << ": " << shape.architecture << ", " << type_name << ", "
            << format_bytes(static_cast<uint64_t>(bytes)) << '\n';
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("synthetic_moe", [&] { return run(argc, argv); });
}
