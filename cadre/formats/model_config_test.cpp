#include "cadre/formats/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "cadre/base/error.h"

namespace cadre {
namespace {

using nlohmann::json;
using testing::HasSubstr;

ModelConfig llama() {
  return {.architecture = Architecture::kLlama,
          .vocabulary = 100,
          .hidden = 16,
          .layers = 2,
          .heads = 4,
          .kv_heads = 2,
          .intermediate = 24};
}

ModelConfig olmoe() {
  return {.architecture = Architecture::kOlmoe,
          .vocabulary = 100,
          .hidden = 16,
          .layers = 2,
          .heads = 4,
          .kv_heads = 2,
          .experts = 4,
          .experts_per_token = 2,
          .expert_intermediate = 8,
          .norm_eps = 1e-5};
}

ModelConfig deepseek() {
  return {.architecture = Architecture::kDeepseek,
          .vocabulary = 100,
          .hidden = 16,
          .layers = 3,
          .heads = 4,
          .kv_heads = 4,
          .intermediate = 24,
          .experts = 4,
          .experts_per_token = 2,
          .expert_intermediate = 8,
          .shared_experts = 2,
          .first_dense_layers = 1,
          .end_of_text = 7};
}

/// The message of the error of type E that `body` throws.
template <class E>
std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const E& error) {
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

std::vector<int64_t> shape_in(const std::vector<ExpectedTensor>& tensors, const std::string& name) {
  for (const ExpectedTensor& tensor : tensors) {
    if (tensor.name == name) return tensor.shape;
  }
  return {-1};
}

TEST(ModelConfig, ArchitecturesParseAndPrint) {
  for (const auto architecture :
       {Architecture::kLlama, Architecture::kOlmoe, Architecture::kDeepseek}) {
    EXPECT_EQ(architecture_named(name_of(architecture)), architecture);
  }
  EXPECT_EQ(message_of<UsageError>([] { architecture_named("gpt2"); }),
            "unknown architecture \"gpt2\" (known: llama, olmoe, deepseek)");
}

TEST(ModelConfig, RoundTripsThroughJson) {
  for (const ModelConfig& config : {llama(), olmoe(), deepseek()}) {
    const json j = to_json(config);
    EXPECT_EQ(to_json(parse_model_config(j, "here")), j);
  }
}

TEST(ModelConfig, UsesTheKeysOfTransformers) {
  const json l = to_json(llama());
  EXPECT_EQ(l["architectures"], json({"LlamaForCausalLM"}));
  EXPECT_EQ(l["intermediate_size"], 24);
  EXPECT_EQ(l["torch_dtype"], "float32");
  const json o = to_json(olmoe());
  EXPECT_EQ(o["architectures"], json({"OlmoeForCausalLM"}));
  EXPECT_EQ(o["num_experts"], 4);
  EXPECT_EQ(o["intermediate_size"], 8) << "OLMoE calls the expert's width so";
  EXPECT_TRUE(o["clip_qkv"].is_null());
  EXPECT_EQ(o["router_aux_loss_coef"], 0.01);
  const json d = to_json(deepseek());
  EXPECT_EQ(d["architectures"], json({"DeepseekForCausalLM"}));
  EXPECT_EQ(d["n_routed_experts"], 4);
  EXPECT_EQ(d["n_shared_experts"], 2);
  EXPECT_EQ(d["moe_intermediate_size"], 8);
  EXPECT_EQ(d["first_k_dense_replace"], 1);
  EXPECT_EQ(d["moe_layer_freq"], 1);
  EXPECT_EQ(d["scoring_func"], "softmax");
  EXPECT_EQ(d["eos_token_id"], 7);
  EXPECT_EQ(d["cadre"]["z_loss_coefficient"], 0.001);
}

TEST(ModelConfig, ReadsThePublishedConfigOfDeepseekMoe16B) {
  const ModelConfig c = parse_model_config(
      json::parse(R"({"architectures": ["DeepseekForCausalLM"], "attention_bias": false,
        "aux_loss_alpha": 0.001, "bos_token_id": 100000, "eos_token_id": 100001,
        "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 2048,
        "initializer_range": 0.02, "intermediate_size": 10944, "max_position_embeddings": 4096,
        "model_type": "deepseek", "moe_intermediate_size": 1408, "moe_layer_freq": 1,
        "n_routed_experts": 64, "n_shared_experts": 2, "norm_topk_prob": false,
        "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 28,
        "num_key_value_heads": 16, "rms_norm_eps": 1e-06, "rope_scaling": null,
        "rope_theta": 10000, "scoring_func": "softmax", "seq_aux": true,
        "tie_word_embeddings": false, "vocab_size": 102400})"),
      "config.json");
  const ParameterCount count = count_parameters(c);
  EXPECT_NEAR(static_cast<double>(count.total), 16.4e9, 0.05e9);
  EXPECT_NEAR(static_cast<double>(count.active), 2.8e9, 0.05e9);
  EXPECT_EQ(count.per_expert, 3 * 2048 * 1408);
  EXPECT_EQ(c.z_loss_coefficient, 0);
  EXPECT_TRUE(c.balance_per_sequence);
}

TEST(ModelConfig, ReadsBothPlacesOfRopeTheta) {
  json j = to_json(llama());
  j["rope_theta"] = 5000;
  EXPECT_EQ(parse_model_config(j, "x").rope_theta, 5000);
  j.erase("rope_theta");
  j["rope_parameters"] = {{"rope_theta", 1e6}, {"rope_type", "default"}};
  EXPECT_EQ(parse_model_config(j, "x").rope_theta, 1e6);
  j["rope_parameters"]["rope_type"] = "yarn";
  EXPECT_THAT(message_of<FormatError>([&] { parse_model_config(j, "x"); }), HasSubstr("rope_type"));
}

TEST(ModelConfig, TensorsOfLlama) {
  const auto tensors = expected_tensors(llama());
  EXPECT_EQ(tensors.size(), 2 * 9 + 3);
  EXPECT_EQ(tensors.front().name, "model.embed_tokens.weight");
  EXPECT_EQ(tensors.back().name, "lm_head.weight");
  using Shape = std::vector<int64_t>;
  EXPECT_EQ(shape_in(tensors, "model.layers.1.self_attn.k_proj.weight"), (Shape{8, 16}));
  EXPECT_EQ(shape_in(tensors, "model.layers.1.mlp.down_proj.weight"), (Shape{16, 24}));
  ModelConfig tied = llama();
  tied.tied_embeddings = true;
  EXPECT_EQ(expected_tensors(tied).size(), tensors.size() - 1);
}

TEST(ModelConfig, TensorsOfOlmoe) {
  const auto tensors = expected_tensors(olmoe());
  EXPECT_EQ(tensors.size(), 2 * (8 + 1 + 4 * 3) + 3);
  using Shape = std::vector<int64_t>;
  EXPECT_EQ(shape_in(tensors, "model.layers.0.self_attn.q_norm.weight"), (Shape{16}));
  EXPECT_EQ(shape_in(tensors, "model.layers.0.self_attn.k_norm.weight"), (Shape{8}));
  EXPECT_EQ(shape_in(tensors, "model.layers.0.mlp.gate.weight"), (Shape{4, 16}));
  EXPECT_EQ(shape_in(tensors, "model.layers.1.mlp.experts.3.up_proj.weight"), (Shape{8, 16}));
}

TEST(ModelConfig, TensorsOfDeepseek) {
  const auto tensors = expected_tensors(deepseek());
  EXPECT_EQ(tensors.size(), (6 + 3) + 2 * (6 + 1 + 4 * 3 + 3) + 3);
  using Shape = std::vector<int64_t>;
  EXPECT_EQ(shape_in(tensors, "model.layers.0.mlp.gate_proj.weight"), (Shape{24, 16}));
  EXPECT_EQ(shape_in(tensors, "model.layers.2.mlp.experts.0.down_proj.weight"), (Shape{16, 8}));
  EXPECT_EQ(shape_in(tensors, "model.layers.2.mlp.shared_experts.up_proj.weight"), (Shape{16, 16}))
      << "shared experts are fused";
  std::set<std::string> names;
  for (const ExpectedTensor& tensor : tensors) names.insert(tensor.name);
  EXPECT_EQ(names.size(), tensors.size());
}

TEST(ModelConfig, CountsActiveParameters) {
  const ModelConfig c = deepseek();
  const ParameterCount count = count_parameters(c);
  EXPECT_EQ(count.per_expert, 3 * 16 * 8);
  EXPECT_EQ(count.embedding, 2 * 100 * 16);
  EXPECT_EQ(count.total - count.active, 2 * (4 - 2) * count.per_expert);
  EXPECT_EQ(count_parameters(llama()).active, count_parameters(llama()).total);
}

struct BadConfig {
  const char* name;
  ModelConfig (*base)();
  void (*spoil)(ModelConfig&);
  const char* message;
};

class BadModelConfig : public testing::TestWithParam<BadConfig> {};

TEST_P(BadModelConfig, IsNamedInOneLine) {
  ModelConfig config = GetParam().base();
  config.validate();
  GetParam().spoil(config);
  const std::string message = message_of<UsageError>([&] { config.validate(); });
  EXPECT_THAT(message, HasSubstr(GetParam().message));
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    All, BadModelConfig,
    testing::Values(
        BadConfig{"NoVocabulary", llama, [](ModelConfig& c) { c.vocabulary = 0; }, "vocabulary"},
        BadConfig{"NegativeHidden", llama, [](ModelConfig& c) { c.hidden = -1; }, "hidden is -1"},
        BadConfig{"HugeHidden", llama, [](ModelConfig& c) { c.hidden = 1LL << 40; }, "hidden is"},
        BadConfig{"NoLayers", llama, [](ModelConfig& c) { c.layers = 0; }, "layers is 0"},
        BadConfig{"NoHeads", llama, [](ModelConfig& c) { c.heads = 0; }, "heads is 0"},
        BadConfig{"HeadsDoNotDivide", llama,
                  [](ModelConfig& c) {
                    c.heads = 3;
                    c.kv_heads = 3;
                  },
                  "hidden (16) is not divisible by heads (3)"},
        BadConfig{"KvHeadsDoNotDivide", llama, [](ModelConfig& c) { c.kv_heads = 3; },
                  "heads (4) is not divisible by kv_heads (3)"},
        BadConfig{"OddHead", llama,
                  [](ModelConfig& c) {
                    c.heads = 16;
                    c.kv_heads = 16;
                  },
                  "must be even"},
        BadConfig{"NoIntermediate", llama, [](ModelConfig& c) { c.intermediate = 0; },
                  "intermediate is 0"},
        BadConfig{"LlamaWithExperts", llama, [](ModelConfig& c) { c.experts = 4; },
                  "llama is dense"},
        BadConfig{"EndBeyondVocabulary", llama, [](ModelConfig& c) { c.end_of_text = 100; },
                  "end_of_text is 100"},
        BadConfig{"NoPositions", llama, [](ModelConfig& c) { c.max_positions = 0; },
                  "max_positions"},
        BadConfig{"BadTheta", llama, [](ModelConfig& c) { c.rope_theta = NAN; }, "rope_theta"},
        BadConfig{"BadEps", llama, [](ModelConfig& c) { c.norm_eps = 0; }, "norm_eps"},
        BadConfig{"BadStd", llama, [](ModelConfig& c) { c.init_std = -1; }, "init_std"},
        BadConfig{"ZeroExperts", deepseek, [](ModelConfig& c) { c.experts = 0; }, "experts is 0"},
        BadConfig{"ZeroExpertsActive", deepseek, [](ModelConfig& c) { c.experts_per_token = 0; },
                  "experts_per_token is 0"},
        BadConfig{"MoreActiveThanExperts", olmoe, [](ModelConfig& c) { c.experts_per_token = 5; },
                  "experts_per_token (5) is more than experts (4)"},
        BadConfig{"NoExpertWidth", deepseek, [](ModelConfig& c) { c.expert_intermediate = 0; },
                  "expert_intermediate is 0"},
        BadConfig{"AllLayersDense", deepseek, [](ModelConfig& c) { c.first_dense_layers = 3; },
                  "first_dense_layers is 3"},
        BadConfig{"SharedInOlmoe", olmoe, [](ModelConfig& c) { c.shared_experts = 1; },
                  "olmoe has no shared experts"},
        BadConfig{"DenseInOlmoe", olmoe, [](ModelConfig& c) { c.first_dense_layers = 1; },
                  "olmoe has no dense layers"},
        BadConfig{"HeadDimInDeepseek", deepseek, [](ModelConfig& c) { c.head_dim = 8; },
                  "no head_dim"},
        BadConfig{"NegativeBalance", deepseek, [](ModelConfig& c) { c.balance_coefficient = -0.1; },
                  "balance_coefficient"},
        BadConfig{"NegativeZLoss", deepseek, [](ModelConfig& c) { c.z_loss_coefficient = -1; },
                  "z_loss_coefficient"},
        BadConfig{"AbsurdTotal", deepseek,
                  [](ModelConfig& c) {
                    c.hidden = 1 << 20;
                    c.experts = 1 << 16;
                    c.expert_intermediate = 1 << 20;
                  },
                  "more than any model has"}),
    [](const auto& info) { return info.param.name; });

struct BadJson {
  const char* name;
  const char* key;
  json value;  ///< discarded = the key is removed
  const char* message;
};

class BadModelJson : public testing::TestWithParam<BadJson> {};

TEST_P(BadModelJson, NamesFileAndKey) {
  json j = to_json(deepseek());
  if (GetParam().value.is_discarded()) {
    j.erase(GetParam().key);
  } else {
    j[GetParam().key] = GetParam().value;
  }
  const std::string message =
      message_of<FormatError>([&] { parse_model_config(j, "dir/config.json"); });
  EXPECT_THAT(message, HasSubstr("dir/config.json"));
  EXPECT_THAT(message, HasSubstr(GetParam().message));
}

const json kGone(json::value_t::discarded);

INSTANTIATE_TEST_SUITE_P(
    All, BadModelJson,
    testing::Values(
        BadJson{"NoModelType", "model_type", kGone, "\"model_type\" is missing"},
        BadJson{"UnknownModelType", "model_type", "mamba", "\"mamba\", which is unknown"},
        BadJson{"ModelTypeNumber", "model_type", 3, "\"model_type\" must be a string"},
        BadJson{"NoHidden", "hidden_size", kGone, "\"hidden_size\" is missing"},
        BadJson{"NullHidden", "hidden_size", nullptr, "\"hidden_size\" is missing"},
        BadJson{"HiddenIsText", "hidden_size", "16", "\"hidden_size\" must be an integer"},
        BadJson{"HiddenIsReal", "hidden_size", 16.5, "\"hidden_size\" must be an integer"},
        BadJson{"HiddenIsHuge", "hidden_size", uint64_t{1} << 63, "must be an integer"},
        BadJson{"ThetaIsText", "rope_theta", "big", "\"rope_theta\" must be a number"},
        BadJson{"TiedIsNumber", "tie_word_embeddings", 1, "must be true or false"},
        BadJson{"Activation", "hidden_act", "gelu", "\"hidden_act\" is \"gelu\""},
        BadJson{"Bias", "attention_bias", true, "\"attention_bias\" is true"},
        BadJson{"Scaling", "rope_scaling", json{{"type", "yarn"}}, "\"rope_scaling\""},
        BadJson{"Sigmoid", "scoring_func", "sigmoid", "\"scoring_func\" is \"sigmoid\""},
        BadJson{"Frequency", "moe_layer_freq", 2, "\"moe_layer_freq\" is 2"},
        BadJson{"EndOfText", "eos_token_id", "end", "\"eos_token_id\" must be an integer"},
        BadJson{"CadreIsList", "cadre", json::array(), "\"cadre\": is not a JSON object"},
        BadJson{"TooManyActive", "num_experts_per_tok", 9, "experts_per_token (9)"}),
    [](const auto& info) { return info.param.name; });

TEST(ModelConfig, RefusesWhatIsNoObject) {
  EXPECT_THROW(parse_model_config(json::array(), "x"), FormatError);
  EXPECT_THROW(read_model_config("/nonexistent"), IoError);
}

}  // namespace
}  // namespace cadre
