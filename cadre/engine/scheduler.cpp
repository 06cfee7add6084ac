#include "cadre/engine/scheduler.h"

#include <algorithm>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/base/timer.h"
#include "cadre/engine/stop_strings.h"
#include "cadre/engine/utf8_stream.h"

namespace cadre::engine {

/// A request from submit() to on_done.
struct Scheduler::Task {
  Task(GenerationRequest asked, RequestId number)
      : request(std::move(asked)),
        id(number),
        sampler(request.sampling),
        stops(request.stop),
        tokens(request.prompt) {}

  int64_t fed() const { return static_cast<int64_t>(sequence->tokens().size()); }
  std::span<const TokenId> pending() const {
    return std::span(tokens).subspan(sequence->tokens().size());
  }
  /// Tokens it may come to in all.
  int64_t most_tokens(int64_t context) const {
    const auto prompt = static_cast<int64_t>(request.prompt.size());
    return request.tokens < context - prompt ? prompt + request.tokens : context;
  }

  GenerationRequest request;
  RequestId id;
  Sampler sampler;
  StopStrings stops;
  Utf8Stream characters;
  std::vector<TokenId> tokens;  ///< prompt and continuation; a beginning of it is in the sequence
  std::unique_ptr<Sequence> sequence;
  GenerationResult result;
  Stopwatch watch;
  int64_t last_pass = 0;
  bool ended = false;
};

struct Scheduler::Work {
  Task* task;
  SequenceModel::Slice slice;
};

namespace {

ExpertCounters operator-(const ExpertCounters& a, const ExpertCounters& b) {
  return {.hits = a.hits - b.hits,
          .misses = a.misses - b.misses,
          .prefetched = a.prefetched - b.prefetched,
          .prefetch_used = a.prefetch_used - b.prefetch_used,
          .bytes_read = a.bytes_read - b.bytes_read,
          .stall_seconds = a.stall_seconds - b.stall_seconds};
}

void add(ExpertCounters& sum, const ExpertCounters& more) {
  sum.hits += more.hits;
  sum.misses += more.misses;
  sum.prefetched += more.prefetched;
  sum.prefetch_used += more.prefetch_used;
  sum.bytes_read += more.bytes_read;
  sum.stall_seconds += more.stall_seconds;
}

void check(const SchedulerOptions& o) {
  if (o.context < 2) throw UsageError("the context is {}, must be at least 2 tokens", o.context);
  if (o.kv_tokens != 0 && o.kv_tokens < o.context) {
    throw UsageError("kv_tokens is {}, must be at least the context of {}", o.kv_tokens, o.context);
  }
  if (o.step_tokens < 1) throw UsageError("step_tokens is {}, must be at least 1", o.step_tokens);
  if (o.max_live < 1) throw UsageError("max_live is {}, must be at least 1", o.max_live);
}

SchedulerOptions with_defaults(SchedulerOptions options) {
  check(options);
  if (options.kv_tokens == 0) options.kv_tokens = options.context;
  return options;
}

}  // namespace

double GenerationStats::prefill_speed() const {
  const auto computed = static_cast<double>(prompt_tokens - reused_tokens);
  return prefill_seconds > 0 ? computed / prefill_seconds : 0;
}

double GenerationStats::decode_speed(int64_t new_tokens) const {
  return decode_seconds > 0 ? static_cast<double>(new_tokens - 1) / decode_seconds : 0;
}

double hit_rate(const ExpertCounters& counters) {
  const int64_t asked = counters.hits + counters.misses;
  return asked == 0 ? 1 : static_cast<double>(counters.hits) / static_cast<double>(asked);
}

Scheduler::Scheduler(SequenceModel& model, const Tokenizer& tokenizer,
                     const SchedulerOptions& options)
    : model_(model),
      tokenizer_(tokenizer),
      options_(with_defaults(options)),
      prefixes_(options_.kv_tokens) {}

Scheduler::~Scheduler() = default;

RequestId Scheduler::submit(GenerationRequest request) {
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  if (prompt == 0) throw UsageError("the prompt is empty; give at least one token");
  if (prompt >= options_.context) {
    throw UsageError(
        "the prompt has {} tokens, the context holds {} with the answer: shorten it or "
        "ask for a larger --context",
        prompt, options_.context);
  }
  if (request.tokens < 1) throw UsageError("tokens is {}, must be at least 1", request.tokens);
  for (const TokenId id : request.prompt) {
    if (id < 0 || id >= model_.vocabulary()) {
      throw UsageError("token {} is outside the vocabulary of {}", id, model_.vocabulary());
    }
  }
  auto task = std::make_unique<Task>(std::move(request), 0);
  task->result.stats.prompt_tokens = prompt;
  const std::scoped_lock lock(mutex_);
  const RequestId id = task->id = ++last_id_;
  queues_[task->request.client].push_back(std::move(task));
  arrived_.notify_all();
  return id;
}

void Scheduler::cancel(RequestId id) {
  const std::scoped_lock lock(mutex_);
  if (id >= 1 && id <= last_id_) cancelled_.insert(id);
  arrived_.notify_all();
}

Scheduler::Load Scheduler::load() const {
  const std::scoped_lock lock(mutex_);
  Load load{live_count_, 0};
  for (const auto& [client, queue] : queues_) load.queued += static_cast<int64_t>(queue.size());
  return load;
}

bool Scheduler::step() {
  end_cancelled();
  admit();
  if (live_.empty()) return false;
  run_pass(plan_pass());
  std::erase_if(live_, [](const auto& task) { return task->ended; });
  const std::scoped_lock lock(mutex_);
  live_count_ = static_cast<int64_t>(live_.size());
  return true;
}

void Scheduler::run_until_idle() {
  while (step()) {
  }
}

void Scheduler::serve(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    if (step()) continue;
    std::unique_lock lock(mutex_);
    arrived_.wait(lock, stop, [this] { return !queues_.empty(); });
  }
}

void Scheduler::end_cancelled() {
  std::set<RequestId> ids;
  std::vector<std::unique_ptr<Task>> waiting;
  {
    const std::scoped_lock lock(mutex_);
    ids.swap(cancelled_);
    if (ids.empty()) return;
    for (auto& [client, queue] : queues_) {
      for (auto& task : queue) {
        if (ids.contains(task->id)) waiting.push_back(std::move(task));
      }
      std::erase(queue, nullptr);
    }
    std::erase_if(queues_, [](const auto& entry) { return entry.second.empty(); });
  }
  for (const auto& task : waiting) finish(*task, FinishReason::kCancelled);
  for (const auto& task : live_) {
    if (ids.contains(task->id)) finish(*task, FinishReason::kCancelled);
  }
  std::erase_if(live_, [](const auto& task) { return task->ended; });
}

int64_t Scheduler::reserved_tokens() const {
  int64_t sum = 0;
  for (const auto& task : live_) {
    if (!task->ended) sum += task->most_tokens(options_.context);
  }
  return sum;
}

/// The next client's oldest request when it fits beside the live ones; a large one is not
/// overtaken, or it might wait for ever.
std::unique_ptr<Scheduler::Task> Scheduler::next_queued() {
  const std::scoped_lock lock(mutex_);
  if (queues_.empty()) return nullptr;
  auto turn = queues_.upper_bound(last_client_);
  if (turn == queues_.end()) turn = queues_.begin();
  const int64_t wanted = turn->second.front()->most_tokens(options_.context);
  if (reserved_tokens() + wanted > options_.kv_tokens) return nullptr;
  std::unique_ptr<Task> task = std::move(turn->second.front());
  turn->second.pop_front();
  last_client_ = turn->first;
  if (turn->second.empty()) queues_.erase(turn);
  live_count_ += 1;
  return task;
}

void Scheduler::admit() {
  while (static_cast<int64_t>(live_.size()) < options_.max_live) {
    std::unique_ptr<Task> task = next_queued();
    if (!task) return;
    task->sequence = prefixes_.find(task->request.prompt);
    if (!task->sequence) task->sequence = model_.new_sequence();
    task->result.stats.reused_tokens = task->fed();
    task->result.stats.queue_seconds = task->watch.seconds();
    task->watch.restart();
    live_.push_back(std::move(task));
    prefixes_.shrink(options_.kv_tokens - reserved_tokens());
  }
}

/// One token of everyone that decodes, then prompts' chunks up to the budget, those first that
/// waited longest.
std::vector<Scheduler::Work> Scheduler::plan_pass() {
  std::vector<Task*> decoding, prefilling;
  for (const auto& task : live_) {
    (task->pending().size() == 1 ? decoding : prefilling).push_back(task.get());
  }
  std::ranges::stable_sort(prefilling, {}, &Task::last_pass);
  passes_ += 1;
  std::vector<Work> pass;
  const auto take = [&](Task* task, size_t count) {
    const bool all = count == task->pending().size();
    pass.push_back({task,
                    {.sequence = task->sequence.get(),
                     .tokens = task->pending().first(count),
                     .want = all ? Model::Slice::Want::kLast : Model::Slice::Want::kNone}});
    task->last_pass = passes_;
  };
  for (Task* task : decoding) take(task, 1);
  // Prompts go on even when those that decode fill the budget.
  size_t left = std::max<size_t>(static_cast<size_t>(options_.step_tokens), decoding.size() + 1) -
                decoding.size();
  for (Task* task : prefilling) {
    const size_t count = std::min(left, task->pending().size());
    if (count == 0) break;
    take(task, count);
    left -= count;
  }
  return pass;
}

void Scheduler::run_pass(std::vector<Work> pass) {
  std::vector<SequenceModel::Slice> slices;
  for (const Work& work : pass) slices.push_back(work.slice);
  const ExpertCounters before = model_.expert_counters();
  std::vector<float> logits;
  try {
    logits = model_.forward(slices);
  } catch (const std::exception&) {
    if (pass.size() == 1) {
      pass.front().task->result.failure = std::current_exception();
      return finish(*pass.front().task, FinishReason::kFailed);
    }
    for (Work& work : pass) run_pass({work});
    return;
  }
  const ExpertCounters used = model_.expert_counters() - before;
  std::span<const float> rest = logits;
  for (const Work& work : pass) {
    add(work.task->result.stats.experts, used);
    if (work.slice.want == Model::Slice::Want::kNone) continue;
    const auto vocabulary = static_cast<size_t>(model_.vocabulary());
    take_logits(*work.task, rest.first(vocabulary));
    rest = rest.subspan(vocabulary);
  }
}

void Scheduler::take_logits(Task& task, std::span<const float> logits) {
  try {
    // Ids that the tokenizer does not have (a padded vocabulary) are never drawn.
    const auto known = static_cast<size_t>(tokenizer_.vocabulary_size());
    take_token(task, task.sampler.draw(logits.first(std::min(known, logits.size())), task.tokens));
  } catch (const std::exception&) {
    task.result.failure = std::current_exception();
    finish(task, FinishReason::kFailed);
  }
}

void Scheduler::take_token(Task& task, TokenId token) {
  GenerationStats& stats = task.result.stats;
  if (task.tokens.size() == task.request.prompt.size()) {
    stats.prefill_seconds = task.watch.seconds();
    if (auto prompt = task.sequence->fork(task.fed())) prefixes_.insert(std::move(prompt));
  }
  stats.decode_seconds = task.watch.seconds() - stats.prefill_seconds;
  if (std::ranges::find(task.request.end_tokens, token) != task.request.end_tokens.end()) {
    return finish(task, FinishReason::kEndToken);
  }
  task.tokens.push_back(token);
  task.result.tokens.push_back(token);
  if (!tokenizer_.is_special(token)) {
    show(task, task.stops.push(task.characters.push(tokenizer_.decode(std::span(&token, 1)))));
  }
  if (task.stops.stopped()) return finish(task, FinishReason::kStopString);
  if (std::ssize(task.result.tokens) == task.request.tokens) {
    return finish(task, FinishReason::kTokens);
  }
  if (std::ssize(task.tokens) == options_.context) finish(task, FinishReason::kContext);
}

void Scheduler::show(Task& task, const std::string& text) {
  task.result.text += text;
  if (task.request.on_text && !text.empty()) task.request.on_text(text);
}

void Scheduler::finish(Task& task, FinishReason reason) {
  task.ended = true;
  task.result.reason = reason;
  if (reason != FinishReason::kFailed && reason != FinishReason::kCancelled) {
    try {
      std::string rest = task.stops.push(task.characters.finish());
      if (!task.stops.stopped()) rest += task.stops.finish();
      show(task, rest);
    } catch (const std::exception&) {
      task.result.reason = FinishReason::kFailed;
      task.result.failure = std::current_exception();
    }
  }
  const bool sound = task.result.reason != FinishReason::kFailed;
  if (task.sequence && sound) prefixes_.insert(std::move(task.sequence));
  task.sequence.reset();
  prefixes_.shrink(options_.kv_tokens - reserved_tokens());
  if (task.request.on_done) task.request.on_done(task.result);
}

}  // namespace cadre::engine
