/// cadre routes: which experts work on which domain.

#include <iostream>

#include "cadre/base/main.h"
#include "cadre/base/plot.h"
#include "cadre/formats/file.h"
#include "cadre/training/checkpoint.h"
#include "cadre/training/routes.h"
#include "tools/common/domain_tokens.h"
#include "tools/common/html.h"
#include "tools/common/json_text.h"
#include "tools/common/routes_view.h"

namespace {

using namespace cadre;

struct Options {
  std::string checkpoint;
  MeasureOptions measure;
  std::string picture, html;
  bool json = false;
};

void add_options(CommandLine& line, Options& options) {
  line.add("checkpoint", "checkpoint", options.checkpoint,
           "Checkpoint folder of a model with experts")
      ->required();
  add_measure_options(line, options.measure);
  line.add(kOutputGroup, "--picture", options.picture,
           "Write the map of all layers as this .svg or .png");
  line.add(kOutputGroup, "--html", options.html, "Write a self-contained page");
  line.add_flag(kOutputGroup, "--json", options.json, "Print JSON");
}

int run(int argc, char** argv) {
  Options options;
  CommandLine line("routes",
                   "Each row is a domain, each column an expert; a cell is the share of the "
                   "domain's work the expert does.");
  add_options(line, options);
  if (const auto done = line.parse(argc, argv)) return *done;

  const auto model = load_checkpoint(options.checkpoint);
  const MeasureData data(options.measure, load_tokenizer(options.checkpoint, model->config()),
                         model->config());
  const RoutesReport report = collect_routes(*model, data.names(), data.batches(options.measure));
  if (!options.picture.empty()) write_plot(whole_map(report), options.picture);
  if (!options.html.empty()) {
    write_file(options.html,
               html_page("Who does what in " + options.checkpoint, routes_html(report)));
  }
  std::cout << (options.json ? pretty(routes_json(report)) : routes_text(report));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("routes", [&] { return run(argc, argv); });
}
