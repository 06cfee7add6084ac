/// What a model remembers, records and refuses about its experts.

#include "cadre/engine/open_experts.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/engine/convert_test_kit.h"
#include "cadre/engine/expert_usage.h"
#include "cadre/engine/pack.h"
#include "cadre/engine/route_recorder.h"
#include "cadre/engine/streaming_provider.h"
#include "cadre/engine/test_models.h"
#include "cadre/formats/file.h"
#include "cadre/formats/safetensors.h"
#include "cadre/formats/test_folder.h"

namespace cadre::engine {
namespace {

using ::testing::Each;
using ::testing::Ge;
using ::testing::HasSubstr;

/// Random weights of a path predictor for `spec`'s model (path_predictor.h).
void write_path_predictor(const std::filesystem::path& file, const ModelSpec& spec) {
  constexpr int64_t kWidth = 8;
  std::vector<TensorSpec> specs = {
      {"shared.weight", DType::kF32, {96, kWidth}},
      {"head.weight", DType::kF32, {spec.layers * spec.experts, kWidth}}};
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    specs.push_back({name + ".weight", DType::kF32, std::move(shape)});
  };
  for (const std::string side : {"encoder", "decoder"}) {
    int64_t part = 0;
    for (const std::string kind : {"SelfAttention", "EncDecAttention", "DenseReluDense"}) {
      if (side == "encoder" && kind == "EncDecAttention") continue;
      const std::string stem = fmt::format("{}.block.0.layer.{}.", side, part++);
      add(stem + "layer_norm", {kWidth});
      const bool attends = kind != "DenseReluDense";
      for (const char* matrix : {"q", "k", "v", "o", "wi", "wo"})
        if (attends == (matrix[0] != 'w')) add(stem + kind + "." + matrix, {kWidth, kWidth});
    }
    add(side + ".block.0.layer.0.SelfAttention.relative_attention_bias", {8, 2});
    add(side + ".final_layer_norm", {kWidth});
  }
  SafetensorsWriter writer(file, specs,
                           {{"layers", std::to_string(spec.layers)},
                            {"experts", std::to_string(spec.experts)},
                            {"used", std::to_string(spec.experts_used)},
                            {"heads", "2"}});
  Random random(5);
  for (const TensorSpec& tensor : specs) {
    std::vector<float> values(
        static_cast<size_t>(tensor.shape[0] * (tensor.shape.size() > 1 ? tensor.shape[1] : 1)));
    for (float& value : values) value = random.normal();
    writer.write(tensor.name, std::as_bytes(std::span(values)));
  }
  writer.commit();
}

class Experts : public ::testing::Test {
 protected:
  void SetUp() override {
    TinyModel tiny = tiny_model("olmoe");
    write_gguf(tiny, path_, kernels::BlockType::kQ8_0);
    least_ = least_streaming_bytes(open_expert_files(*open_source(path_)));
  }
  ModelOptions streaming() const { return {.expert_memory = least_, .threads = 2}; }
  std::string complaint(const ModelOptions& options) const {
    try {
      Model::open(path_, options);
    } catch (const UsageError& error) {
      return error.what();
    }
    return "no complaint";
  }

  TestFolder folder_;
  std::filesystem::path path_ = folder_ / "model.gguf";
  int64_t least_ = 0;
};

TEST_F(Experts, DirectoriesStreamFromTheirFiles) {
  const auto folder = folder_ / "directory";
  write_small_checkpoint(folder, small_config(cadre::Architecture::kOlmoe));
  const auto tokens = some_tokens(20, 4);
  for (const auto type :
       {kernels::BlockType::kF32, kernels::BlockType::kBF16, kernels::BlockType::kQ8_0}) {
    const ModelOptions all = {.threads = 2, .quantize_to = type};
    const auto expected = Session(Model::open(folder, all)).feed(tokens);
    const auto source = open_source(folder);
    ModelOptions few = all;
    few.expert_memory =
        least_streaming_bytes(open_expert_files(*source, packed_types(*source, all)));
    for (const auto storage : {ExpertStorage::kDirect, ExpertStorage::kPread}) {
      few.storage = storage;
      const auto model = Model::open(folder, few);
      EXPECT_EQ(Session(model).feed(tokens), expected);
      EXPECT_GT(model->expert_counters().bytes_read, 0) << "not from the map";
    }
  }
}

/// The path predictor guesses only what passes it was told of: that it guesses shows that the model
/// tells it.
TEST_F(Experts, PathPredictorAndItsPolicySeeEveryPass) {
  const auto all = Model::open(path_, {.threads = 2});
  write_path_predictor(folder_ / "path.safetensors", all->spec());
  const ExpertFiles files = open_expert_files(*open_source(path_));
  // Few are missing, so that the disk rests and even a poor guess is worth reading.
  ModelOptions options = {.expert_memory = resident_bytes(files) - 3 * files.slot_bytes(),
                          .threads = 2};
  options.predictor = "path";
  options.predictor_file = folder_ / "path.safetensors";
  options.cache_policy = "plec";
  const auto model = Model::open(path_, options);
  Session session(model), expected(all);
  const auto tokens = some_tokens(40, 2);
  EXPECT_EQ(session.feed(tokens), expected.feed(tokens));
  for (int i = 0; i < 400 && model->expert_counters().prefetched == 0; ++i) {
    const TokenId token = i % 96;
    ASSERT_EQ(session.feed({&token, 1}), expected.feed({&token, 1})) << i;
  }
  EXPECT_GT(model->expert_counters().prefetched, 0);
}

TEST_F(Experts, UnknownNamesAreRefusedEvenWhereNothingStreams) {
  EXPECT_THAT(complaint({.cache_policy = "magic"}), HasSubstr("score, lru, lfu, plec"));
  EXPECT_THAT(complaint({.predictor = "magic"}), HasSubstr("gate, coactivation"));
  EXPECT_THAT(complaint({.cache_policy = "belady"}), HasSubstr("replay"));
  EXPECT_THAT(complaint({.predictor = "path"}), HasSubstr("--predictor-file"));
}

TEST_F(Experts, UseIsRememberedInTheFolderGiven) {
  ModelOptions options = streaming();
  options.usage_folder = folder_ / "cache" / "cadre";
  const auto run = [&] { Session(Model::open(path_, options)).feed(some_tokens(5, 1)); };
  const auto remembered = [&] {
    const auto source = open_source(path_);
    return load_usage(options.usage_folder, source->fingerprint(),
                      {source->spec().layers, source->spec().experts});
  };
  EXPECT_FALSE(remembered());
  run();
  const auto once = remembered();
  ASSERT_TRUE(once);
  EXPECT_THAT(*once, Each(Ge(0.0F)));
  EXPECT_GT(*std::max_element(once->begin(), once->end()), 0);
  run();
  EXPECT_NE(*remembered(), *once) << "the second run adds to the first";
  write_file(folder_ / "file", "");
  options.usage_folder = folder_ / "file" / "below";
  run();  // silently
}

TEST_F(Experts, NothingIsRememberedOfAModelThatWasNotRun) {
  ModelOptions options = streaming();
  options.usage_folder = folder_ / "cache";
  Model::open(path_, options);
  EXPECT_FALSE(std::filesystem::exists(options.usage_folder));
}

TEST_F(Experts, RoutesAreRecordedByTokenSequenceAndPass) {
  const auto model = Model::open(path_, {.threads = 2, .prefill = 3});
  const RouteRecorder recorder(model);
  Session first(model), second(model);
  const auto tokens = some_tokens(5, 3);
  first.feed(tokens);
  const std::vector<Model::Slice> both = {
      {&first, std::span(tokens).first(1), Model::Slice::Want::kLast},
      {&second, std::span(tokens).last(1), Model::Slice::Want::kLast}};
  model->forward(both);
  const RouteTrace& trace = recorder.trace();
  EXPECT_EQ(trace.passes, (std::vector<int32_t>{0, 0, 0, 1, 1, 2, 2}));
  std::vector<int32_t> expected(tokens.begin(), tokens.end());
  expected.push_back(tokens[0]);
  expected.push_back(tokens[4]);
  EXPECT_EQ(trace.tokens, expected);
  EXPECT_EQ(trace.sequences[5], first.id());
  EXPECT_EQ(trace.sequences[6], second.id());
  EXPECT_THAT(trace.chosen, Each(Ge(0))) << "every layer has experts";
  EXPECT_EQ(decode_part(trace).size(), 2);
  write_trace(trace, folder_ / "routes");
  EXPECT_EQ(read_trace(folder_ / "routes").chosen, trace.chosen);
}

TEST_F(Experts, RoutesOfADenseModelAreRefused) {
  TinyModel dense = tiny_model("llama");
  write_gguf(dense, path_);
  EXPECT_THROW(RouteRecorder(Model::open(path_, {.threads = 1})), UsageError);
}

}  // namespace
}  // namespace cadre::engine
