/// The scheduler on the real engine: company, chunks and kept beginnings change no token.

#include <gtest/gtest.h>

#include <map>

#include "cadre/engine/scheduler.h"
#include "cadre/engine/test_models.h"
#include "cadre/formats/test_folder.h"

namespace cadre::engine {
namespace {

class SchedulingModels : public testing::TestWithParam<std::string> {
 protected:
  SchedulingModels() {
    TinyModel tiny = tiny_model(GetParam());
    write_gguf(tiny, folder_ / "model.gguf");
    model_ = Model::open(folder_ / "model.gguf", {.threads = 2});
  }

  /// The tokens of each request, all in one scheduler.
  std::vector<GenerationResult> results_of(const std::vector<GenerationRequest>& requests,
                                           const SchedulerOptions& options) {
    EngineSequences sequences(model_);
    Scheduler scheduler(sequences, tokenizer_, options);
    std::vector<GenerationResult> results(requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
      GenerationRequest request = requests[i];
      request.on_done = [&results, i](const GenerationResult& result) { results[i] = result; };
      scheduler.submit(std::move(request));
    }
    scheduler.run_until_idle();
    return results;
  }

  /// Plain greedy decoding with a session.
  std::vector<TokenId> greedy(std::span<const TokenId> prompt, int64_t count) {
    Session session(model_);
    std::vector<float> logits = session.feed(prompt);
    std::vector<TokenId> tokens;
    for (; count > 0; --count) {
      tokens.push_back(Sampler({.temperature = 0}).draw(logits, {}));
      logits = session.feed(std::span(&tokens.back(), 1));
    }
    return tokens;
  }

  TestFolder folder_;
  Tokenizer tokenizer_ = Tokenizer::train({}, {.vocabulary = 257});  // only draws below 96 matter
  std::shared_ptr<Model> model_;
};

TEST_P(SchedulingModels, BatchedTokensAreThoseOfOneAlone) {
  std::vector<GenerationRequest> requests;
  for (int i = 0; i < 6; ++i) {
    requests.push_back({.prompt = some_tokens(5 + 23 * i, static_cast<uint64_t>(i)),
                        .tokens = 10,
                        .sampling = {.temperature = 0}});
  }
  const auto results =
      results_of(requests, {.context = 200, .kv_tokens = 1000, .step_tokens = 20, .max_live = 4});
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_FALSE(results[i].failure);
    EXPECT_EQ(results[i].tokens, greedy(requests[i].prompt, 10)) << i;
  }
}

TEST_P(SchedulingModels, AKeptBeginningChangesNothing) {
  const std::vector<TokenId> prompt = some_tokens(100, 7);
  std::vector<TokenId> longer = prompt;
  longer.push_back(3);
  const auto results = results_of({{.prompt = prompt, .tokens = 5, .sampling = {.temperature = 0}},
                                   {.prompt = longer, .tokens = 8, .sampling = {.temperature = 0}}},
                                  {.context = 150, .kv_tokens = 300, .max_live = 1});
  EXPECT_EQ(results[1].stats.reused_tokens, 100);
  EXPECT_EQ(results[1].tokens, greedy(longer, 8));
}

INSTANTIATE_TEST_SUITE_P(Models, SchedulingModels, testing::Values("olmoe", "deepseek2", "gpt-oss"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace cadre::engine
