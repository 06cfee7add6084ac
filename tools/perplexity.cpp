/// cadre perplexity: how well a model predicts a text, also with knobs that save experts.

#include <fmt/format.h>

#include <iostream>
#include <optional>

#include <nlohmann/json.hpp>

#include "cadre/base/main.h"
#include "cadre/base/terminal.h"
#include "cadre/base/timer.h"
#include "cadre/base/units.h"
#include "cadre/engine/route_recorder.h"
#include "cadre/engine/text_frame.h"
#include "tools/common/engine_options.h"
#include "tools/common/json_text.h"

namespace {

using namespace cadre;
using Json = nlohmann::ordered_json;

struct Options {
  EngineOptions engine;
  std::string text, trace;
  bool json = false;
};

void print(const engine::PerplexityResult& result) {
  std::cout << fmt::format("perplexity {:.4f} (loss {:.5f} +- {:.5f} nats a token, {} tokens)\n",
                           result.perplexity(), result.mean_loss, result.deviation, result.tokens);
}

Json to_json(const Options& options, const engine::PerplexityResult& result, double seconds) {
  return {{"model", options.engine.model},
          {"text", options.text},
          {"perplexity", result.perplexity()},
          {"loss", result.mean_loss},
          {"standard_error", result.deviation},
          {"tokens", result.tokens},
          {"seconds", seconds},
          {"hit_rate", engine::hit_rate(result.experts)},
          {"bytes_read", result.experts.bytes_read}};
}

int run(int argc, char** argv) {
  Options options;
  CommandLine line("perplexity",
                   "The text is cut into windows of --context tokens; each window's second half is "
                   "predicted from what is before it in the window.");
  options.engine.context = 512;
  add_engine_options(line, options.engine);
  add_routing_options(line, options.engine.routing, "--top-p,--expert-top-p");
  line.add("text", "--text", options.text, "File to predict; - = standard input")->required();
  line.add_flag(kOutputGroup, "--json", options.json, "Print JSON");
  line.add(kOutputGroup, "--trace", options.trace,
           "Record which experts each token was given, each window as a sequence (for cadre "
           "train-predictor)");
  if (const auto done = line.parse(argc, argv)) return *done;

  const std::string text = read_text(options.text);
  const auto model = open_model(options.engine, line.threads());
  const Tokenizer& tokenizer = model->tokenizer();
  const std::vector<TokenId> tokens =
      engine::read_text_frame(options.engine.model, tokenizer).encode(tokenizer, text);
  std::optional<engine::RouteRecorder> recorder;
  if (!options.trace.empty()) recorder.emplace(model);
  engine::EngineSequences sequences(model);
  const bool live = is_terminal(stderr);
  const auto show = [&](double done, double so_far) {
    if (live) {
      set_live_line(stderr, fmt::format("{:.0f} %, perplexity {:.4f}", 100 * done, so_far));
    }
  };
  const Stopwatch watch;
  const auto result = engine::measure_perplexity(
      sequences, tokens, {.context = context_of(options.engine, model->spec()), .progress = show});
  const double seconds = watch.seconds();
  if (live) clear_live_line(stderr);
  if (recorder) engine::write_trace(recorder->trace(), options.trace);
  print_line(stderr, fmt::format("{} tokens in {} {}", tokens.size(), format_duration(seconds),
                                 describe(result.experts)));
  if (options.json) {
    std::cout << pretty(to_json(options, result, seconds));
  } else {
    print(result);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("perplexity", [&] { return run(argc, argv); });
}
