/// cadre routes: which experts work on which domain.

#include <iostream>

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "cadre/base/plot.h"
#include "cadre/formats/file.h"
#include "cadre/formats/token_file.h"
#include "cadre/training/checkpoint.h"
#include "cadre/training/routes.h"
#include "tools/common/domain_tokens.h"
#include "tools/common/html.h"
#include "tools/common/json_text.h"
#include "tools/common/routes_view.h"

namespace {

using namespace cadre;

struct Options {
  std::string checkpoint, against;
  MeasureOptions measure;
  std::string picture, html;
  bool json = false;
};

void add_options(CommandLine& line, Options& options) {
  line.add("checkpoint", "checkpoint", options.checkpoint,
           "Checkpoint folder of a model with experts")
      ->required();
  line.add("checkpoint", "--against", options.against,
           "Another checkpoint of the same tokenizer: how differently it routes the same tokens");
  add_measure_options(line, options.measure);
  line.add(kOutputGroup, "--picture", options.picture,
           "Write the map of all layers as this .svg or .png");
  line.add(kOutputGroup, "--html", options.html, "Write a self-contained page");
  line.add_flag(kOutputGroup, "--json", options.json, "Print JSON");
}

std::vector<LayerDifference> differences(const Options& options, LanguageModel& model,
                                         const MeasureData& data) {
  if (options.against.empty()) return {};
  const auto other = load_checkpoint(options.against);
  if (hash_of(load_tokenizer(options.checkpoint, model.config())) !=
      hash_of(load_tokenizer(options.against, other->config()))) {
    throw UsageError("{} and {} have different tokenizers: their tokens cannot be compared",
                     options.checkpoint, options.against);
  }
  return compare_routes(model, *other, data.batches(options.measure));
}

int run(int argc, char** argv) {
  Options options;
  CommandLine line("routes",
                   "Each row is a domain, each column an expert; a cell is the share of the "
                   "domain's work the expert does.");
  add_options(line, options);
  if (const auto done = line.parse(argc, argv)) return *done;

  const auto model = load_checkpoint(options.checkpoint);
  const Tokenizer tokenizer = load_tokenizer(options.checkpoint, model->config());
  const MeasureData data(options.measure, tokenizer, model->config());
  const RoutesReport report =
      collect_routes(*model, data.names(), data.batches(options.measure),
                     classify_tokens(tokenizer, model->config().vocabulary));
  const auto changed = differences(options, *model, data);
  if (!options.picture.empty()) write_plot(whole_map(report), options.picture);
  if (!options.html.empty()) {
    write_file(options.html,
               html_page("Who does what in " + options.checkpoint, routes_html(report, changed)));
  }
  std::cout << (options.json ? pretty(routes_json(report, changed)) : routes_text(report, changed));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("routes", [&] { return run(argc, argv); });
}
