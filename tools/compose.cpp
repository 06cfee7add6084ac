/// cadre compose: fits a router over several models to labelled prompts, and writes the file that
/// cadre run --ensemble reads.

#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "cadre/base/progress.h"
#include "cadre/base/table.h"
#include "cadre/base/units.h"
#include "cadre/engine/text_frame.h"
#include "cadre/ensemble/compose.h"
#include "cadre/ensemble/ensemble_file.h"
#include "cadre/ensemble/model_pool.h"
#include "cadre/formats/file.h"
#include "tools/common/engine_options.h"
#include "tools/common/json_text.h"

namespace {

using namespace cadre;
using namespace cadre::ensemble;
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> models;  ///< NAME=PATH
  std::string prompts, out, general, budget, memory;
  double margin = 1, sure = 0.95;
  int64_t context = 0;
  bool json = false;
};

void add_options(CommandLine& line, Options& options) {
  line.add("models", "--model", options.models,
           "A model as NAME=PATH: GGUF file, pack or checkpoint folder; once for each")
      ->required();
  line.add("models", "--general", options.general,
           "The model for prompts that the router is not sure about; none = the best single one");
  line.add("models", "--budget", options.budget,
           "Bytes in memory of all models chosen (8GiB), or a share of all (60%); none = no limit");
  line.add(
          "prompts", "--prompts", options.prompts,
          "JSON lines {\"category\", \"prompt\", \"answer\"}, or \"losses\": {NAME: number} in the "
          "answer's place; - = standard input")
      ->required();
  line.add("prompts", "--margin", options.margin,
           "A category leaves the general model for a gain of more than so many standard errors")
      ->check(CLI::NonNegativeNumber);
  line.add("prompts", "--sure", options.sure,
           "Share of validation prompts that the router is to be sure about")
      ->check(CLI::Range(0.0, 1.0));
  line.add("engine", "--memory", options.memory,
           "Bytes for the whole process while measuring; none = what is free, less a margin");
  line.add("engine", "--context", options.context,
           "Tokens of prompt and answer at most; 0 = the model's, but no more than 4096")
      ->check(CLI::NonNegativeNumber);
  line.add(kOutputGroup, "--out", options.out,
           "The ensemble's TOML file; the router goes beside it as NAME.router.safetensors")
      ->required();
  line.add_flag(kOutputGroup, "--json", options.json, "Print JSON");
}

/// The models in the order of their names, which is the file's.
std::vector<EnsembleFile::Member> members_of(const std::vector<std::string>& texts) {
  std::vector<EnsembleFile::Member> members;
  for (const std::string& text : texts) {
    const size_t at = text.find('=');
    if (at == std::string::npos || at == 0 || at + 1 == text.size()) {
      throw UsageError("--model: '{}' is not NAME=PATH", text);
    }
    members.push_back({text.substr(0, at), text.substr(at + 1)});
  }
  const auto by_name = [](const auto& a, const auto& b) { return a.name < b.name; };
  std::sort(members.begin(), members.end(), by_name);
  for (size_t i = 1; i < members.size(); ++i) {
    if (members[i].name == members[i - 1].name) {
      throw UsageError("--model: '{}' twice", members[i].name);
    }
  }
  return members;
}

int64_t budget_of(const std::string& text, const std::vector<ComposeModel>& models) {
  if (text.empty()) return INT64_MAX;
  try {
    if (!text.ends_with('%')) return static_cast<int64_t>(parse_bytes(text));
    int64_t all = 0;
    for (const ComposeModel& model : models) all += model.size;
    const double percent = std::stod(text.substr(0, text.size() - 1));
    return static_cast<int64_t>(percent / 100 * static_cast<double>(all));
  } catch (const std::exception&) {
    throw UsageError("--budget: '{}' is neither bytes (8GiB) nor a share (60%)", text);
  }
}

/// Losses by running the models, or as the prompts bring them.
class Losses {
 public:
  Losses(ModelPool& pool, const std::vector<EnsembleFile::Member>& members, int64_t context,
         int64_t total)
      : pool_(pool), members_(members), context_(context), total_(total) {}

  double operator()(int64_t model, const LabelledPrompt& prompt) {
    const double loss = prompt.losses.empty() ? measured(model, prompt) : brought(model, prompt);
    if (!progress_) {
      progress_.emplace(ProgressOptions{.label = "measure", .total = total_, .unit = "prompts"});
    }
    progress_->field("model", members_[static_cast<size_t>(model)].name);
    progress_->advance();
    return loss;
  }

 private:
  double measured(int64_t model, const LabelledPrompt& prompt) {
    const auto open = pool_.get(model).model;
    if (model != framed_) {
      frame_ =
          engine::read_text_frame(members_[static_cast<size_t>(model)].path, open->tokenizer());
      framed_ = model;
    }
    const int64_t most = std::min<int64_t>(open->spec().context, context_ > 0 ? context_ : 4096);
    return answer_bits(open, frame_, prompt, most);
  }
  double brought(int64_t model, const LabelledPrompt& prompt) const {
    const std::string& name = members_[static_cast<size_t>(model)].name;
    const auto found = prompt.losses.find(name);
    if (found != prompt.losses.end()) return found->second;
    throw UsageError("a prompt of category '{}' brings no loss of model '{}'", prompt.category,
                     name);
  }

  ModelPool& pool_;
  const std::vector<EnsembleFile::Member>& members_;
  int64_t context_, total_;
  std::optional<Progress> progress_;  ///< from the first loss on
  engine::TextFrame frame_;
  int64_t framed_ = -1;
};

double mean_loss(const ModelMapProblem& problem, int64_t model) {
  double sum = 0;
  for (int64_t c = 0; c < problem.categories; ++c) {
    sum += problem.share[static_cast<size_t>(c)] *
           problem.loss[static_cast<size_t>(c * problem.models + model)];
  }
  return sum;
}

void print(const Composition& made, const std::vector<ComposeModel>& models) {
  std::vector<std::string> headers = {"category", "share"};
  for (const ComposeModel& model : models) headers.push_back(model.name);
  headers.insert(headers.end(), {"answers", "stable"});
  Table table(headers);
  const ModelMapProblem& p = made.problem;
  for (int64_t c = 0; c < p.categories; ++c) {
    const auto at = static_cast<size_t>(c);
    std::vector<std::string> row = {made.categories.names[at],
                                    fmt::format("{:.0f} %", 100 * p.share[at])};
    for (int64_t m = 0; m < p.models; ++m) {
      const auto cell = static_cast<size_t>(c * p.models + m);
      row.push_back(fmt::format("{:.3f} +- {:.3f}", p.loss[cell], p.error[cell]));
    }
    row.push_back(models[static_cast<size_t>(made.map.model[at])].name);
    row.push_back(fmt::format("{:.0f} %", 100 * made.stability[at]));
    table.add_row(row);
  }
  std::vector<std::string> all = {"all", ""};
  for (int64_t m = 0; m < p.models; ++m) all.push_back(fmt::format("{:.3f}", mean_loss(p, m)));
  all.push_back(fmt::format("{:.3f}", made.map.loss));
  table.add_row(all);
  std::vector<std::string> sizes = {"bytes", ""};
  for (const ComposeModel& m : models) sizes.push_back(format_bytes(static_cast<uint64_t>(m.size)));
  sizes.push_back(format_bytes(static_cast<uint64_t>(made.map.size)));
  table.add_row(sizes);
  std::cout << table.str()
            << fmt::format(
                   "\nrouter: {:.1f} % of {} validation prompts in the right category, {} trained "
                   "it\ngeneral model: {}\n",
                   100 * made.accuracy, made.validated, made.trained,
                   models[static_cast<size_t>(made.general)].name);
}

Json to_json(const Composition& made, const std::vector<ComposeModel>& models) {
  const ModelMapProblem& p = made.problem;
  Json categories = Json::object();
  for (int64_t c = 0; c < p.categories; ++c) {
    const auto at = static_cast<size_t>(c);
    Json losses = Json::object(), errors = Json::object();
    for (int64_t m = 0; m < p.models; ++m) {
      const std::string& name = models[static_cast<size_t>(m)].name;
      losses[name] = p.loss[static_cast<size_t>(c * p.models + m)];
      errors[name] = p.error[static_cast<size_t>(c * p.models + m)];
    }
    categories[made.categories.names[at]] = {
        {"model", models[static_cast<size_t>(made.map.model[at])].name},
        {"share", p.share[at]},
        {"losses", losses},
        {"standard_errors", errors},
        {"stability", made.stability[at]}};
  }
  Json sizes = Json::object();
  for (const ComposeModel& model : models) sizes[model.name] = model.size;
  return {{"general", models[static_cast<size_t>(made.general)].name},
          {"loss", made.map.loss},
          {"best_single_loss", mean_loss(p, made.general)},
          {"bytes", made.map.size},
          {"active_bytes", made.map.active},
          {"router_accuracy", made.accuracy},
          {"trained", made.trained},
          {"validated", made.validated},
          {"model_bytes", sizes},
          {"categories", categories}};
}

/// The router first, then the file that names it.
void write(const Composition& made, std::vector<EnsembleFile::Member> members,
           const fs::path& out) {
  const fs::path folder = fs::absolute(out).parent_path();
  EnsembleFile file{.router = out.stem().string() + ".router.safetensors", .general = made.general};
  for (EnsembleFile::Member& model : members) {
    model.path = fs::proximate(fs::absolute(model.path), folder);
  }
  file.models = std::move(members);
  for (size_t c = 0; c < made.categories.names.size(); ++c) {
    file.categories[made.categories.names[c]] = made.map.model[c];
  }
  write_category_router(folder / file.router, made.categories);
  write_file(out, to_toml(file));
}

int run(int argc, char** argv) {
  Options options;
  CommandLine line("compose",
                   "Every third prompt of a category measures the models, the others train the "
                   "router. Loss is bits a byte of the answer.");
  add_options(line, options);
  if (const auto done = line.parse(argc, argv)) return *done;
  if (fs::path(options.out).extension() != ".toml") {
    throw UsageError("--out: {} should end in .toml", options.out);
  }
  const auto members = members_of(options.models);
  const auto prompts = parse_labelled_prompts(read_text(options.prompts), options.prompts);
  EngineOptions engine;
  engine.memory = options.memory;
  engine.context = options.context;
  std::vector<fs::path> paths;
  for (const auto& member : members) paths.push_back(member.path);
  ModelPool pool(paths, model_options(engine, line.threads()));
  std::vector<ComposeModel> models;
  for (size_t m = 0; m < members.size(); ++m) {
    models.push_back({members[m].name, pool.need(static_cast<int64_t>(m)).resident});
  }
  const auto rounds = static_cast<int64_t>(prompts.size() / 3 * models.size());
  Composition made = [&] {
    Losses losses(pool, members, options.context, rounds);
    return compose(prompts, models, std::ref(losses),
                   {.budget = budget_of(options.budget, models),
                    .general = options.general,
                    .margin = options.margin,
                    .sure_share = options.sure});
  }();
  write(made, members, options.out);
  if (options.json) {
    std::cout << pretty(to_json(made, models));
  } else {
    print(made, models);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("compose", [&] { return run(argc, argv); });
}
