/// cadre eval: a checkpoint's loss on text, domain by domain.

#include <fmt/format.h>

#include <cmath>
#include <iostream>

#include <nlohmann/json.hpp>

#include "cadre/base/main.h"
#include "cadre/base/table.h"
#include "cadre/training/checkpoint.h"
#include "cadre/training/evaluation.h"
#include "tools/common/domain_tokens.h"
#include "tools/common/json_text.h"

namespace {

using namespace cadre;
using Json = nlohmann::ordered_json;

void print_text(const Evaluation& evaluation) {
  Table table({"domain", "loss", "perplexity", "tokens"});
  for (const auto& domain : evaluation.domains) {
    table.add_row({domain.domain, fmt::format("{:.4f}", domain.loss),
                   fmt::format("{:.2f}", std::exp(domain.loss)), std::to_string(domain.tokens)});
  }
  table.add_row({"mean", fmt::format("{:.4f}", evaluation.mean),
                 fmt::format("{:.2f}", std::exp(evaluation.mean))});
  std::cout << table.str();
}

Json to_json(const Evaluation& evaluation, const std::string& checkpoint) {
  Json domains = Json::object();
  for (const auto& domain : evaluation.domains) {
    domains[domain.domain] = {
        {"loss", domain.loss}, {"perplexity", std::exp(domain.loss)}, {"tokens", domain.tokens}};
  }
  return {{"checkpoint", checkpoint}, {"loss", evaluation.mean}, {"domains", domains}};
}

int run(int argc, char** argv) {
  std::string checkpoint;
  bool json = false;
  MeasureOptions measure;
  CommandLine line("eval", "Losses are in nats per token; the mean is over domains.");
  line.add("checkpoint", "checkpoint", checkpoint, "Checkpoint folder")->required();
  add_measure_options(line, measure);
  line.add_flag(kOutputGroup, "--json", json, "Print JSON");
  if (const auto done = line.parse(argc, argv)) return *done;

  const auto model = load_checkpoint(checkpoint);
  const MeasureData data(measure, load_tokenizer(checkpoint, model->config()), model->config());
  const Evaluation evaluation =
      evaluate(*model, data.domains(), measure.batch, measure.length, measure.sequences);
  if (json)
    std::cout << pretty(to_json(evaluation, checkpoint));
  else
    print_text(evaluation);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("eval", [&] { return run(argc, argv); });
}
