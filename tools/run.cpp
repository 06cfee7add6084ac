/// cadre run: continues a prompt, or chats. The text goes to stdout, everything else to stderr.

#include <unistd.h>

#include <iostream>
#include <optional>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/base/interrupt.h"
#include "cadre/base/main.h"
#include "cadre/base/terminal.h"
#include "cadre/engine/chat_template.h"
#include "cadre/engine/route_recorder.h"
#include "tools/common/engine_options.h"
#include "tools/common/json_text.h"
#include "tools/run/ensemble.h"
#include "tools/run/generator.h"

namespace {

using namespace cadre;

struct Options {
  EngineOptions engine;
  GeneratorOptions generator;
  EnsembleOptions ensemble;
  std::string prompt, file, trace;
  bool json = false;
};

CLI::Option* add_options(CommandLine& line, Options& options) {
  add_engine_options(line, options.engine);
  line.app().get_option("model")->required(false);
  line.add(
      "model", "--ensemble", options.ensemble.file,
      "Several models behind one router, as this TOML file says (cadre compose makes one); the "
      "router chooses who answers");
  add_routing_options(line, options.engine.routing);
  line.add("prompt", "prompt", options.prompt,
           "Text to continue; none = standard input, or a chat in a terminal");
  line.add("prompt", "--file", options.file, "Read the prompt from this file; - = standard input");
  engine::SamplerOptions& sampling = options.generator.sampling;
  line.add("prompt", "--prompts", options.ensemble.prompts,
           "With --ensemble: a file of prompts, one a line; answers come as a JSON object a line");
  line.add("sampling", "--tokens", options.generator.tokens, "At most so many new tokens")
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
  line.add("sampling", "--stop", options.generator.stop,
           "End before this text; may be given several times");
  line.add_flag(kOutputGroup, "--json", options.json, "Print JSON when done");
  line.add(kOutputGroup, "--trace", options.trace,
           "Record which experts each token was given (for cadre replay and plan)");
  return line
      .add("prompt", "--chat", options.generator.chat,
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

Generator generator_of(const Options& options, const std::shared_ptr<engine::Model>& model) {
  return {model, options.engine.model, context_of(options.engine, model->spec()),
          options.generator};
}

int complete(const std::string& prompt, const Options& options,
             const std::shared_ptr<engine::Model>& model) {
  const engine::GenerationResult result = generator_of(options, model).answer(prompt);
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
  Generator generator = generator_of(options, model);
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

/// With --ensemble the one positional is the prompt; without, the model is needed.
void settle_positionals(Options& options) {
  std::string& model = options.engine.model;
  if (options.ensemble.file.empty()) {
    if (model.empty()) throw UsageError("model is required (cadre run --help shows the options)");
    if (!options.ensemble.prompts.empty()) throw UsageError("--prompts needs --ensemble");
    return;
  }
  if (!options.prompt.empty()) {
    throw UsageError("with --ensemble give the prompt alone: its file names the models");
  }
  options.prompt = std::exchange(model, "");
  if (!options.engine.expert_memory.empty() || !options.trace.empty()) {
    throw UsageError("--expert-memory and --trace are for one model, not for --ensemble");
  }
}

int run_with_ensemble(const Options& options, int threads) {
  std::vector<std::string> prompts;
  if (options.ensemble.prompts.empty()) {
    if (is_conversation(options)) throw UsageError("with --ensemble give a prompt");
    prompts.push_back(prompt_of(options));
  } else if (!options.prompt.empty() || !options.file.empty()) {
    throw UsageError("give one prompt or --prompts, not both");
  }
  install_interrupt_handlers();
  return run_ensemble({.engine = options.engine,
                       .generator = options.generator,
                       .ensemble = options.ensemble,
                       .json = options.json},
                      std::move(prompts), threads);
}

int run(int argc, char** argv) {
  Options options;
  CommandLine line("run", "A prompt from a file or standard input loses the line end at its end.");
  const CLI::Option* chat = add_options(line, options);
  if (const auto done = line.parse(argc, argv)) return *done;
  options.generator.chats = chat->count() > 0;
  options.generator.shows = !options.json && options.ensemble.prompts.empty();
  engine::Sampler{
      options.generator.sampling};  // says what is out of range before the model is loaded
  if (!options.generator.chat.empty()) engine::chat_format_named(options.generator.chat);
  settle_positionals(options);
  if (!options.ensemble.file.empty()) return run_with_ensemble(options, line.threads());
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
