#include "tools/run/ensemble.h"

#include <iostream>
#include <sstream>

#include "cadre/base/error.h"
#include "cadre/base/interrupt.h"
#include "cadre/base/terminal.h"
#include "cadre/base/units.h"
#include "cadre/ensemble/ensemble_file.h"
#include "cadre/ensemble/ensemble_router.h"
#include "cadre/ensemble/grouped_queue.h"
#include "cadre/ensemble/model_pool.h"
#include "tools/common/json_text.h"

namespace cadre {
namespace {

using ensemble::EnsembleChoice;
using ensemble::EnsembleFile;
using ensemble::ModelPool;
using Json = nlohmann::ordered_json;

std::vector<std::string> lines_of(const std::string& path) {
  std::istringstream text(read_text(path));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty()) lines.push_back(line);
  }
  if (lines.empty()) throw UsageError("{} has no prompts", path);
  return lines;
}

ModelPool pool_of(const EnsembleFile& file, const EngineOptions& engine, int threads) {
  engine::ModelOptions options = model_options(engine, threads);
  if (options.memory == 0) options.memory = file.memory;
  std::vector<std::filesystem::path> paths;
  for (const EnsembleFile::Member& model : file.models) paths.push_back(model.path);
  return {std::move(paths), options};
}

class Ensemble {
 public:
  Ensemble(const EnsembleCommand& command, int threads)
      : command_(command),
        file_(ensemble::read_ensemble_file(command.ensemble.file)),
        router_(file_),
        pool_(pool_of(file_, command.engine, threads)) {}

  int answer_one(const std::string& prompt) {
    const EnsembleChoice choice = router_.choose(prompt);
    const Answer answer = generate(prompt, choice);
    if (command_.json) {
      std::cout << pretty(to_json(prompt, choice, answer));
    } else {
      std::cout << std::endl;
    }
    print_line(stderr, summary_of(answer.result));
    return interrupt_exit_code();
  }

  int answer_all(const std::vector<std::string>& prompts) {
    std::vector<EnsembleChoice> choices;
    ensemble::GroupedQueue queue(file_.window);
    for (const std::string& prompt : prompts) {
      choices.push_back(router_.choose(prompt));
      queue.push({static_cast<int64_t>(choices.size()) - 1, choices.back().model});
    }
    const auto is_open = [&](int64_t model) { return pool_.is_open(model); };
    while (!queue.empty() && !interrupted()) {
      const auto index = static_cast<size_t>(queue.pop(is_open).id);
      const Answer answer = generate(prompts[index], choices[index]);
      Json line = {{"index", index}};
      line.update(to_json(prompts[index], choices[index], answer));
      std::cout << line.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
    }
    print_line(stderr,
               fmt::format("{} prompts, models opened {} times", prompts.size(), pool_.loads()));
    return interrupt_exit_code();
  }

 private:
  struct Answer {
    engine::GenerationResult result;
    bool was_open;
    double open_seconds;
  };

  Answer generate(const std::string& prompt, const EnsembleChoice& choice) {
    const EnsembleFile::Member& member = file_.models[static_cast<size_t>(choice.model)];
    ModelPool::Opened opened = pool_.get(choice.model);
    print_line(stderr, describe(choice, opened));
    opened.model->routing = command_.engine.routing;
    Generator generator(opened.model, member.path, context_of(*opened.model), command_.generator);
    return {generator.answer(prompt), opened.was_open, opened.seconds};
  }

  int64_t context_of(const engine::Model& model) const {
    const int64_t most = model.spec().context, asked = command_.engine.context;
    return std::min<int64_t>(most, asked > 0 ? asked : 4096);
  }

  /// "code, 97 %: small, opened in 1.2 s, large left"
  std::string describe(const EnsembleChoice& choice, const ModelPool::Opened& opened) const {
    const bool sure = choice.reason == EnsembleChoice::Reason::kCategory;
    std::string text = fmt::format("{}, {:.0f} %{}: {}{}", choice.category,
                                   100 * choice.probability, sure ? "" : ", not sure",
                                   sure ? "" : "the general model ", name_of(choice.model));
    text += opened.was_open ? ", already open"
                            : fmt::format(", opened in {}", format_duration(opened.seconds));
    for (const int64_t left : opened.left) text += fmt::format(", {} left", name_of(left));
    return text;
  }

  Json to_json(const std::string& prompt, const EnsembleChoice& choice,
               const Answer& answer) const {
    const bool sure = choice.reason == EnsembleChoice::Reason::kCategory;
    Json json = {{"model", name_of(choice.model)},           {"category", choice.category},
                 {"probability", choice.probability},        {"entropy", choice.entropy},
                 {"reason", sure ? "category" : "not sure"}, {"was_open", answer.was_open},
                 {"open_seconds", answer.open_seconds}};
    json.update(cadre::to_json(prompt, answer.result));
    return json;
  }

  const std::string& name_of(int64_t model) const {
    return file_.models[static_cast<size_t>(model)].name;
  }

  const EnsembleCommand& command_;
  EnsembleFile file_;
  ensemble::EnsembleRouter router_;
  ModelPool pool_;
};

}  // namespace

int run_ensemble(const EnsembleCommand& command, std::vector<std::string> prompts, int threads) {
  if (!command.ensemble.prompts.empty()) prompts = lines_of(command.ensemble.prompts);
  Ensemble ensemble(command, threads);
  return command.ensemble.prompts.empty() ? ensemble.answer_one(prompts.front())
                                          : ensemble.answer_all(prompts);
}

}  // namespace cadre
