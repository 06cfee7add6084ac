/// cadre generate: text after a prompt, shown as it is made.

#include <iostream>
#include <iterator>

#include <nlohmann/json.hpp>

#include "cadre/base/main.h"
#include "cadre/base/timer.h"
#include "cadre/base/units.h"
#include "cadre/training/checkpoint.h"
#include "cadre/training/generation.h"
#include "tools/common/command_line.h"
#include "tools/common/json_text.h"

namespace {

using namespace cadre;

struct Options {
  std::string checkpoint, prompt;
  SamplingOptions sampling;
  bool json = false;
};

void add_options(CommandLine& line, Options& options) {
  SamplingOptions& sampling = options.sampling;
  line.add("checkpoint", "checkpoint", options.checkpoint, "Checkpoint folder")->required();
  line.add("prompt", "prompt", options.prompt, "Text to continue; - = standard input")->required();
  line.add("sampling", "--tokens", sampling.tokens, "At most so many new tokens")
      ->check(CLI::PositiveNumber);
  line.add("sampling", "--temperature", sampling.temperature,
           "Below 1 = safer, above = bolder; 0 = always the likeliest")
      ->check(CLI::NonNegativeNumber);
  line.add("sampling", "--top-k", sampling.top_k, "Draw from the k likeliest tokens; 0 = all")
      ->check(CLI::NonNegativeNumber);
  line.add("sampling", "--top-p", sampling.top_p,
           "Draw from the likeliest tokens of this total probability")
      ->check(CLI::Range(0.0, 1.0));
  line.add("sampling", "--seed", sampling.seed, "The same seed draws the same text");
  line.add_flag(kOutputGroup, "--json", options.json, "Print JSON when done");
}

int run(int argc, char** argv) {
  Options options;
  CommandLine line("generate");
  line.accept_config_file();
  add_options(line, options);
  if (const auto done = line.parse(argc, argv)) return *done;
  if (options.prompt == "-") options.prompt.assign(std::istreambuf_iterator<char>(std::cin), {});

  const auto model = load_checkpoint(options.checkpoint);
  const Tokenizer tokenizer = load_tokenizer(options.checkpoint, model->config());
  const Stopwatch watch;
  const auto show = [](std::string_view text) { std::cout << text << std::flush; };
  if (!options.json) show(options.prompt);
  const std::string text =
      options.json ? generate(*model, tokenizer, options.prompt, options.sampling)
                   : generate(*model, tokenizer, options.prompt, options.sampling, show);
  if (options.json) {
    std::cout << pretty({{"prompt", options.prompt}, {"text", text}, {"seconds", watch.seconds()}});
  } else {
    std::cout << '\n';
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("generate", [&] { return run(argc, argv); });
}
