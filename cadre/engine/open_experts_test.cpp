/// What a model remembers, records and refuses about its experts.

#include "cadre/engine/open_experts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/engine/expert_usage.h"
#include "cadre/engine/pack.h"
#include "cadre/engine/route_recorder.h"
#include "cadre/engine/streaming_provider.h"
#include "cadre/engine/test_models.h"
#include "cadre/formats/file.h"
#include "cadre/formats/test_folder.h"

namespace cadre::engine {
namespace {

using ::testing::Each;
using ::testing::Ge;
using ::testing::HasSubstr;

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
