/// cadre calibrate: what a model does on texts, in a file that merging, pruning and factorizing
/// read.

#include <fmt/format.h>

#include <iostream>

#include "cadre/base/main.h"
#include "cadre/base/progress.h"
#include "cadre/base/timer.h"
#include "cadre/base/units.h"
#include "cadre/reshape/calibrate.h"
#include "tools/common/engine_options.h"

namespace {

using namespace cadre;

struct Options {
  EngineOptions engine;
  std::vector<std::string> texts;
  std::string out;
  int64_t tokens = 65536;
  int64_t output_tokens = 256;
};

int run(int argc, char** argv) {
  Options options;
  CommandLine line("calibrate",
                   "Writes routing statistics, router logits' products, experts' mean outputs, "
                   "neurons' activity and hidden states' moments as one safetensors file.");
  options.engine.context = 512;
  add_engine_options(line, options.engine);
  line.add("text", "--text", options.texts, "Text to read; give it again for another domain")
      ->required();
  line.add("text", "--tokens", options.tokens, "Most tokens of each text");
  line.add("text", "--output-tokens", options.output_tokens,
           "Tokens on which every expert of a layer runs; 0 = none");
  line.add(kOutputGroup, "--out", options.out, "File to write")->required();
  if (const auto done = line.parse(argc, argv)) return *done;

  std::vector<std::string> texts;
  for (const std::string& file : options.texts) texts.push_back(read_text(file));
  engine::ModelOptions model = model_options(options.engine, line.threads());
  constexpr int64_t kParts = 1000;
  Progress progress({.label = "calibrate", .total = kParts, .unit = "per mille"});
  const Stopwatch watch;
  const reshape::CalibrationReport report = reshape::calibrate(
      options.engine.model, texts, options.out, model,
      {.window = options.engine.context,
       .tokens = options.tokens,
       .output_tokens = options.output_tokens,
       .progress = [&](double share) {
         progress.advance(static_cast<int64_t>(share * kParts) - progress.done());
       }});
  progress.finish();
  std::cout << fmt::format("{}: {} tokens, {} layers with experts, in {}\n", options.out,
                           report.tokens, report.layers_with_experts,
                           format_duration(watch.seconds()));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("calibrate", [&] { return run(argc, argv); });
}
