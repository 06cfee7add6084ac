#include "cadre/engine/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <thread>

#include "cadre/base/error.h"
#include "cadre/engine/test_sequences.h"
#include "cadre/formats/utf8.h"

namespace cadre::engine {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::Le;

/// One special token (0) and 256 bytes.
const Tokenizer& bytes_tokenizer() {
  static const Tokenizer tokenizer = Tokenizer::train({}, {.vocabulary = 257});
  return tokenizer;
}

std::vector<TokenId> prompt_of(size_t length, TokenId first = 1) {
  std::vector<TokenId> ids(length);
  for (size_t i = 0; i < length; ++i) ids[i] = (first + static_cast<TokenId>(i * 7)) % 250;
  return ids;
}

class Scheduling : public testing::Test {
 protected:
  Scheduler& start(const SchedulerOptions& options = {}) {
    scheduler_ = std::make_unique<Scheduler>(model_, bytes_tokenizer(), options);
    return *scheduler_;
  }
  /// Submits, keeping the result under `name`.
  RequestId submit(const std::string& name, GenerationRequest request) {
    request.on_done = [this, name](const GenerationResult& result) {
      EXPECT_FALSE(results_.contains(name)) << "on_done comes once";
      results_[name] = result;
      order_.push_back(name);
    };
    return scheduler_->submit(std::move(request));
  }
  /// The same request in a scheduler of its own.
  static GenerationResult alone(GenerationRequest request) {
    TestSequences model(257);
    Scheduler scheduler(model, bytes_tokenizer(), {});
    GenerationResult kept;
    request.on_done = [&](const GenerationResult& result) { kept = result; };
    scheduler.submit(std::move(request));
    scheduler.run_until_idle();
    return kept;
  }

  TestSequences model_{257};
  std::unique_ptr<Scheduler> scheduler_;
  std::map<std::string, GenerationResult> results_;
  std::vector<std::string> order_;
};

TEST_F(Scheduling, EveryRequestGetsWhatItWouldGetAlone) {
  start({.context = 4096, .kv_tokens = 20000, .step_tokens = 16, .max_live = 5});
  std::map<std::string, GenerationRequest> requests;
  for (int i = 0; i < 12; ++i) {
    GenerationRequest request{.prompt = prompt_of(1 + 9 * i, i % 4), .tokens = 3 + 5 * (i % 3)};
    request.sampling = {.temperature = i % 2 == 0 ? 0.0 : 1.0, .seed = static_cast<uint64_t>(i)};
    requests[std::to_string(i)] = request;
    submit(std::to_string(i), request);
  }
  scheduler_->run_until_idle();
  ASSERT_EQ(results_.size(), 12U);
  for (const auto& [name, request] : requests) {
    const GenerationResult expected = alone(request);
    EXPECT_EQ(results_[name].tokens, expected.tokens) << name;
    EXPECT_EQ(results_[name].text, expected.text) << name;
    EXPECT_EQ(results_[name].reason, expected.reason) << name;
  }
}

TEST_F(Scheduling, ALongPromptIsCutBesideDecoding) {
  start({.context = 200, .kv_tokens = 400, .step_tokens = 10});
  submit("short", {.prompt = prompt_of(3), .tokens = 8});
  scheduler_->step();
  submit("long", {.prompt = prompt_of(30, 9), .tokens = 2});
  scheduler_->run_until_idle();
  // One decoding token beside nine of the prompt, thrice, then its last three.
  EXPECT_THAT(model_.passes[1], ElementsAre(1, 9));
  EXPECT_THAT(model_.passes[3], ElementsAre(1, 9));
  EXPECT_THAT(model_.passes[4], ElementsAre(1, 3));
  EXPECT_THAT(model_.passes[5], ElementsAre(1, 1));
}

TEST_F(Scheduling, PromptsTakeTurnsAndGoOnBesideManyDecoders) {
  start({.context = 100, .kv_tokens = 1000, .step_tokens = 4});
  submit("a", {.prompt = prompt_of(8, 1), .tokens = 1});
  submit("b", {.prompt = prompt_of(8, 2), .tokens = 1});
  scheduler_->step();
  scheduler_->step();
  scheduler_->step();
  EXPECT_THAT(order_, ElementsAre("a"));
  scheduler_->step();
  EXPECT_THAT(order_, ElementsAre("a", "b"));
  for (int i = 0; i < 5; ++i) submit(std::to_string(i), {.prompt = prompt_of(1, i), .tokens = 30});
  submit("late", {.prompt = prompt_of(5, 77), .tokens = 1});
  for (int i = 0; i < 7; ++i) scheduler_->step();
  EXPECT_THAT(order_, testing::Contains("late"));
}

TEST_F(Scheduling, AdmitsWhatFitsAndNobodyIsOvertaken) {
  start({.context = 50, .kv_tokens = 60});
  submit("first", {.prompt = prompt_of(10, 1), .tokens = 30});
  submit("large", {.prompt = prompt_of(10, 2), .tokens = 40});
  submit("small", {.prompt = prompt_of(2, 3), .tokens = 2});
  scheduler_->step();
  EXPECT_EQ(scheduler_->load().live, 1);
  EXPECT_EQ(scheduler_->load().queued, 2);
  scheduler_->run_until_idle();
  EXPECT_THAT(order_, ElementsAre("first", "small", "large"));
  EXPECT_EQ(results_["large"].tokens.size(), 40U);
}

TEST_F(Scheduling, ClientsTakeTurns) {
  start({.context = 50, .kv_tokens = 1000, .max_live = 1});
  for (int i = 0; i < 3; ++i) {
    submit("greedy" + std::to_string(i), {.prompt = prompt_of(3, i), .tokens = 1, .client = "g"});
  }
  submit("modest", {.prompt = prompt_of(3, 9), .tokens = 1, .client = "m"});
  scheduler_->run_until_idle();
  EXPECT_THAT(order_, ElementsAre("greedy0", "modest", "greedy1", "greedy2"));
}

TEST_F(Scheduling, EndsForEveryReason) {
  start({.context = 20});
  const GenerationResult full = alone({.prompt = prompt_of(5), .tokens = 12});
  submit("end", {.prompt = prompt_of(5), .tokens = 12, .end_tokens = {full.tokens[3]}});
  submit("tokens", {.prompt = prompt_of(5), .tokens = 4});
  submit("context", {.prompt = prompt_of(5), .tokens = 1000});
  scheduler_->run_until_idle();
  EXPECT_EQ(results_["end"].reason, FinishReason::kEndToken);
  EXPECT_EQ(results_["end"].tokens.size(), 3U);
  EXPECT_EQ(results_["tokens"].reason, FinishReason::kTokens);
  EXPECT_EQ(results_["tokens"].tokens.size(), 4U);
  EXPECT_EQ(results_["context"].reason, FinishReason::kContext);
  EXPECT_EQ(results_["context"].tokens.size(), 15U);
}

TEST_F(Scheduling, StopStringsAndPiecesAreWholeCharacters) {
  const GenerationResult full = alone({.prompt = prompt_of(5), .tokens = 60});
  ASSERT_GT(full.text.size(), 20U);
  EXPECT_EQ(find_invalid_utf8(full.text), -1);
  size_t from = full.text.size() / 2;
  from = utf8_boundary(full.text, from);
  const std::string stop = full.text.substr(from, utf8_boundary(full.text, from + 6) - from);
  start();
  std::string shown;
  submit("stopped",
         {.prompt = prompt_of(5), .tokens = 60, .stop = {stop}, .on_text = [&](auto text) {
            EXPECT_EQ(find_invalid_utf8(text), -1);
            shown += text;
          }});
  scheduler_->run_until_idle();
  EXPECT_EQ(results_["stopped"].reason, FinishReason::kStopString);
  EXPECT_EQ(results_["stopped"].text, full.text.substr(0, full.text.find(stop)));
  EXPECT_EQ(shown, results_["stopped"].text);
}

TEST_F(Scheduling, CancelsWaitingAndRunningRequests) {
  start({.context = 50, .kv_tokens = 50});
  const RequestId running = submit("running", {.prompt = prompt_of(5), .tokens = 40});
  const RequestId waiting = submit("waiting", {.prompt = prompt_of(5), .tokens = 40});
  submit("last", {.prompt = prompt_of(4, 8), .tokens = 2});
  scheduler_->step();
  scheduler_->cancel(waiting);
  scheduler_->cancel(running);
  scheduler_->cancel(running);
  scheduler_->cancel(12345);
  scheduler_->run_until_idle();
  EXPECT_EQ(results_["running"].reason, FinishReason::kCancelled);
  EXPECT_EQ(results_["running"].tokens.size(), 1U);
  EXPECT_EQ(results_["waiting"].reason, FinishReason::kCancelled);
  EXPECT_EQ(results_["last"].reason, FinishReason::kTokens);
  EXPECT_FALSE(scheduler_->step());
}

TEST_F(Scheduling, AFailedReadFailsOnlyTheRequestThatNeedsIt) {
  start({.context = 100, .kv_tokens = 1000});
  model_.fails = [](std::span<const TokenId> tokens) { return tokens.front() == 99; };
  submit("bad", {.prompt = prompt_of(5, 99), .tokens = 4});
  submit("good", {.prompt = prompt_of(5, 3), .tokens = 4});
  scheduler_->run_until_idle();
  EXPECT_EQ(results_["bad"].reason, FinishReason::kFailed);
  EXPECT_THROW(std::rethrow_exception(results_["bad"].failure), IoError);
  EXPECT_EQ(results_["good"].reason, FinishReason::kTokens);
  EXPECT_EQ(results_["good"].tokens, alone({.prompt = prompt_of(5, 3), .tokens = 4}).tokens);
}

TEST_F(Scheduling, AnExceptionOfACallbackFailsItsRequestOnly) {
  start();
  submit("throws", {.prompt = prompt_of(5), .tokens = 40, .on_text = [](auto) {
                      throw std::runtime_error("the client is gone");
                    }});
  submit("other", {.prompt = prompt_of(6), .tokens = 5});
  scheduler_->run_until_idle();
  EXPECT_EQ(results_["throws"].reason, FinishReason::kFailed);
  EXPECT_EQ(results_["other"].reason, FinishReason::kTokens);
}

TEST_F(Scheduling, KnownBeginningsAreNotComputedAgain) {
  start({.context = 200, .kv_tokens = 400});
  submit("first", {.prompt = prompt_of(40), .tokens = 5});
  scheduler_->run_until_idle();
  GenerationRequest next{.prompt = prompt_of(40), .tokens = 7};
  next.prompt.insert(next.prompt.end(), results_["first"].tokens.begin(),
                     results_["first"].tokens.end());
  next.prompt.push_back(123);
  submit("next", next);
  scheduler_->run_until_idle();
  EXPECT_EQ(results_["next"].stats.reused_tokens, 44) << "the fifth new token was never fed";
  EXPECT_EQ(results_["next"].tokens, alone(next).tokens);
}

TEST_F(Scheduling, CountsAndTimes) {
  start();
  submit("a", {.prompt = prompt_of(5), .tokens = 4});
  scheduler_->run_until_idle();
  const GenerationStats& stats = results_["a"].stats;
  EXPECT_EQ(stats.prompt_tokens, 5);
  EXPECT_EQ(stats.experts.hits, 12);
  EXPECT_DOUBLE_EQ(hit_rate(stats.experts), 0.75);
  EXPECT_EQ(hit_rate({}), 1);
  EXPECT_GT(stats.prefill_speed(), 0);
  EXPECT_GT(stats.decode_speed(4), 0);
}

TEST_F(Scheduling, BadRequestsAreRefused) {
  start({.context = 10});
  const auto refuse = [&](GenerationRequest request) {
    EXPECT_THROW(scheduler_->submit(std::move(request)), UsageError);
  };
  refuse({.prompt = {}});
  refuse({.prompt = prompt_of(10)});
  refuse({.prompt = {257}});
  refuse({.prompt = {-1}});
  refuse({.prompt = {1}, .tokens = 0});
  refuse({.prompt = {1}, .sampling = {.top_p = 2}});
  refuse({.prompt = {1}, .stop = {""}});
  EXPECT_FALSE(scheduler_->step());
  EXPECT_THROW(start({.context = 1}), UsageError);
  EXPECT_THROW(start({.context = 10, .kv_tokens = 9}), UsageError);
  EXPECT_THROW(start({.step_tokens = 0}), UsageError);
}

TEST_F(Scheduling, ManyThreadsSubmitAndCancelWhileOneServes) {
  constexpr int kThreads = 4, kEach = 25;
  Scheduler& scheduler = start({.context = 64, .kv_tokens = 300, .step_tokens = 32, .max_live = 8});
  std::jthread server([&](const std::stop_token& stop) { scheduler.serve(stop); });
  std::latch done(kThreads * kEach);
  std::atomic<int> ended{0}, cancelled{0};
  std::vector<std::jthread> clients;
  for (int t = 0; t < kThreads; ++t) {
    clients.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        GenerationRequest request{.prompt = prompt_of(1 + static_cast<size_t>(i), t), .tokens = 6};
        request.client = std::to_string(t);
        request.on_done = [&](const GenerationResult& result) {
          (result.reason == FinishReason::kCancelled ? cancelled : ended) += 1;
          done.count_down();
        };
        const RequestId id = scheduler.submit(std::move(request));
        if (i % 5 == 0) scheduler.cancel(id);
        if (i % 7 == 0) scheduler.load();
      }
    });
  }
  done.wait();
  EXPECT_EQ(ended + cancelled, kThreads * kEach);
  EXPECT_LE(cancelled, kThreads * kEach / 5);
}

}  // namespace
}  // namespace cadre::engine
