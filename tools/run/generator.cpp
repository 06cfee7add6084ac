#include "tools/run/generator.h"

#include <iostream>

#include "cadre/base/error.h"
#include "cadre/base/interrupt.h"
#include "cadre/base/terminal.h"
#include "cadre/base/timer.h"

namespace cadre {
namespace {

using engine::FinishReason;

const char* name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEndToken:
      return "end";
    case FinishReason::kStopString:
      return "stop";
    case FinishReason::kTokens:
      return "tokens";
    case FinishReason::kContext:
      return "context";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kFailed:
      return "failed";
  }
  return "";
}

/// Speed on stderr while the text goes elsewhere.
class LiveLine {
 public:
  explicit LiveLine(const engine::Model& model)
      : model_(model), shown_(is_terminal(stderr) && !is_terminal(stdout)) {}
  ~LiveLine() {
    if (shown_) clear_live_line(stderr);
  }
  LiveLine(const LiveLine&) = delete;
  LiveLine& operator=(const LiveLine&) = delete;

  void update() {
    tokens_ += 1;
    if (!shown_ || watch_.seconds() < 0.2) return;
    set_live_line(stderr, fmt::format("{} tokens, {:.1f}/s {}", total_ += tokens_,
                                      static_cast<double>(tokens_) / watch_.seconds(),
                                      describe(model_.expert_counters())));
    tokens_ = 0;
    watch_.restart();
  }

 private:
  const engine::Model& model_;
  const bool shown_;
  Stopwatch watch_;
  int64_t tokens_ = 0, total_ = 0;
};

}  // namespace

Generator::Generator(std::shared_ptr<engine::Model> model, std::string path, int64_t context,
                     const GeneratorOptions& options)
    : model_(std::move(model)),
      path_(std::move(path)),
      options_(options),
      frame_(engine::read_text_frame(path_, model_->tokenizer())),
      sequences_(model_),
      scheduler_(sequences_, model_->tokenizer(), {.context = context}) {}

engine::GenerationResult Generator::answer(const std::string& prompt) {
  const std::vector<engine::ChatMessage> message = {{"user", prompt}};
  if (options_.chats) return reply(message);
  return generate(frame_.encode(model_->tokenizer(), prompt), options_.stop);
}

engine::GenerationResult Generator::reply(std::span<const engine::ChatMessage> messages) {
  const engine::ChatFormat format = chat_format();
  const std::string text =
      engine::render_chat(format, messages, {.end_of_text = frame_.end_of_text});
  std::vector<std::string> stop = engine::chat_stops(format, frame_.end_of_text);
  stop.insert(stop.end(), options_.stop.begin(), options_.stop.end());
  return generate(frame_.encode(model_->tokenizer(), text, Tokenizer::SpecialTokens::kParse), stop);
}

engine::ChatFormat Generator::chat_format() const {
  if (!options_.chat.empty()) return engine::chat_format_named(options_.chat);
  if (frame_.chat_template) return engine::recognise_chat_format(*frame_.chat_template);
  throw UsageError("{} has no chat template: choose a form with --chat NAME, or give a prompt",
                   path_);
}

engine::GenerationResult Generator::generate(std::vector<TokenId> prompt,
                                             const std::vector<std::string>& stop) {
  engine::GenerationResult kept;
  engine::GenerationRequest request{.prompt = std::move(prompt),
                                    .tokens = options_.tokens,
                                    .sampling = options_.sampling,
                                    .stop = stop,
                                    .end_tokens = frame_.ends};
  if (options_.shows) {
    request.on_text = [](std::string_view text) { std::cout << text << std::flush; };
  }
  request.on_done = [&](const engine::GenerationResult& result) { kept = result; };
  const engine::RequestId id = scheduler_.submit(std::move(request));
  LiveLine live(*model_);
  while (scheduler_.step()) {
    live.update();
    if (interrupted()) scheduler_.cancel(id);
  }
  if (kept.failure) {
    if (options_.shows && !kept.text.empty()) std::cout << std::endl;
    std::rethrow_exception(kept.failure);
  }
  return kept;
}

/// "12 tokens read at 56.1/s, 64 written at 13.5/s; 87 % of experts ..."
std::string summary_of(const engine::GenerationResult& result) {
  const engine::GenerationStats& stats = result.stats;
  const auto written = static_cast<int64_t>(result.tokens.size());
  std::string text = fmt::format("{} tokens read at {:.1f}/s, {} written at {:.1f}/s",
                                 stats.prompt_tokens - stats.reused_tokens, stats.prefill_speed(),
                                 written, stats.decode_speed(written));
  const std::string experts = describe(stats.experts);
  if (!experts.empty()) text += "; " + experts;
  if (result.reason == FinishReason::kContext) text += "; the context is full (--context)";
  return text;
}

nlohmann::ordered_json to_json(const std::string& prompt, const engine::GenerationResult& result) {
  const engine::GenerationStats& stats = result.stats;
  const auto written = static_cast<int64_t>(result.tokens.size());
  return {{"prompt", prompt},
          {"text", result.text},
          {"tokens", result.tokens},
          {"finish", name_of(result.reason)},
          {"prompt_tokens", stats.prompt_tokens},
          {"prefill_seconds", stats.prefill_seconds},
          {"decode_seconds", stats.decode_seconds},
          {"prefill_tokens_per_second", stats.prefill_speed()},
          {"decode_tokens_per_second", stats.decode_speed(written)},
          {"hit_rate", engine::hit_rate(stats.experts)},
          {"bytes_read", stats.experts.bytes_read},
          {"stall_seconds", stats.experts.stall_seconds},
          {"peak_resident_bytes", peak_resident_bytes()}};
}

}  // namespace cadre
