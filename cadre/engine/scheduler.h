#pragma once

/// Continuous batching: many requests share each forward pass (Yu et al., "Orca: A Distributed
/// Serving System for Transformer-Based Generative Models", 2022), long prompts in chunks beside
/// the others' decoding (Agrawal et al., "Sarathi-Serve", 2024). A request's tokens do not depend
/// on its company: the engine's results do not, nor do the sampler's draws.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "cadre/engine/prefix_cache.h"
#include "cadre/engine/sampler.h"
#include "cadre/engine/sequence_model.h"
#include "cadre/formats/tokenizer.h"

namespace cadre::engine {

enum class FinishReason { kEndToken, kStopString, kTokens, kContext, kCancelled, kFailed };

struct GenerationStats {
  int64_t prompt_tokens = 0;
  int64_t reused_tokens = 0;   ///< of them known from an earlier request
  double queue_seconds = 0;    ///< before it was admitted
  double prefill_seconds = 0;  ///< from there to its first token
  double decode_seconds = 0;   ///< from the first token to the last
  ExpertCounters experts;      ///< of the passes it took part in, others' share included

  /// Prompt tokens computed per second; 0 when unknown.
  double prefill_speed() const;
  /// Per second, of the tokens after the first.
  double decode_speed(int64_t new_tokens) const;
};

/// Hits / (hits + misses); 1 when no expert was asked for.
double hit_rate(const ExpertCounters& counters);

struct GenerationResult {
  FinishReason reason = FinishReason::kTokens;
  std::vector<TokenId> tokens;  ///< the new ones, without the end token
  std::string text;             ///< valid UTF-8, without the stop string
  std::exception_ptr failure;   ///< when kFailed
  GenerationStats stats;
};

struct GenerationRequest {
  std::vector<TokenId> prompt;  ///< at least one
  int64_t tokens = 256;         ///< at most so many new ones; at least 1
  SamplerOptions sampling;
  std::vector<std::string> stop;    ///< StopStrings
  std::vector<TokenId> end_tokens;  ///< each ends the text and is not shown
  std::string client;               ///< clients take turns in the queue
  /// Called by the thread that steps, in order; they may submit and cancel. An exception of on_text
  /// fails the request.
  std::function<void(std::string_view)> on_text;  ///< new text, whole characters
  std::function<void(const GenerationResult&)> on_done;
};

struct SchedulerOptions {
  int64_t context = 4096;     ///< tokens a sequence may have
  int64_t kv_tokens = 0;      ///< tokens of all sequences together, kept prefixes included; 0 =
                              ///< context
  int64_t step_tokens = 512;  ///< tokens of a forward pass, unless more requests decode
  int64_t max_live = 64;      ///< requests that run at a time
};

using RequestId = int64_t;

class Scheduler {
 public:
  /// Both must outlive the scheduler. Throws UsageError for options below 1.
  Scheduler(SequenceModel& model, const Tokenizer& tokenizer, const SchedulerOptions& options);
  ~Scheduler();

  /// Any thread. Throws UsageError: empty prompt, a prompt that leaves no room in the context, a
  /// token outside the vocabulary, options out of range.
  RequestId submit(GenerationRequest request);
  /// Any thread. The request ends before its next token; nothing happens when it has ended.
  void cancel(RequestId id);

  /// One forward pass for all that is to be done; false when nothing is. step(), run_until_idle()
  /// and serve() belong to one thread at a time. A pass that fails is tried again request by
  /// request: those that fail alone, too, end with kFailed, the others go on.
  bool step();
  void run_until_idle();
  /// Steps, and waits for requests, until asked to stop. Requests under way are left as they are.
  void serve(const std::stop_token& stop);

  /// Requests that run, and those that wait.
  struct Load {
    int64_t live, queued;
  };
  Load load() const;

 private:
  struct Task;
  struct Work;

  std::unique_ptr<Task> next_queued();
  void admit();
  void end_cancelled();
  std::vector<Work> plan_pass();
  void run_pass(std::vector<Work> pass);
  void take_logits(Task& task, std::span<const float> logits);
  void take_token(Task& task, TokenId token);
  void show(Task& task, const std::string& text);
  void finish(Task& task, FinishReason reason);
  int64_t reserved_tokens() const;

  SequenceModel& model_;
  const Tokenizer& tokenizer_;
  const SchedulerOptions options_;
  PrefixCache prefixes_;
  std::vector<std::unique_ptr<Task>> live_;
  int64_t passes_ = 0;

  mutable std::mutex mutex_;  ///< guards what follows
  std::condition_variable_any arrived_;
  RequestId last_id_ = 0;
  std::map<std::string, std::deque<std::unique_ptr<Task>>> queues_;  ///< by client, none empty
  std::string last_client_;                                          ///< whose turn it was
  std::set<RequestId> cancelled_;
  int64_t live_count_ = 0;
};

}  // namespace cadre::engine
