#include "tests/cli/small_gguf.h"

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "cadre/base/random.h"
#include "cadre/formats/gguf_writer.h"
#include "cadre/formats/tokenizer.h"

namespace cadre {
namespace {

constexpr int64_t kHeads = 4;

/// 256 bytes behind three special tokens.
int64_t add_tokenizer(GgufKeys& keys) {
  const Tokenizer tokenizer = Tokenizer::train(
      {}, {.vocabulary = 259, .special_tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}});
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  for (TokenId id = 0; id < tokenizer.vocabulary_size(); ++id) {
    tokens.push_back(tokenizer.token(id));
    types.push_back(tokenizer.is_special(id) ? 3 : 1);
  }
  keys.add("tokenizer.ggml.model", "gpt2");
  keys.add("tokenizer.ggml.pre", "olmo");
  keys.add("tokenizer.ggml.tokens", tokens);
  keys.add("tokenizer.ggml.token_type", std::span<const int32_t>(types));
  keys.add("tokenizer.ggml.merges", std::vector<std::string>{});
  keys.add("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(tokenizer.end_of_text()));
  keys.add("tokenizer.chat_template",
           "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
           "{% endfor %}<|im_start|>assistant\n");
  return tokenizer.vocabulary_size();
}

GgufKeys model_keys(const SmallModel& model) {
  GgufKeys keys;
  keys.add("general.architecture", "olmoe");
  const std::map<std::string, int64_t> numbers = {
      {"block_count", model.layers},
      {"embedding_length", model.hidden},
      {"context_length", model.context},
      {"feed_forward_length", model.expert_width},
      {"expert_feed_forward_length", model.expert_width},
      {"expert_count", model.experts},
      {"expert_used_count", 2},
      {"attention.head_count", kHeads},
      {"attention.head_count_kv", kHeads}};
  for (const auto& [key, value] : numbers) keys.add("olmoe." + key, static_cast<uint32_t>(value));
  keys.add("olmoe.attention.layer_norm_rms_epsilon", 1e-5F);
  return keys;
}

std::vector<GgufTensorSpec> model_tensors(const SmallModel& model, int64_t vocabulary) {
  constexpr uint32_t kF32 = 0;
  const int64_t hidden = model.hidden;
  std::vector<GgufTensorSpec> tensors;
  const auto add = [&](const std::string& name, std::vector<int64_t> dims) {
    tensors.push_back({name + ".weight", std::move(dims), kF32});
  };
  add("token_embd", {hidden, vocabulary});
  for (int64_t layer = 0; layer < model.layers; ++layer) {
    const std::string block = "blk." + std::to_string(layer) + ".";
    for (const char* name : {"attn_norm", "ffn_norm", "attn_q_norm", "attn_k_norm"}) {
      add(block + name, {hidden});
    }
    for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output"}) {
      add(block + name, {hidden, hidden});
    }
    add(block + "ffn_gate_inp", {hidden, model.experts});
    add(block + "ffn_gate_exps", {hidden, model.expert_width, model.experts});
    add(block + "ffn_up_exps", {hidden, model.expert_width, model.experts});
    add(block + "ffn_down_exps", {model.expert_width, hidden, model.experts});
  }
  add("output_norm", {hidden});
  add("output", {hidden, vocabulary});
  return tensors;
}

}  // namespace

void write_small_gguf(const std::filesystem::path& path, const SmallModel& model) {
  GgufKeys keys = model_keys(model);
  const auto tensors = model_tensors(model, add_tokenizer(keys));
  GgufWriter writer(path, keys, tensors);
  Random random(42);
  const auto deviation = static_cast<float>(2.4 / std::sqrt(static_cast<double>(model.hidden)));
  for (const GgufTensorSpec& tensor : tensors) {
    std::vector<float> values(static_cast<size_t>(tensor_bytes(tensor)) / sizeof(float));
    const bool is_norm = tensor.dims.size() == 1;
    for (float& value : values) value = is_norm ? 1.0F : deviation * random.normal();
    writer.write(tensor.name, std::as_bytes(std::span(values)));
  }
  writer.commit();
}

}  // namespace cadre
