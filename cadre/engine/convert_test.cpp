#include "cadre/engine/convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cadre/base/error.h"
#include "cadre/engine/convert_test_kit.h"
#include "cadre/engine/tokenizer_from_gguf.h"
#include "cadre/formats/gguf.h"
#include "cadre/formats/test_folder.h"

namespace cadre::engine {
namespace {

namespace fs = std::filesystem;
using kernels::BlockType;
using ::testing::HasSubstr;

void convert(const fs::path& folder, const fs::path& gguf, BlockType type) {
  write_gguf(gguf, image_of_checkpoint(folder), type);
}

class Convert : public ::testing::TestWithParam<Architecture> {};

TEST_P(Convert, ThereAndBackIsTheSameBytes) {
  const TestFolder folder;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const BlockType type = dtype == DType::kF32 ? BlockType::kF32 : BlockType::kBF16;
    write_small_checkpoint(folder / "in", small_config(GetParam()), dtype);
    convert(folder / "in", folder / "model.gguf", type);
    write_checkpoint(folder / "out", folder / "model.gguf", type);
    for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"})
      EXPECT_EQ(read_file(folder / "in" / name), read_file(folder / "out" / name)) << name;
  }
}

TEST_P(Convert, WithoutOurKeysTheModelIsTheSame) {
  const TestFolder folder;
  write_small_checkpoint(folder / "in", small_config(GetParam()));
  GgufImage image = image_of_checkpoint(folder / "in");
  image.keys.remove(kConfigKey);
  write_gguf(folder / "model.gguf", std::move(image), BlockType::kF32);
  write_checkpoint(folder / "out", folder / "model.gguf", BlockType::kF32);
  EXPECT_EQ(read_file(folder / "in" / "model.safetensors"),
            read_file(folder / "out" / "model.safetensors"));
  const ModelConfig before = read_model_config(folder / "in");
  const ModelConfig after = read_model_config(folder / "out");
  EXPECT_EQ(expected_tensors(before).size(), expected_tensors(after).size());
  EXPECT_EQ(before.norm_eps, after.norm_eps);
  EXPECT_EQ(before.rope_theta, after.rope_theta);
  EXPECT_EQ(before.experts_per_token, after.experts_per_token);
  EXPECT_EQ(before.normalize_expert_weights, after.normalize_expert_weights);
  EXPECT_EQ(before.end_of_text, after.end_of_text);
}

INSTANTIATE_TEST_SUITE_P(Architectures, Convert,
                         ::testing::Values(Architecture::kLlama, Architecture::kOlmoe,
                                           Architecture::kDeepseek),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST(ConvertGguf, HoldsWhatLlamaCppAsksFor) {
  const TestFolder folder;
  write_small_checkpoint(folder / "in", small_config(Architecture::kDeepseek));
  convert(folder / "in", folder / "model.gguf", BlockType::kF16);
  const GgufReader gguf(folder / "model.gguf");
  EXPECT_EQ(gguf.text("general.architecture"), "deepseek");
  EXPECT_EQ(gguf.integer("general.file_type"), 1);
  EXPECT_EQ(gguf.integer("deepseek.leading_dense_block_count"), 1);
  EXPECT_EQ(gguf.integer("deepseek.expert_shared_count"), 1);
  EXPECT_EQ(gguf.integer("deepseek.expert_feed_forward_length"), 32);
  EXPECT_EQ(gguf.number("deepseek.expert_weights_scale"), 1.0);
  EXPECT_EQ(gguf.integer("deepseek.rope.dimension_count"), 16);
  EXPECT_EQ(gguf.text("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(gguf.text("tokenizer.ggml.pre"), "gpt-2");
  EXPECT_EQ(gguf.strings("tokenizer.ggml.tokens").size(), 300u) << "padded to the embedding";
  EXPECT_EQ(gguf.integers("tokenizer.ggml.token_type")[small_tokenizer().end_of_text()], 3);
  EXPECT_EQ(gguf.integer("tokenizer.ggml.eos_token_id"), 256);
  EXPECT_FALSE(gguf.flag("tokenizer.ggml.add_bos_token"));
  const GgufTensor* experts = gguf.find_tensor("blk.1.ffn_gate_exps.weight");
  ASSERT_NE(experts, nullptr);
  EXPECT_THAT(experts->dims, ::testing::ElementsAre(64, 32, 4));
  EXPECT_STREQ(experts->type.name, "F16");
  EXPECT_STREQ(gguf.find_tensor("blk.1.ffn_gate_inp.weight")->type.name, "F32");
  EXPECT_STREQ(gguf.find_tensor("output_norm.weight")->type.name, "F32");
  EXPECT_EQ(special_token_ids(gguf, "test").end_of_text, 256);
  const Tokenizer before = small_tokenizer();
  EXPECT_EQ(tokenizer_from_gguf(gguf, "test").encode("once upon a test"),
            before.encode("once upon a test"));
}

TEST(ConvertGguf, RotaryRowsGoToAdjacentPairs) {
  const TestFolder folder;
  write_small_checkpoint(folder / "in", small_config(Architecture::kLlama));
  convert(folder / "in", folder / "model.gguf", BlockType::kF32);
  const GgufReader gguf(folder / "model.gguf");
  const SafetensorsReader reader(folder / "in");
  const auto& before = reader.tensor("model.layers.1.self_attn.k_proj.weight").bytes;
  const auto& after = gguf.find_tensor("blk.1.attn_k.weight")->bytes;
  constexpr size_t kRow = 64 * 4, kWidth = 16;
  for (size_t head = 0; head < 2; ++head) {
    for (size_t pair = 0; pair < kWidth / 2; ++pair) {
      for (size_t half = 0; half < 2; ++half) {
        const size_t from = head * kWidth + half * kWidth / 2 + pair;
        const size_t to = head * kWidth + 2 * pair + half;
        EXPECT_EQ(std::memcmp(&before[from * kRow], &after[to * kRow], kRow), 0) << from;
      }
    }
  }
}

TEST(ConvertGguf, OtherArchitecturesByTheirNames) {
  const TestFolder folder;
  struct Case {
    const char* model_type;
    const char* router;
    const char* expert;  // of {}
    const char* architecture;
  };
  for (const Case& c :
       {Case{"mixtral", "block_sparse_moe.gate.weight", "block_sparse_moe.experts.{}.w{}.weight",
             "llama"},
        Case{"qwen3_moe", "mlp.gate.weight", "mlp.experts.{}.{}_proj.weight", "qwen3moe"}}) {
    const bool mixtral = std::string(c.model_type) == "mixtral";
    const fs::path in = folder / c.model_type;
    fs::create_directories(in);
    const nlohmann::json config = {{"model_type", c.model_type},     {"hidden_size", 64},
                                   {"intermediate_size", 32},        {"moe_intermediate_size", 32},
                                   {"num_hidden_layers", 1},         {"num_attention_heads", 4},
                                   {"num_key_value_heads", 2},       {"num_local_experts", 2},
                                   {"num_experts_per_tok", 1},       {"norm_topk_prob", true},
                                   {"max_position_embeddings", 128}, {"vocab_size", 300}};
    write_file(in / "config.json", config.dump());
    std::vector<TensorSpec> specs = {
        {"model.embed_tokens.weight", DType::kF32, {300, 64}},
        {"model.layers.0.input_layernorm.weight", DType::kF32, {64}},
        {"model.layers.0.self_attn.q_proj.weight", DType::kF32, {64, 64}},
        {"model.layers.0.self_attn.k_proj.weight", DType::kF32, {32, 64}},
        {"model.layers.0.self_attn.v_proj.weight", DType::kF32, {32, 64}},
        {"model.layers.0.self_attn.o_proj.weight", DType::kF32, {64, 64}},
        {"model.layers.0.post_attention_layernorm.weight", DType::kF32, {64}},
        {std::string("model.layers.0.") + c.router, DType::kF32, {2, 64}},
    };
    for (int expert = 0; expert < 2; ++expert) {
      for (int part = 0; part < 3; ++part) {
        const std::string name =
            mixtral ? std::array{"1", "3", "2"}[part] : std::array{"gate", "up", "down"}[part];
        specs.push_back({"model.layers.0." + fmt::format(fmt::runtime(c.expert), expert, name),
                         DType::kF32,
                         part == 2 ? std::vector<int64_t>{64, 32} : std::vector<int64_t>{32, 64}});
      }
    }
    specs.push_back({"model.norm.weight", DType::kF32, {64}});
    specs.push_back({"lm_head.weight", DType::kF32, {300, 64}});
    write_weights(in, specs);
    convert(in, folder / "model.gguf", BlockType::kF32);
    const GgufReader gguf(folder / "model.gguf");
    EXPECT_EQ(gguf.text("general.architecture"), c.architecture);
    EXPECT_EQ(gguf.text("tokenizer.ggml.model"), "no_vocab");
    write_checkpoint(folder / "out", folder / "model.gguf", BlockType::kF32);
    EXPECT_EQ(read_file(in / "config.json"), read_file(folder / "out" / "config.json"));
    EXPECT_EQ(read_file(in / "model.safetensors"), read_file(folder / "out" / "model.safetensors"))
        << c.model_type;
  }
}

template <typename Body>
std::string complaint(Body body) {
  try {
    body();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "no complaint";
}

TEST(ConvertGguf, ComplaintsNameTheTensor) {
  const TestFolder folder;
  const ModelConfig config = small_config(Architecture::kOlmoe);
  write_small_checkpoint(folder / "in", config);
  std::vector<TensorSpec> specs;
  for (const ExpectedTensor& tensor : expected_tensors(config))
    if (tensor.name != "model.layers.1.mlp.experts.2.up_proj.weight")
      specs.push_back({tensor.name, DType::kF32, tensor.shape});
  write_weights(folder / "in", specs);
  EXPECT_THAT(complaint([&] { image_of_checkpoint(folder / "in"); }),
              HasSubstr("expert 2 of blk.1.ffn_up_exps.weight is missing"));
  specs.push_back({"model.layers.0.strange.weight", DType::kF32, {4}});
  write_weights(folder / "in", specs);
  EXPECT_THAT(complaint([&] { image_of_checkpoint(folder / "in"); }), HasSubstr("strange"));
}

/// A GGUF file with these tensors, each of 4 rows, values chosen by `value(i)`.
template <typename Value>
void write_gguf_file(const fs::path& path,
                     const std::vector<std::pair<std::string, int64_t>>& tensors, Value value) {
  GgufKeys keys;
  keys.add("general.architecture", "llama");
  keys.add("general.file_type", uint32_t{0});
  std::vector<GgufTensorSpec> specs;
  for (const auto& [name, columns] : tensors) specs.push_back({name, {columns, 4}, 0});
  GgufWriter writer(path, keys, specs);
  for (const auto& [name, columns] : tensors) {
    std::vector<float> values(4 * columns);
    for (size_t i = 0; i < values.size(); ++i) values[i] = value(i);
    writer.write(name, std::as_bytes(std::span(values)));
  }
  writer.commit();
}

float wave(size_t i) { return std::sin(static_cast<float>(i) * 0.37f); }

TEST(Quantize, TypesByRoleAndWhatDoesNotFit) {
  const TestFolder folder;
  write_gguf_file(folder / "in.gguf",
                  {{"token_embd.weight", 256},
                   {"blk.0.attn_q.weight", 256},
                   {"blk.0.attn_v.weight", 256},
                   {"blk.0.attn_norm.weight", 256},
                   {"blk.0.ffn_gate_inp.weight", 256},
                   {"blk.0.ffn_down_exps.weight", 96},
                   {"blk.0.ffn_up_shexp.weight", 33},
                   {"output.weight", 96}},
                  wave);
  const GgufImage image = image_of_gguf(folder / "in.gguf");
  const auto roles = {parse_role_type("attn=Q8_0"), parse_role_type("attn_v=bf16"),
                      parse_role_type("output=Q6_K")};
  const QuantizePlan plan = plan_quantize(image, BlockType::kQ4_K, roles);
  EXPECT_THAT(
      plan.types,
      ::testing::ElementsAre(BlockType::kQ4_K, BlockType::kQ8_0, BlockType::kBF16, BlockType::kF32,
                             BlockType::kF32, BlockType::kQ4_0, BlockType::kF16, BlockType::kQ8_0));
  ASSERT_EQ(plan.notes.size(), 3u);
  EXPECT_THAT(plan.notes[0], HasSubstr("rows of 33 do not fill blocks of Q4_K: ffn_up_shexp"));

  const auto stored = quantize_gguf(folder / "out.gguf", image, plan);
  const GgufReader gguf(folder / "out.gguf");
  EXPECT_EQ(gguf.integer("general.quantization_version"), 2);
  for (size_t i = 0; i < stored.size(); ++i) {
    EXPECT_EQ(gguf.tensors()[i].type.name, kernels::block_info(plan.types[i]).name);
    EXPECT_EQ(stored[i].bytes_after, static_cast<int64_t>(gguf.tensors()[i].bytes.size()));
    EXPECT_EQ(stored[i].bytes_before, static_cast<int64_t>(image.tensors[i].bytes()));
    const double error = std::sqrt(stored[i].squared_error / stored[i].squared_sum);
    const bool exact = plan.types[i] == BlockType::kF32;
    EXPECT_EQ(error == 0, exact) << stored[i].name;
    EXPECT_LT(error, plan.types[i] == BlockType::kQ4_0 ? 0.12 : 0.09) << stored[i].name;
  }

  EXPECT_THAT(complaint([&] { plan_quantize(image, BlockType::kIQ4_NL, {}); }),
              HasSubstr("can be read, not written"));
  EXPECT_THAT(
      complaint([&] { plan_quantize(image, BlockType::kQ8_0, {parse_role_type("x=F16")}); }),
      HasSubstr("no tensor has the role \"x\""));
  EXPECT_THAT(complaint([] { parse_role_type("attn"); }), HasSubstr("ROLE=TYPE"));
}

TEST(Quantize, TheSameTypeIsCopied) {
  const TestFolder folder;
  write_gguf_file(folder / "in.gguf", {{"token_embd.weight", 256}}, wave);
  const auto quantize = [](const fs::path& from, const fs::path& to) {
    const GgufImage image = image_of_gguf(from);
    return quantize_gguf(to, image, plan_quantize(image, BlockType::kQ4_K, {}));
  };
  quantize(folder / "in.gguf", folder / "once.gguf");
  const auto again = quantize(folder / "once.gguf", folder / "twice.gguf");
  EXPECT_EQ(again[0].squared_error, 0);
  EXPECT_EQ(read_file(folder / "once.gguf"), read_file(folder / "twice.gguf"));
}

TEST(Quantize, ValuesThatNoModelShouldHaveAreRefused) {
  const TestFolder folder;
  const auto attempt = [&](float bad, BlockType type) {
    write_gguf_file(folder / "in.gguf", {{"token_embd.weight", 256}, {"output.weight", 256}},
                    [&](size_t i) { return i == 700 ? bad : wave(i); });
    return complaint([&] {
      const GgufImage image = image_of_gguf(folder / "in.gguf");
      quantize_gguf(folder / "out.gguf", image, plan_quantize(image, type, {}));
    });
  };
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(attempt(kNan, BlockType::kQ4_0), HasSubstr("\"token_embd.weight\" holds nan"));
  EXPECT_THAT(attempt(-INFINITY, BlockType::kF32), HasSubstr("holds -inf"));
  EXPECT_THAT(attempt(1e6f, BlockType::kF16), HasSubstr("beyond what F16 can store"));
  EXPECT_FALSE(fs::exists(folder / "out.gguf"));
}

}  // namespace
}  // namespace cadre::engine
