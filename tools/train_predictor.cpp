/// cadre train-predictor: ExpertFlow's routing path predictor, learned from recorded routes.

#include <fmt/format.h>

#include <iostream>
#include <map>

#include <nlohmann/json.hpp>

#include "cadre/base/error.h"
#include "cadre/base/interrupt.h"
#include "cadre/base/main.h"
#include "cadre/base/memory.h"
#include "cadre/base/progress.h"
#include "cadre/base/table.h"
#include "cadre/base/terminal.h"
#include "cadre/base/units.h"
#include "cadre/engine/trace.h"
#include "cadre/training/path_trainer.h"
#include "tools/common/command_line.h"
#include "tools/common/json_text.h"

namespace {

using namespace cadre;
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> traces, against;
  fs::path out = "predictor.safetensors";
  PathTrainOptions training;
  bool json = false;
};

void add_options(CommandLine& line, Options& options) {
  line.add("routes", "traces", options.traces,
           "Files of recorded routes (--trace of cadre run and cadre perplexity), one model's")
      ->required();
  line.app()
      .add_option("--against", options.against,
                  "Routes on text of another kind: scores are taken from them, too; may be given "
                  "several times")
      ->group("routes")
      ->allow_extra_args(false);
  PathTrainOptions& training = options.training;
  line.add(kTrainingGroup, "--steps", training.steps, "Updates");
  line.add(kTrainingGroup, "--batch", training.batch, "Examples of an update");
  line.add(kTrainingGroup, "--length", training.length, "Tokens forecast of an example");
  line.add(kTrainingGroup, "--window", training.window, "Tokens of a prompt that are seen");
  line.add(kTrainingGroup, "--lr", training.lr, "Learning rate, cosine decay");
  line.add(kTrainingGroup, "--weight-decay", training.weight_decay, "AdamW's, of matrices");
  line.add(kTrainingGroup, "--held-out", training.held_out,
           "Share of the sequences that scores are taken from");
  line.add(kTrainingGroup, "--seed", training.seed, "Of weights, examples and what is held out");
  line.add_flag(kTrainingGroup, "--sabotage", training.sabotage,
                "Give each token another one's routes: what must take the predictor its advantage");
  PathNetworkOptions& network = training.network;
  line.add("network", "--hidden", network.hidden, "Width");
  line.add("network", "--blocks", network.blocks, "Blocks of the encoder, and of the decoder");
  line.add("network", "--heads", network.heads, "Attention heads");
  line.add("network", "--head-width", network.head_width, "Width of a head");
  line.add("network", "--intermediate", network.intermediate, "Width of the feed-forward part");
  line.add("network", "--dropout", network.dropout, "Share of tokens blanked out in training");
  line.add(kOutputGroup, "--out", options.out,
           "File to write, for --predictor path --predictor-file FILE");
  line.add_flag(kOutputGroup, "--json", options.json, "Print JSON");
}

/// The tokens that each sequence of a trace processed, in order.
RoutedText read_routes(const std::string& file) {
  const engine::RouteTrace trace = engine::read_trace(file);
  if (trace.tokens.empty())
    throw UsageError("{}: the routes do not say of which tokens they are; record them with --trace",
                     file);
  RoutedText text = {.layers = trace.layers, .experts = trace.experts, .used = trace.used};
  std::map<int32_t, size_t> places;  // by sequence
  const int64_t row = trace.layers * trace.used;
  for (int64_t i = 0; i < trace.size(); ++i) {
    const auto [place, is_new] = places.try_emplace(trace.sequences[i], text.sequences.size());
    if (is_new) text.sequences.emplace_back();
    RoutedSequence& sequence = text.sequences[place->second];
    sequence.tokens.push_back(trace.tokens[i]);
    const auto chosen = trace.chosen.begin() + i * row;
    sequence.chosen.insert(sequence.chosen.end(), chosen, chosen + row);
  }
  return text;
}

RoutedText read_all_routes(const std::vector<std::string>& files) {
  RoutedText all;
  for (const std::string& file : files) {
    RoutedText text = read_routes(file);
    const bool first = all.sequences.empty();
    if (!first &&
        (text.layers != all.layers || text.experts != all.experts || text.used != all.used))
      throw UsageError("{}: {} layers of {} experts, {} used, but {} has {} of {}, {} used", file,
                       text.layers, text.experts, text.used, files.front(), all.layers, all.experts,
                       all.used);
    if (first)
      all = std::move(text);
    else
      std::move(text.sequences.begin(), text.sequences.end(), std::back_inserter(all.sequences));
  }
  return all;
}

/// Says before minutes of training what would fail after them.
void check_output(const fs::path& file) {
  const fs::path folder = fs::absolute(file).parent_path();
  if (!fs::is_directory(folder) || fs::is_directory(file))
    throw UsageError("--out {}: name a file in a folder that is there", file.string());
}

Json to_json(const PathEvaluation& evaluation) {
  Json scores = Json::array();
  for (const PathScore& score : evaluation.scores)
    scores.push_back({{"batch", score.batch},
                      {"picks", score.picks},
                      {"recall", score.recall},
                      {"precision", score.precision},
                      {"frequency_recall", score.frequency_recall},
                      {"frequency_precision", score.frequency_precision}});
  return {{"tokens", evaluation.tokens}, {"loss", evaluation.loss}, {"scores", scores}};
}

void print(const std::string& name, const PathEvaluation& evaluation) {
  Table table({"batch", "experts named", "recall %", "precision %", "frequency's recall %"});
  for (const PathScore& score : evaluation.scores)
    table.add_row({std::to_string(score.batch), std::to_string(score.picks),
                   fmt::format("{:.1f}", 100 * score.recall),
                   fmt::format("{:.1f}", 100 * score.precision),
                   fmt::format("{:.1f}", 100 * score.frequency_recall)});
  std::cout << fmt::format("{}: {} tokens, loss {:.3f}\n", name, evaluation.tokens, evaluation.loss)
            << table.str() << '\n';
}

int report(const Options& options, const PathTrainer& trainer, double loss) {
  const PathEvaluation held_out = trainer.evaluate();
  Json json = {{"file", options.out.string()},
               {"parameters", trainer.parameters()},
               {"training_tokens", trainer.training_tokens()},
               {"training_loss", loss},
               {"held_out", to_json(held_out)},
               {"against", Json::object()}};
  if (!options.json) print("held out", held_out);
  for (const std::string& file : options.against) {
    const PathEvaluation other = trainer.evaluate(read_routes(file));
    json["against"][file] = to_json(other);
    if (!options.json) print(file, other);
  }
  if (options.json)
    std::cout << pretty(json);
  else
    std::cout << fmt::format("{} parameters from {} tokens are in {}\n",
                             format_count(static_cast<double>(trainer.parameters())),
                             format_count(static_cast<double>(trainer.training_tokens())),
                             options.out.string());
  return 0;
}

int run(int argc, char** argv) {
  Options options;
  CommandLine line("train-predictor",
                   "The network sees a prompt and the tokens written so far, and names the experts "
                   "of all layers before the model starts on a token. Ctrl-C ends without a file.");
  add_options(line, options);
  if (const auto done = line.parse(argc, argv)) return *done;

  check_output(options.out);
  for (const std::string& file : options.against) read_routes(file);  // says now what is wrong
  PathTrainer trainer(read_all_routes(options.traces), options.training);
  install_interrupt_handlers();
  double loss = 0;
  {
    Progress progress({.label = "train-predictor", .total = options.training.steps});
    trainer.train([&](int64_t, double now) {
      loss = loss == 0 ? now : 0.95 * loss + 0.05 * now;
      progress.field("loss", fmt::format("{:.3f}", loss));
      progress.advance();
      return !interrupted();
    });
  }
  if (interrupted()) return interrupt_exit_code();
  trainer.save(options.out);
  return report(options, trainer, loss);
}

}  // namespace

int main(int argc, char** argv) {
  cadre::keep_freed_memory();
  return cadre::run_main("train-predictor", [&] { return run(argc, argv); });
}
