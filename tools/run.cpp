/// cadre run: continues a prompt, or chats. The text goes to stdout, everything else to stderr.

#include <unistd.h>

#include <iostream>
#include <optional>

#include <nlohmann/json.hpp>

#include "cadre/base/error.h"
#include "cadre/base/interrupt.h"
#include "cadre/base/main.h"
#include "cadre/base/terminal.h"
#include "cadre/base/timer.h"
#include "cadre/base/units.h"
#include "cadre/engine/chat_template.h"
#include "cadre/engine/route_recorder.h"
#include "cadre/engine/text_frame.h"
#include "tools/common/engine_options.h"
#include "tools/common/json_text.h"

namespace {

using namespace cadre;
using engine::FinishReason;
using Json = nlohmann::ordered_json;

struct Options {
  EngineOptions engine;
  std::string prompt, file, trace;
  engine::SamplerOptions sampling;
  std::vector<std::string> stop;
  int64_t tokens = 256;
  std::string chat;  ///< the form's name; empty = the model's own
  bool chats = false, json = false;
};

CLI::Option* add_options(CommandLine& line, Options& options) {
  add_engine_options(line, options.engine);
  add_routing_options(line, options.engine.routing);
  line.add("prompt", "prompt", options.prompt,
           "Text to continue; none = standard input, or a chat in a terminal");
  line.add("prompt", "--file", options.file, "Read the prompt from this file; - = standard input");
  engine::SamplerOptions& sampling = options.sampling;
  line.add("sampling", "--tokens", options.tokens, "At most so many new tokens")
      ->check(CLI::PositiveNumber);
  line.add("sampling", "--temperature", sampling.temperature,
           "Below 1 = safer, above = bolder; 0 = always the likeliest");
  line.add("sampling", "--top-k", sampling.top_k, "Draw from the k likeliest tokens; 0 = all");
  line.add("sampling", "--top-p", sampling.top_p,
           "Draw from the likeliest tokens of this total probability");
  line.add("sampling", "--min-p", sampling.min_p,
           "Drop tokens below this share of the likeliest one's probability");
  line.add("sampling", "--repeat-penalty", sampling.repeat_penalty,
           "Divide recent tokens' logits by this; 1 = off");
  line.add("sampling", "--seed", sampling.seed, "The same seed draws the same text");
  line.add("sampling", "--stop", options.stop, "End before this text; may be given several times");
  line.add_flag(kOutputGroup, "--json", options.json, "Print JSON when done");
  line.add(kOutputGroup, "--trace", options.trace,
           "Record which experts each token was given (for cadre replay and plan)");
  return line
      .add("prompt", "--chat", options.chat,
           "Take the prompt as a message to a chat model; a name chooses the form (chatml, llama3, "
           "...) instead of the model's own")
      ->expected(0, 1);
}

/// Without the line end that editors and echo put last.
std::string without_last_line_end(std::string text) {
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
  return text;
}

/// Whether to talk: nothing was given to continue, and somebody sits there.
bool is_conversation(const Options& options) {
  return options.prompt.empty() && options.file.empty() && isatty(STDIN_FILENO) == 1;
}

std::string prompt_of(const Options& options) {
  if (!options.file.empty() && !options.prompt.empty()) {
    throw UsageError("give the prompt or --file, not both");
  }
  std::string prompt = options.prompt;
  if (prompt.empty() || prompt == "-") {
    prompt = without_last_line_end(read_text(options.file.empty() ? "-" : options.file));
  }
  check_text(prompt, "the prompt");
  return prompt;
}

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

class Generator {
 public:
  Generator(std::shared_ptr<engine::Model> model, const Options& options)
      : model_(std::move(model)),
        options_(options),
        frame_(engine::read_text_frame(options.engine.model, model_->tokenizer())),
        sequences_(model_),
        scheduler_(sequences_, model_->tokenizer(),
                   {.context = context_of(options.engine, model_->spec())}) {}

  /// Writes the text to stdout as it comes, unless JSON is wanted. Throws what the engine threw.
  engine::GenerationResult complete(const std::string& prompt) {
    return generate(frame_.encode(model_->tokenizer(), prompt), options_.stop);
  }
  engine::GenerationResult reply(std::span<const engine::ChatMessage> messages) {
    const engine::ChatFormat format = chat_format();
    const std::string text =
        engine::render_chat(format, messages, {.end_of_text = frame_.end_of_text});
    std::vector<std::string> stop = engine::chat_stops(format, frame_.end_of_text);
    stop.insert(stop.end(), options_.stop.begin(), options_.stop.end());
    return generate(frame_.encode(model_->tokenizer(), text, Tokenizer::SpecialTokens::kParse),
                    stop);
  }
  /// Throws UsageError when the model has no form that we know.
  engine::ChatFormat chat_format() const {
    if (!options_.chat.empty()) return engine::chat_format_named(options_.chat);
    if (frame_.chat_template) return engine::recognise_chat_format(*frame_.chat_template);
    throw UsageError("{} has no chat template: choose a form with --chat NAME, or give a prompt",
                     options_.engine.model);
  }

 private:
  engine::GenerationResult generate(std::vector<TokenId> prompt,
                                    const std::vector<std::string>& stop) {
    engine::GenerationResult kept;
    engine::GenerationRequest request{.prompt = std::move(prompt),
                                      .tokens = options_.tokens,
                                      .sampling = options_.sampling,
                                      .stop = stop,
                                      .end_tokens = frame_.ends};
    if (!options_.json) {
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
      if (!options_.json && !kept.text.empty()) std::cout << std::endl;
      std::rethrow_exception(kept.failure);
    }
    return kept;
  }

  std::shared_ptr<engine::Model> model_;
  const Options& options_;
  engine::TextFrame frame_;
  engine::EngineSequences sequences_;
  engine::Scheduler scheduler_;
};

Json to_json(const std::string& prompt, const engine::GenerationResult& result) {
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

int complete(const std::string& prompt, const Options& options,
             const std::shared_ptr<engine::Model>& model) {
  Generator generator(model, options);
  const std::vector<engine::ChatMessage> message = {{"user", prompt}};
  const engine::GenerationResult result =
      options.chats ? generator.reply(message) : generator.complete(prompt);
  if (options.json) {
    std::cout << pretty(to_json(prompt, result));
  } else {
    std::cout << std::endl;
  }
  print_line(stderr, summary_of(result));
  return interrupt_exit_code();
}

/// Turns by turns until the input ends. A signal ends the reply under way.
int converse(const Options& options, const std::shared_ptr<engine::Model>& model) {
  Generator generator(model, options);
  print_line(stderr, fmt::format("chat as {}; /new forgets, an end of input (Ctrl-D) leaves",
                                 engine::name_of(generator.chat_format())));
  std::vector<engine::ChatMessage> messages;
  std::string text;
  while (std::cerr << "> " << std::flush, std::getline(std::cin, text)) {
    if (text.empty()) continue;
    if (text == "/new") {
      messages.clear();
      continue;
    }
    messages.push_back({"user", text});
    try {
      check_text(text, "the message");
      const engine::GenerationResult result = generator.reply(messages);
      messages.push_back({"assistant", result.text});
      std::cout << std::endl;
      print_line(stderr, summary_of(result));
    } catch (const UsageError& error) {
      messages.pop_back();
      print_line(stderr, error.what());
    }
    clear_interrupt();
  }
  std::cerr << '\n';
  return 0;
}

/// The model, and what listens to it until the trace is written.
class Traced {
 public:
  explicit Traced(const Options& options, int threads)
      : file_(options.trace), model_(open_model(options.engine, threads)) {
    if (!file_.empty()) recorder_.emplace(model_);
  }
  const std::shared_ptr<engine::Model>& model() const { return model_; }
  int finish(int exit_code) const {
    if (recorder_) engine::write_trace(recorder_->trace(), file_);
    return exit_code;
  }

 private:
  std::string file_;
  std::shared_ptr<engine::Model> model_;
  std::optional<engine::RouteRecorder> recorder_;
};

int run(int argc, char** argv) {
  Options options;
  CommandLine line("run", "A prompt from a file or standard input loses the line end at its end.");
  const CLI::Option* chat = add_options(line, options);
  if (const auto done = line.parse(argc, argv)) return *done;
  options.chats = chat->count() > 0;
  engine::Sampler{options.sampling};  // says what is out of range before the model is loaded
  if (!options.chat.empty()) engine::chat_format_named(options.chat);
  if (is_conversation(options)) {
    install_interrupt_handlers();
    const Traced traced(options, line.threads());
    return traced.finish(converse(options, traced.model()));
  }
  const std::string prompt = prompt_of(options);
  install_interrupt_handlers();
  const Traced traced(options, line.threads());
  return traced.finish(complete(prompt, options, traced.model()));
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("run", [&] { return run(argc, argv); });
}
