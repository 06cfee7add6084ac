/// cadre quickstart: the main job in five steps. Every step starts from what an earlier run of it
/// left.

#include <fmt/format.h>

#include <iostream>

#include "cadre/base/interrupt.h"
#include "cadre/base/log.h"
#include "cadre/base/main.h"
#include "cadre/base/memory.h"
#include "cadre/base/plot.h"
#include "cadre/base/units.h"
#include "cadre/formats/file.h"
#include "tools/common/domain_tokens.h"
#include "tools/common/json_text.h"
#include "tools/common/results.h"
#include "tools/common/routes_view.h"
#include "tools/quickstart/options.h"
#include "tools/quickstart/plan.h"
#include "tools/quickstart/samples.h"
#include "tools/quickstart/summary.h"

namespace {

using namespace cadre;
namespace fs = std::filesystem;

void announce(int step, const std::string& text) { logger().info("[{}/5] {}", step, text); }

/// Deletes what an earlier run made in `out`, and only when its plan shows that one was there.
void forget_run(const fs::path& out) {
  if (!has_plan(out)) return;
  for (const char* name :
       {"moe", "dense", "summary.json", "summary.txt", "report.html", "routes.svg", "plan.json"}) {
    fs::remove_all(out / name);
  }
}

/// How a user calls cadre from here.
std::string cadre_command() {
  const fs::path beside = fs::read_symlink("/proc/self/exe").parent_path() / "cadre";
  const fs::path shown = beside.lexically_proximate(fs::current_path());
  return beside.parent_path() == "/usr/bin" || beside.parent_path() == "/usr/local/bin"
             ? "cadre"
             : shown.string();
}

std::string next_commands(const fs::path& out, const std::vector<Sample>& samples) {
  const std::string cadre = cadre_command();
  const std::string prompt =
      samples.empty() ? "Once"
                      : samples.back().prompt.substr(0, samples.back().prompt.find_first_of("'\\"));
  const std::string folder = out.string();
  return fmt::format(
      "Try next:\n"
      "  {0} run {1}/moe '{2}'\n"
      "  {0} routes {1}/moe --data {1}/data\n"
      "  {0} inspect {1}/moe\n"
      "  {0} eval {1}/moe --data {1}/data\n"
      "  {0} quickstart --out longer --minutes 20 --steps 100000 --domain mine=PATH --domain "
      "more=PATH\n",
      cadre, folder, prompt);
}

class Quickstart {
 public:
  Quickstart(QuickstartOptions options, const CommandLine& line)
      : options_(std::move(options)),
        deciding_(deciding_options(line)),
        resolved_(line.resolved_toml()) {}

  int run() {
    if (options_.restart) forget_run(options_.out);
    const PreparedData data = prepare();
    if (finished()) return show_again();
    install_interrupt_handlers();
    const std::vector<DomainTokens> domains = open_domains(data);
    const auto batches = std::make_shared<TokenBatches>(
        domains, options_.training.batch, options_.training.length, options_.training.seed);
    if (!plan(*batches)) return stopped();
    Summary summary{.moe = {.config = moe_, .result = {}},
                    .dense = {.config = dense_, .result = {}},
                    .routes = {},
                    .samples = {},
                    .engine = {}};
    if (!train("moe", summary.moe, data.tokenizer, batches)) return interrupt_exit_code();
    if (!train("dense", summary.dense, data.tokenizer, batches)) return interrupt_exit_code();
    announce(3, fmt::format("checkpoints: {} and {}", (options_.out / "moe").string(),
                            (options_.out / "dense").string()));
    if (!look(summary, data.tokenizer, domains)) return stopped();
    finish(summary);
    return 0;
  }

 private:
  PreparedData prepare() {
    announce(1, "text and tokenizer: " + (options_.out / "data").string());
    const bool under_way = has_plan(options_.out);
    if (under_way) plan_ = load_plan(options_.out, deciding_);
    PreparedData data = prepare_data(options_.out / "data", options_.data, options_.training.length,
                                     under_way ? ChangedText::kKeep : ChangedText::kPrepareAgain);
    for (const auto& domain : data.domains) {
      logger().info("      {}: {} of text, {} tokens to train on, {} held out", domain.name,
                    format_bytes(static_cast<uint64_t>(domain.bytes)),
                    format_count(static_cast<double>(domain.train_tokens)),
                    format_count(static_cast<double>(domain.validation_tokens)));
    }
    moe_ = options_.model;
    moe_.vocabulary = data.tokenizer.vocabulary_size();
    moe_.end_of_text = data.tokenizer.end_of_text();
    dense_ = dense_twin(moe_);
    return data;
  }

  bool finished() const { return plan_.steps > 0 && fs::exists(options_.out / "summary.json"); }

  int show_again() const {
    logger().info("finished before; --restart begins anew");
    std::cout << read_file(options_.out / (options_.json ? "summary.json" : "summary.txt"));
    return 0;
  }

  int stopped() const {
    logger().warn("stopped; the same command goes on from here");
    return interrupt_exit_code();
  }

  /// False when interrupted.
  bool plan(const TokenBatches& batches) {
    if (plan_.steps == 0) write_file(options_.out / "quickstart.toml", resolved_);
    if (plan_.steps == 0) plan_ = make_plan(options_, moe_, dense_, batches, deciding_);
    if (interrupted()) return false;
    options_.training.steps = plan_.steps;
    options_.training.warmup_steps = plan_.warmup_steps;
    options_.training.evaluate_every = plan_.evaluate_every;
    announce(2, fmt::format("train the expert model ({} parameters, {} active) and its dense twin "
                            "({}), {} steps each",
                            format_count(static_cast<double>(count_parameters(moe_).total)),
                            format_count(static_cast<double>(count_parameters(moe_).active)),
                            format_count(static_cast<double>(count_parameters(dense_).total)),
                            plan_.steps));
    return true;
  }

  /// False when interrupted; the state is then saved.
  bool train(const std::string& name, TrainedModel& model, const Tokenizer& tokenizer,
             const std::shared_ptr<const TokenBatches>& batches) {
    Trainer trainer(options_.out / name, model.config, options_.training, batches, tokenizer);
    model.result = run_with_display(trainer, name, plan_.steps);
    return model.result.end == TrainResult::End::kFinished;
  }

  /// Routes and samples of the expert model; false when interrupted.
  bool look(Summary& summary, const Tokenizer& tokenizer,
            const std::vector<DomainTokens>& domains) {
    const auto model = load_checkpoint(options_.out / "moe");
    announce(4, "who does what");
    std::vector<std::string> names;
    std::vector<std::vector<TokenBatch>> batches;
    for (const auto& domain : domains) {
      batches.push_back(validation_batches(domain, static_cast<int64_t>(names.size()),
                                           options_.training.batch, options_.training.length,
                                           options_.training.evaluate_sequences));
      names.push_back(domain.name);
    }
    summary.routes = collect_routes(*model, names, batches);
    if (!options_.json) std::cout << routes_text(summary.routes) << std::flush;
    announce(5, "a prompt of each domain, through the engine");
    Samples made = make_samples(options_.out / "moe", *model, tokenizer, domains, options_.sampling,
                                options_.json ? nullptr : stdout);
    summary.samples = std::move(made.samples);
    summary.engine = std::move(made.engine);
    return !interrupted();
  }

  /// summary.json comes last: it says that everything is there.
  void finish(const Summary& summary) {
    const std::string text =
        summary_text(summary) +
        fmt::format("\nReport: {}\n\n", (options_.out / "report.html").string()) +
        next_commands(options_.out, summary.samples);
    write_plot(whole_map(summary.routes), options_.out / "routes.svg");
    write_file(options_.out / "report.html", summary_html(summary));
    write_file(options_.out / "summary.txt", text);
    const std::string json = pretty(summary_json(summary));
    write_file(options_.out / "summary.json", json);
    std::cout << (options_.json ? json : text);
  }

  QuickstartOptions options_;
  std::map<std::string, std::string> deciding_;
  std::string resolved_;
  Plan plan_;
  ModelConfig moe_, dense_;
};

int run(int argc, char** argv) {
  QuickstartOptions options;
  CommandLine line(
      "quickstart",
      "Five steps: text and tokenizer; training of the expert model and its dense twin; "
      "checkpoints that other\n"
      "software reads; the domain x expert map; generated text. A second run starts from what "
      "exists, Ctrl-C\n"
      "saves, and the same command goes on with the same numbers as an uninterrupted run.");
  line.accept_config_file();
  add_quickstart_options(line, options);
  if (const auto done = line.parse(argc, argv)) return *done;
  check_options(options);
  return Quickstart(std::move(options), line).run();
}

}  // namespace

int main(int argc, char** argv) {
  cadre::keep_freed_memory();
  return cadre::run_main("quickstart", [&] { return run(argc, argv); });
}
