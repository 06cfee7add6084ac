// Checkpoint directories whose tensors lie otherwise than GGUF's: granitemoe,
// phimoe, dbrx, gpt-oss.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "cadre/base/error.h"
#include "cadre/engine/expert_files.h"
#include "cadre/engine/session.h"
#include "cadre/engine/streaming_provider.h"
#include "cadre/engine/tensor_source.h"
#include "cadre/engine/test_models.h"
#include "cadre/formats/file.h"
#include "cadre/formats/safetensors.h"
#include "cadre/formats/test_folder.h"

namespace cadre::engine {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

/// [.., n, m] to [.., m, n].
PlainTensor transposed(const PlainTensor& tensor) {
  PlainTensor result = tensor;
  const int64_t n = tensor.shape[tensor.shape.size() - 2], m = tensor.shape.back();
  std::swap(result.shape[tensor.shape.size() - 2], result.shape.back());
  for (size_t at = 0; at < tensor.values.size(); ++at) {
    const auto i = static_cast<int64_t>(at) % (n * m);
    result.values[at - static_cast<size_t>(i) + static_cast<size_t>(i % m * n + i / m)] =
        tensor.values[at];
  }
  return result;
}

/// Blocks of `size` numbers of two tensors in turn.
PlainTensor in_turn(const PlainTensor& a, const PlainTensor& b, int64_t size,
                    std::vector<int64_t> shape) {
  PlainTensor result{std::move(shape), {}};
  for (auto at = a.values.begin(), bt = b.values.begin(); at != a.values.end();
       at += size, bt += size) {
    result.values.insert(result.values.end(), at, at + size);
    result.values.insert(result.values.end(), bt, bt + size);
  }
  return result;
}

/// Rows of adjacent pairs as rows of halves.
PlainTensor in_halves(const PlainTensor& tensor, int64_t head_width) {
  PlainTensor result = tensor;
  const int64_t columns = tensor.shape[1];
  for (int64_t row = 0; row < tensor.shape[0]; ++row) {
    const int64_t within = row % head_width, half = head_width / 2;
    const int64_t from = row - within + 2 * (within % half) + within / half;
    std::copy_n(tensor.values.begin() + from * columns, columns,
                result.values.begin() + row * columns);
  }
  return result;
}

using Names = std::vector<std::pair<std::string, std::string>>;

const Names kUsual = {{"token_embd.", "model.embed_tokens."},
                      {"output_norm.", "model.norm."},
                      {"attn_norm.", "input_layernorm."},
                      {"attn_q.", "self_attn.q_proj."},
                      {"attn_k.", "self_attn.k_proj."},
                      {"attn_v.", "self_attn.v_proj."},
                      {"attn_output.", "self_attn.o_proj."},
                      {"attn_sinks.weight", "self_attn.sinks"},
                      {"ffn_norm.", "post_attention_layernorm."},
                      {"post_attention_norm.", "post_attention_layernorm."},
                      {"blk.", "model.layers."}};

/// The files that transformers has of a tiny model.
class Directory {
 public:
  explicit Directory(const std::string& architecture)
      : tiny_(tiny_model(architecture)), rest_(tiny_.tensors) {
    const PlainConfig& c = tiny_.config;
    config_ = {{"hidden_size", c.hidden},
               {"num_hidden_layers", c.layers},
               {"num_attention_heads", c.heads},
               {"num_key_value_heads", c.kv_heads},
               {"head_dim", c.head_width},
               {"intermediate_size", c.expert_width},
               {"num_local_experts", c.experts},
               {"num_experts_per_tok", c.used},
               {"max_position_embeddings", 4096},
               {"rms_norm_eps", 1e-5},
               {"hidden_act", "silu"},
               {"rope_theta", 10000.0}};
    for (int64_t layer = 0; layer < c.layers; ++layer) {
      block_ = "blk." + std::to_string(layer) + ".";
      if (architecture == "granitemoe") granite();
      if (architecture == "phimoe") phi();
      if (architecture == "dbrx") dbrx();
      if (architecture == "gpt-oss") gpt_oss();
    }
    for (const auto& [name, tensor] : rest_) written_[renamed(name)] = tensor;
  }

  json& config() { return config_; }
  const TinyModel& tiny() const { return tiny_; }
  std::map<std::string, PlainTensor>& tensors() { return written_; }

  void write(const std::filesystem::path& folder) const {
    write_file(folder / "config.json", config_.dump());
    std::vector<TensorSpec> specs;
    for (const auto& [name, tensor] : written_) specs.push_back({name, DType::kF32, tensor.shape});
    SafetensorsWriter writer(folder / "model.safetensors", specs);
    for (const auto& [name, tensor] : written_)
      writer.write(name, std::as_bytes(std::span(tensor.values)));
    writer.commit();
  }

 private:
  PlainTensor take(const std::string& name) { return rest_.extract(block_ + name).mapped(); }
  PlainTensor take_experts(const std::string& role) { return take("ffn_" + role + "_exps.weight"); }
  void put(const std::string& name, PlainTensor tensor) {
    written_[prefix_ + block_.substr(4) + name] = std::move(tensor);
  }

  void granite() {
    const PlainConfig& c = tiny_.config;
    config_["model_type"] = "granitemoeshared";
    config_["embedding_multiplier"] = 3.0;
    config_["residual_multiplier"] = 0.22;
    config_["attention_multiplier"] = 0.1;
    config_["logits_scaling"] = 6.0;
    config_["shared_intermediate_size"] = c.shared_width;
    put("block_sparse_moe.input_linear.weight",
        in_turn(take_experts("gate"), take_experts("up"), c.expert_width * c.hidden,
                {c.experts, 2 * c.expert_width, c.hidden}));
    put("block_sparse_moe.output_linear.weight", take_experts("down"));
    put("block_sparse_moe.router.layer.weight", take("ffn_gate_inp.weight"));
    put("shared_mlp.input_linear.weight",
        in_turn(take("ffn_gate_shexp.weight"), take("ffn_up_shexp.weight"),
                c.shared_width * c.hidden, {2 * c.shared_width, c.hidden}));
    put("shared_mlp.output_linear.weight", take("ffn_down_shexp.weight"));
    put("self_attn.q_proj.weight", in_halves(take("attn_q.weight"), c.head_width));
    put("self_attn.k_proj.weight", in_halves(take("attn_k.weight"), c.head_width));
  }

  void phi() {
    config_["model_type"] = "phimoe";
    config_["router_jitter_noise"] = 0.01;
    for (const auto& [role, theirs] : Names{{"gate", "w1"}, {"up", "w3"}, {"down", "w2"}}) {
      const PlainTensor stack = take_experts(role);
      const int64_t size = stack.shape[1] * stack.shape[2];
      for (int64_t e = 0; e < stack.shape[0]; ++e) {
        const auto from = stack.values.begin() + e * size;
        put("block_sparse_moe.experts." + std::to_string(e) + "." + theirs + ".weight",
            {{stack.shape[1], stack.shape[2]}, {from, from + size}});
      }
    }
    put("block_sparse_moe.gate.weight", take("ffn_gate_inp.weight"));
  }

  void dbrx() {
    const PlainConfig& c = tiny_.config;
    prefix_ = "transformer.blocks.";
    config_ = {
        {"model_type", "dbrx"},
        {"d_model", c.hidden},
        {"n_heads", c.heads},
        {"n_layers", c.layers},
        {"max_seq_len", 4096},
        {"attn_config", {{"kv_n_heads", c.kv_heads}, {"clip_qkv", 1.5}, {"rope_theta", 1e4}}},
        {"ffn_config",
         {{"ffn_hidden_size", c.expert_width},
          {"moe_num_experts", c.experts},
          {"moe_top_k", c.used},
          {"moe_normalize_expert_weights", 1.0},
          {"ffn_act_fn", {{"name", "silu"}}}}}};
    const auto flat = [&](PlainTensor tensor) {
      tensor.shape = {c.experts * c.expert_width, c.hidden};
      return tensor;
    };
    put("ffn.experts.mlp.w1", flat(take_experts("gate")));
    put("ffn.experts.mlp.v1", flat(take_experts("up")));
    put("ffn.experts.mlp.w2", flat(transposed(take_experts("down"))));
    put("ffn.router.layer.weight", take("ffn_gate_inp.weight"));
    put("norm_attn_norm.norm_1.weight", take("attn_norm.weight"));
    put("norm_attn_norm.norm_2.weight", take("attn_output_norm.weight"));
    put("norm_attn_norm.attn.Wqkv.weight", take("attn_qkv.weight"));
    put("norm_attn_norm.attn.out_proj.weight", take("attn_output.weight"));
  }

  void gpt_oss() {
    const PlainConfig& c = tiny_.config;
    config_["model_type"] = "gpt_oss";
    config_["sliding_window"] = c.window;
    config_["swiglu_limit"] = 7.0;
    config_["layer_types"] = {"sliding_attention", "full_attention"};
    config_["rope_scaling"] = {
        {"rope_type", "yarn"}, {"factor", 8.0}, {"original_max_position_embeddings", 32}};
    const int64_t both = 2 * c.expert_width;
    put("mlp.experts.gate_up_proj",
        in_turn(transposed(take_experts("gate")), transposed(take_experts("up")), 1,
                {c.experts, c.hidden, both}));
    put("mlp.experts.gate_up_proj_bias",
        in_turn(take("ffn_gate_exps.bias"), take("ffn_up_exps.bias"), 1, {c.experts, both}));
    put("mlp.experts.down_proj", transposed(take_experts("down")));
    put("mlp.experts.down_proj_bias", take("ffn_down_exps.bias"));
    put("mlp.router.weight", take("ffn_gate_inp.weight"));
    put("mlp.router.bias", take("ffn_gate_inp.bias"));
  }

  std::string renamed(std::string name) const {
    if (name.starts_with("output.")) return name.replace(0, 6, "lm_head");
    if (prefix_.starts_with("transformer.")) {
      if (name == "token_embd.weight") return "transformer.wte.weight";
      if (name == "output_norm.weight") return "transformer.norm_f.weight";
    }
    for (const auto& [ours, theirs] : kUsual)
      if (const auto at = name.find(ours); at != std::string::npos)
        name.replace(at, ours.size(), theirs);
    return name;
  }

  TinyModel tiny_;
  json config_;
  std::map<std::string, PlainTensor> rest_, written_;
  std::string block_, prefix_ = "model.layers.";
};

std::vector<float> all_logits(const std::shared_ptr<Model>& model,
                              const std::vector<TokenId>& tokens) {
  Session session(model);
  const Model::Slice slice = {&session, tokens, Model::Slice::Want::kAll};
  return model->forward({&slice, 1});
}

std::string complaint(const std::filesystem::path& folder) {
  try {
    Model::open(folder, {.threads = 1});
  } catch (const FormatError& error) {
    return error.what();
  }
  return "no complaint";
}

class CheckpointLayout : public ::testing::TestWithParam<std::string> {};

TEST_P(CheckpointLayout, LogitsAgreeWithPlainComputation) {
  const TestFolder folder;
  const Directory directory(GetParam());
  directory.write(folder.path());
  const auto model =
      Model::open(folder.path(), {.threads = 2, .quantize_to = kernels::BlockType::kF32});
  const auto tokens = some_tokens(40, 1);
  const auto ours = all_logits(model, tokens), plain = plain_logits(directory.tiny(), tokens);
  ASSERT_EQ(ours.size(), plain.size());
  double most = 0, squares = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    most = std::max(most, std::fabs(double{ours[i]} - plain[i]));
    squares += double{plain[i]} * plain[i];
  }
  EXPECT_LT(most, 1e-3 * std::sqrt(squares / static_cast<double>(plain.size())));
}

TEST_P(CheckpointLayout, StreamedExpertsGiveTheSameBits) {
  const TestFolder folder;
  Directory(GetParam()).write(folder.path());
  const auto tokens = some_tokens(20, 2);
  for (const auto type : {kernels::BlockType::kBF16, kernels::BlockType::kQ8_0}) {
    const auto resident = Model::open(folder.path(), {.threads = 2, .quantize_to = type});
    const auto source = open_source(folder.path());
    const int64_t least = least_streaming_bytes(find_expert_files(*source));
    const auto streamed =
        Model::open(folder.path(), {.expert_memory = least, .threads = 2, .quantize_to = type});
    EXPECT_EQ(all_logits(streamed, tokens), all_logits(resident, tokens));
    EXPECT_GT(streamed->expert_counters().misses, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Engine, CheckpointLayout,
                         ::testing::Values("granitemoe", "phimoe", "dbrx", "gpt-oss"),
                         [](const auto& info) {
                           return info.param == "gpt-oss" ? std::string("gpt_oss") : info.param;
                         });

TEST(CheckpointErrors, NameWhatDoesNotFit) {
  const TestFolder folder;
  const auto error = [&](const Directory& directory) {
    directory.write(folder.path());
    return complaint(folder.path());
  };
  Directory packed("gpt-oss");
  packed.config()["quantization_config"] = {{"quant_method", "mxfp4"}};
  EXPECT_THAT(error(packed), HasSubstr("\"quantization_config\""));
  Directory full("gpt-oss");
  full.config()["layer_types"] = {"full_attention", "full_attention"};
  EXPECT_THAT(error(full), HasSubstr("\"layer_types\""));
  Directory few("dbrx");
  few.config()["ffn_config"]["moe_num_experts"] = 7;
  EXPECT_THAT(error(few), HasSubstr("ffn.experts.mlp"));
  Directory none("dbrx");
  none.config().erase("ffn_config");
  EXPECT_THAT(error(none), HasSubstr("\"ffn_config\""));
  Directory scales("phimoe");
  scales.config()["rope_scaling"] = {{"type", "longrope"}, {"short_factor", "x"}};
  EXPECT_THAT(error(scales), HasSubstr("\"short_factor\""));
  Directory flat("granitemoe");
  flat.tensors()["model.layers.0.block_sparse_moe.input_linear.weight"].shape = {8 * 64 * 64};
  EXPECT_THAT(error(flat), HasSubstr("input_linear"));
}

}  // namespace
}  // namespace cadre::engine
