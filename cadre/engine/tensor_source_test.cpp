#include "cadre/engine/tensor_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cadre/engine/checkpoint_source.h"
#include "cadre/engine/session.h"
#include "cadre/engine/test_models.h"
#include "cadre/formats/file.h"
#include "cadre/formats/safetensors.h"
#include "cadre/formats/test_folder.h"

namespace cadre::engine {
namespace {

using ::testing::HasSubstr;

std::vector<float> logits_of(const std::filesystem::path& path, ModelOptions options = {}) {
  options.threads = 1;
  Session session(Model::open(path, options));
  return session.feed(some_tokens(12, 1));
}

template <typename F>
std::string complaint(F f) {
  try {
    f();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "no complaint";
}

PlainTensor slice(const PlainTensor& tensor, int64_t index) {
  PlainTensor part{{tensor.shape.begin() + 1, tensor.shape.end()}, {}};
  const auto size = static_cast<int64_t>(tensor.values.size()) / tensor.shape[0];
  part.values.assign(tensor.values.begin() + index * size,
                     tensor.values.begin() + (index + 1) * size);
  return part;
}

TEST(GgufSource, ReadsExpertsStoredOneByOneOrFused) {
  const TestFolder folder;
  TinyModel stacked = tiny_model("mixtral");
  write_gguf(stacked, folder / "stacked.gguf");
  const auto expected = logits_of(folder / "stacked.gguf");

  TinyModel single = stacked, fused = stacked;
  for (int64_t layer = 0; layer < 2; ++layer) {
    const std::string block = fmt::format("blk.{}.", layer);
    for (const std::string role : {"gate", "up", "down"}) {
      const auto whole = single.tensors.extract(block + "ffn_" + role + "_exps.weight").mapped();
      for (int64_t e = 0; e < 8; ++e) {
        single.tensors[fmt::format("{}ffn_{}.{}.weight", block, role, e)] = slice(whole, e);
      }
    }
    const auto gate = fused.tensors.extract(block + "ffn_gate_exps.weight").mapped();
    const auto up = fused.tensors.extract(block + "ffn_up_exps.weight").mapped();
    PlainTensor both{{8, 64, 64}, {}};
    for (int64_t e = 0; e < 8; ++e) {
      for (const auto& part : {slice(gate, e), slice(up, e)}) {
        both.values.insert(both.values.end(), part.values.begin(), part.values.end());
      }
    }
    fused.tensors[block + "ffn_gate_up_exps.weight"] = both;
  }
  write_gguf(single, folder / "single.gguf");
  write_gguf(fused, folder / "fused.gguf");
  EXPECT_EQ(logits_of(folder / "single.gguf"), expected);
  EXPECT_EQ(logits_of(folder / "fused.gguf"), expected);
  EXPECT_NE(open_source(folder / "single.gguf")->fingerprint(),
            open_source(folder / "stacked.gguf")->fingerprint());

  single.remove("blk.1.ffn_up.5.weight");
  write_gguf(single, folder / "single.gguf");
  EXPECT_THAT(complaint([&] { logits_of(folder / "single.gguf"); }), HasSubstr("blk.1.ffn_up"));
}

/// The model in parts: tensors are dealt out in turn.
void write_split(const TinyModel& model, const TestFolder& folder, int64_t parts) {
  for (int64_t part = 0; part < parts; ++part) {
    GgufKeys keys;
    if (part == 0) {
      keys.add("general.architecture", model.architecture);
      for (const auto& [key, value] : model.keys) {
        std::visit([&](const auto& known) { keys.add(model.architecture + "." + key, known); },
                   value);
      }
    }
    keys.add("split.no", static_cast<uint16_t>(part));
    keys.add("split.count", static_cast<uint16_t>(parts));
    std::vector<GgufTensorSpec> specs;
    int64_t turn = 0;
    for (const auto& [name, tensor] : model.tensors) {
      if (turn++ % parts != part) continue;
      specs.push_back({name, {tensor.shape.rbegin(), tensor.shape.rend()}, 0});
    }
    GgufWriter writer(folder / fmt::format("m-{:05d}-of-{:05d}.gguf", part + 1, parts), keys,
                      specs);
    for (const auto& spec : specs) {
      writer.write(spec.name, std::as_bytes(std::span(model.tensors.at(spec.name).values)));
    }
    writer.commit();
  }
}

TEST(GgufSource, FindsTheOtherPartsOfASplitFile) {
  const TestFolder folder;
  TinyModel model = tiny_model("olmoe");
  write_gguf(model, folder / "whole.gguf");
  write_split(model, folder, 3);
  const auto expected = logits_of(folder / "whole.gguf");
  EXPECT_EQ(logits_of(folder / "m-00001-of-00003.gguf"), expected);
  EXPECT_EQ(logits_of(folder / "m-00002-of-00003.gguf"), expected);
  EXPECT_EQ(open_source(folder / "m-00001-of-00003.gguf")->files().size(), 3u);
  std::filesystem::rename(folder / "m-00001-of-00003.gguf", folder / "alone.gguf");
  EXPECT_THAT(complaint([&] { open_source(folder / "alone.gguf"); }), HasSubstr("split.count"));
  EXPECT_THAT(complaint([&] { open_source(folder / "m-00002-of-00003.gguf"); }),
              HasSubstr("m-00001-of-00003.gguf"));
}

TEST(GgufSource, SlicesPointIntoTheFile) {
  const TestFolder folder;
  TinyModel model = tiny_model("olmoe");
  write_gguf(model, folder / "model.gguf", kernels::BlockType::kQ8_0);
  const auto source = open_source(folder / "model.gguf");
  const SourceTensor expert = source->expert_slice("blk.1.ffn_down_exps.weight", 3);
  EXPECT_EQ(expert.shape, (std::vector<int64_t>{64, 32}));
  EXPECT_EQ(expert.file, 0);
  const std::string bytes = read_file(folder / "model.gguf");
  EXPECT_EQ(
      std::memcmp(bytes.data() + expert.file_offset, expert.bytes.data(), expert.bytes.size()), 0);
}

/// A directory as transformers writes it, from a tiny model whose rotary layout is already halves.
class CheckpointTest : public ::testing::Test {
 protected:
  nlohmann::json config_ = {
      {"model_type", "qwen3_moe"}, {"hidden_size", 64},           {"num_hidden_layers", 2},
      {"num_attention_heads", 4},  {"num_key_value_heads", 2},    {"head_dim", 32},
      {"intermediate_size", 96},   {"moe_intermediate_size", 32}, {"num_experts", 8},
      {"num_experts_per_tok", 2},  {"norm_topk_prob", true},      {"max_position_embeddings", 4096},
      {"rms_norm_eps", 1e-5},      {"hidden_act", "silu"},        {"rope_theta", 10000.0}};
  TinyModel model_ = tiny_model("qwen3moe");
  TestFolder folder_;

  static std::string theirs(std::string name) {
    const std::vector<std::pair<std::string, std::string>> pairs = {
        {"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"},
        {"attn_output", "self_attn.o_proj"},  {"attn_q_norm", "self_attn.q_norm"},
        {"attn_k_norm", "self_attn.k_norm"},  {"attn_q.", "self_attn.q_proj."},
        {"attn_k.", "self_attn.k_proj."},     {"attn_v.", "self_attn.v_proj."},
        {"attn_norm", "input_layernorm"},     {"ffn_norm", "post_attention_layernorm"},
        {"ffn_gate_inp", "mlp.gate"},         {"blk.", "model.layers."}};
    if (name == "output.weight") return "lm_head.weight";
    for (const auto& [ours, new_name] : pairs) {
      if (const auto at = name.find(ours); at != std::string::npos) {
        name.replace(at, ours.size(), new_name);
      }
    }
    return name;
  }

  void write() {
    std::map<std::string, PlainTensor> tensors;
    for (const auto& [name, tensor] : model_.tensors) {
      const auto at = name.find("ffn_");
      if (!name.ends_with("_exps.weight")) {
        tensors[theirs(name)] = tensor;
        continue;
      }
      const std::string role = name.substr(at + 4, name.size() - at - 4 - 12);
      for (int64_t e = 0; e < 8; ++e) {
        tensors[fmt::format("model.layers.{}.mlp.experts.{}.{}_proj.weight", name.substr(4, 1), e,
                            role)] = slice(tensor, e);
      }
    }
    write_file(folder_ / "config.json", config_.dump());
    std::vector<TensorSpec> specs;
    for (const auto& [name, tensor] : tensors) specs.push_back({name, DType::kF32, tensor.shape});
    SafetensorsWriter writer(folder_ / "model.safetensors", specs);
    for (const auto& [name, tensor] : tensors) {
      writer.write(name, std::as_bytes(std::span(tensor.values)));
    }
    writer.commit();
  }

  std::string open_error() {
    write();
    return complaint([&] { logits_of(folder_.path()); });
  }
};

TEST_F(CheckpointTest, GivesTheSameBitsAsItsGguf) {
  write();
  write_gguf(model_, folder_ / "model.gguf");
  EXPECT_EQ(logits_of(folder_.path(), {.quantize_to = kernels::BlockType::kF32}),
            logits_of(folder_ / "model.gguf"));
}

TEST_F(CheckpointTest, QuantisesWhileLoading) {
  write_gguf(model_, folder_ / "model.gguf", kernels::BlockType::kQ8_0);
  write();  // rounded values, for the embedding stays as it is
  EXPECT_EQ(logits_of(folder_.path(), {.quantize_to = kernels::BlockType::kQ8_0}),
            logits_of(folder_ / "model.gguf"));
}

TEST_F(CheckpointTest, NamesTheirKeysAndTensorsInErrors) {
  config_.erase("num_attention_heads");
  EXPECT_THAT(open_error(), HasSubstr("\"num_attention_heads\" is missing"));
  config_["num_attention_heads"] = "four";
  EXPECT_THAT(open_error(), HasSubstr("\"num_attention_heads\" must be an integer"));
  config_["num_attention_heads"] = 4;
  config_["hidden_act"] = "gelu";
  EXPECT_THAT(open_error(), HasSubstr("hidden_act"));
  config_["hidden_act"] = "silu";
  config_["rope_scaling"] = {{"rope_type", "dynamic"}, {"factor", 2.0}};
  EXPECT_THAT(open_error(), HasSubstr("dynamic"));
  config_.erase("rope_scaling");
  config_["model_type"] = "bert";
  EXPECT_THAT(open_error(), HasSubstr("\"bert\" is not supported"));
  config_["model_type"] = "qwen3_moe";
  model_.tensors["mystery"] = {{1}, {0}};
  EXPECT_THAT(open_error(), HasSubstr("\"mystery\""));
}

TEST(CheckpointConfig, ReadsLatentAttentionAndYarn) {
  const auto config = read_checkpoint_config({{"model_type", "deepseek_v3"},
                                              {"num_hidden_layers", 3},
                                              {"hidden_size", 64},
                                              {"num_attention_heads", 4},
                                              {"num_key_value_heads", 4},
                                              {"intermediate_size", 96},
                                              {"moe_intermediate_size", 32},
                                              {"n_routed_experts", 8},
                                              {"num_experts_per_tok", 2},
                                              {"n_shared_experts", 1},
                                              {"first_k_dense_replace", 1},
                                              {"routed_scaling_factor", 2.5},
                                              {"scoring_func", "sigmoid"},
                                              {"topk_method", "noaux_tc"},
                                              {"n_group", 4},
                                              {"topk_group", 2},
                                              {"q_lora_rank", 40},
                                              {"kv_lora_rank", 32},
                                              {"qk_nope_head_dim", 16},
                                              {"qk_rope_head_dim", 8},
                                              {"v_head_dim", 20},
                                              {"max_position_embeddings", 4096},
                                              {"rope_scaling",
                                               {{"type", "yarn"},
                                                {"factor", 40},
                                                {"mscale_all_dim", 1.0},
                                                {"original_max_position_embeddings", 64}}}},
                                             "config.json");
  EXPECT_EQ(config.architecture, "deepseek2");
  EXPECT_EQ(config.rope, RopeLayout::kAdjacent);
  EXPECT_EQ(config.keys.integer("attention.key_length"), 24);
  EXPECT_EQ(config.keys.integer("attention.value_length_mla"), 20);
  EXPECT_EQ(config.keys.integer("expert_group_used_count"), 2);
  EXPECT_EQ(config.keys.integer("expert_gating_func"), 2);
  EXPECT_FLOAT_EQ(config.keys.number("rope.scaling.yarn_log_multiplier"), 0.1F);
  EXPECT_TRUE(config.keys.flag("expert_weights_norm", false));
}

}  // namespace
}  // namespace cadre::engine
