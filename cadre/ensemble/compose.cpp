#include "cadre/ensemble/compose.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numbers>
#include <set>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/base/text.h"
#include "cadre/engine/perplexity.h"
#include "cadre/formats/json.h"

namespace cadre::ensemble {
namespace {

constexpr int kResamples = 200;

std::string text_of(const nlohmann::json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string() || found->get<std::string>().empty()) {
    throw FormatError("{}: {} must be a text", where, key);
  }
  return found->get<std::string>();
}

LabelledPrompt prompt_of(const nlohmann::json& object, const std::string& where) {
  if (!object.is_object()) throw FormatError("{}: must be a JSON object", where);
  LabelledPrompt prompt{.category = text_of(object, "category", where),
                        .prompt = text_of(object, "prompt", where)};
  const auto losses = object.find("losses");
  if (losses == object.end()) {
    prompt.answer = text_of(object, "answer", where);
    return prompt;
  }
  if (!losses->is_object()) throw FormatError("{}: losses must be an object", where);
  for (const auto& [model, loss] : losses->items()) {
    if (!loss.is_number()) throw FormatError("{}: losses.{} must be a number", where, model);
    prompt.losses[model] = loss.get<double>();
  }
  return prompt;
}

/// Prompts with categories as numbers, divided.
struct Split {
  std::vector<std::string> names;
  std::vector<std::string> train_texts, validation_texts;
  std::vector<int64_t> train_labels, validation_labels;
  std::vector<const LabelledPrompt*> validation;
  std::vector<int64_t> counts;  ///< [C] of all prompts
};

Split split(const std::vector<LabelledPrompt>& prompts) {
  Split s;
  std::set<std::string> names;
  for (const LabelledPrompt& prompt : prompts) names.insert(prompt.category);
  s.names.assign(names.begin(), names.end());
  if (s.names.size() < 2) {
    throw UsageError("the prompts have {} categories, a router needs two or more", s.names.size());
  }
  s.counts.assign(s.names.size(), 0);
  for (const LabelledPrompt& prompt : prompts) {
    const auto at = std::lower_bound(s.names.begin(), s.names.end(), prompt.category);
    const auto label = at - s.names.begin();
    const bool validates = ++s.counts[static_cast<size_t>(label)] % 3 == 0;
    (validates ? s.validation_texts : s.train_texts).push_back(prompt.prompt);
    (validates ? s.validation_labels : s.train_labels).push_back(label);
    if (validates) s.validation.push_back(&prompt);
  }
  for (size_t c = 0; c < s.names.size(); ++c) {
    if (s.counts[c] >= 3) continue;
    throw UsageError("category '{}' has {} prompts, three are the least", s.names[c], s.counts[c]);
  }
  return s;
}

/// Losses of every model on every validation prompt.
class LossTable {
 public:
  LossTable(const Split& split, const std::vector<ComposeModel>& models,
            const std::function<double(int64_t, const LabelledPrompt&)>& loss)
      : labels_(split.validation_labels), models_(static_cast<int64_t>(models.size())) {
    const auto rows = split.validation.size();
    values_.resize(rows * models.size());
    for (size_t m = 0; m < models.size(); ++m) {
      for (size_t row = 0; row < rows; ++row) {
        const double value = loss(static_cast<int64_t>(m), *split.validation[row]);
        if (!std::isfinite(value)) {
          throw UsageError("model {}: its loss on a prompt of category '{}' is {}", models[m].name,
                           split.validation[row]->category, value);
        }
        values_[row * models.size() + m] = value;
      }
    }
    rows_of_.resize(split.names.size());
    for (size_t row = 0; row < rows; ++row) {
      rows_of_[static_cast<size_t>(labels_[row])].push_back(row);
    }
  }

  /// Means and standard errors a category, of all its rows or of as many drawn from them.
  void fill(ModelMapProblem& problem, Random* draw = nullptr) const {
    problem.loss.clear();
    problem.error.clear();
    for (const std::vector<size_t>& all : rows_of_) {
      std::vector<size_t> rows = all;
      if (draw != nullptr) {
        for (size_t& row : rows) row = all[draw->below(all.size())];
      }
      for (int64_t m = 0; m < models_; ++m) add_cell(rows, m, problem);
    }
  }

 private:
  void add_cell(const std::vector<size_t>& rows, int64_t m, ModelMapProblem& problem) const {
    const auto n = static_cast<double>(rows.size());
    double sum = 0, squares = 0;
    for (const size_t row : rows) sum += at(row, m);
    const double mean = sum / n;
    for (const size_t row : rows) squares += (at(row, m) - mean) * (at(row, m) - mean);
    problem.loss.push_back(mean);
    problem.error.push_back(n > 1 ? std::sqrt(squares / (n - 1) / n) : 0);
  }
  double at(size_t row, int64_t m) const {
    return values_[row * static_cast<size_t>(models_) + static_cast<size_t>(m)];
  }

  const std::vector<int64_t>& labels_;
  int64_t models_;
  std::vector<double> values_;                ///< [rows, M]
  std::vector<std::vector<size_t>> rows_of_;  ///< [C]
};

int64_t index_named(const std::vector<ComposeModel>& models, const std::string& name) {
  std::vector<std::string> names;
  for (const ComposeModel& model : models) names.push_back(model.name);
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) {
    throw UsageError("no model is called '{}'{}", name, did_you_mean(name, names));
  }
  return found - names.begin();
}

/// Before anything is measured: that one model fits, and the general one does.
void check_budget(const ModelMapProblem& problem) {
  const auto& sizes = problem.size;
  const int64_t least = problem.general < 0 ? *std::min_element(sizes.begin(), sizes.end())
                                            : sizes[static_cast<size_t>(problem.general)];
  if (least <= problem.budget) return;
  throw UsageError("a budget of {} holds no {}, {} would", problem.budget,
                   problem.general < 0 ? "model" : "general model", least);
}

/// The model of least mean loss among those within the budget; -1 when none is.
int64_t best_single(const ModelMapProblem& problem) {
  int64_t best = -1;
  double least = std::numeric_limits<double>::infinity();
  for (int64_t m = 0; m < problem.models; ++m) {
    if (problem.size[static_cast<size_t>(m)] > problem.budget) continue;
    double loss = 0;
    for (int64_t c = 0; c < problem.categories; ++c) {
      loss += problem.share[static_cast<size_t>(c)] *
              problem.loss[static_cast<size_t>(c * problem.models + m)];
    }
    if (loss < least) {
      least = loss;
      best = m;
    }
  }
  return best;
}

std::vector<double> stability_of(const LossTable& table, const Composition& composition) {
  std::vector<double> same(composition.map.model.size());
  ModelMapProblem problem = composition.problem;
  for (int i = 0; i < kResamples; ++i) {
    Random draw(1, {static_cast<uint64_t>(i)});
    table.fill(problem, &draw);
    const ModelMap map = best_model_map(problem);
    for (size_t c = 0; c < same.size(); ++c) {
      same[c] += map.model[c] == composition.map.model[c] ? 1.0 / kResamples : 0;
    }
  }
  return same;
}

double accuracy_of(const CategoryRouter& router, const Split& split) {
  int64_t right = 0;
  for (size_t i = 0; i < split.validation_texts.size(); ++i) {
    right += router.route(split.validation_texts[i]).category == split.validation_labels[i];
  }
  return static_cast<double>(right) / static_cast<double>(split.validation_texts.size());
}

}  // namespace

std::vector<LabelledPrompt> parse_labelled_prompts(std::string_view jsonl,
                                                   const std::string& where) {
  std::vector<LabelledPrompt> prompts;
  for (int64_t line = 1; !jsonl.empty(); ++line) {
    const size_t end = std::min(jsonl.find('\n'), jsonl.size());
    const std::string_view text = jsonl.substr(0, end);
    jsonl.remove_prefix(std::min(end + 1, jsonl.size()));
    if (text.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string here = fmt::format("{}:{}", where, line);
    prompts.push_back(prompt_of(parse_json(text, here), here));
  }
  if (prompts.empty()) throw FormatError("{} has no prompts", where);
  return prompts;
}

double answer_bits(const std::shared_ptr<engine::Model>& model, const engine::TextFrame& frame,
                   const LabelledPrompt& prompt, int64_t context) {
  const Tokenizer& tokenizer = model->tokenizer();
  std::vector<TokenId> tokens = frame.encode(tokenizer, prompt.prompt);
  std::vector<TokenId> answer = tokenizer.encode(prompt.answer);
  if (answer.empty() || tokens.empty()) throw UsageError("a prompt or its answer is empty");
  const auto room = static_cast<size_t>(std::max<int64_t>(2, context));
  answer.resize(std::min(answer.size(), room - 1));
  if (tokens.size() + answer.size() > room) {
    tokens.erase(tokens.begin(), tokens.end() - static_cast<int64_t>(room - answer.size()));
  }
  const auto bytes = static_cast<double>(tokenizer.decode(answer).size());
  engine::Session session(model);
  double nats = engine::token_loss(session.feed(tokens), answer.front());
  if (answer.size() > 1) {
    const auto fed = std::span<const TokenId>(answer).first(answer.size() - 1);
    const engine::Model::Slice slice = {&session, fed, engine::Model::Slice::Want::kAll};
    const std::vector<float> logits = model->forward({&slice, 1});
    const auto vocabulary = static_cast<size_t>(model->spec().vocabulary);
    for (size_t i = 1; i < answer.size(); ++i) {
      nats += engine::token_loss(std::span(logits).subspan((i - 1) * vocabulary, vocabulary),
                                 answer[i]);
    }
  }
  return nats * std::numbers::log2e / std::max(bytes, 1.0);
}

Composition compose(const std::vector<LabelledPrompt>& prompts,
                    const std::vector<ComposeModel>& models,
                    const std::function<double(int64_t model, const LabelledPrompt&)>& loss,
                    const ComposeOptions& options) {
  if (models.empty()) throw UsageError("an ensemble of no models");
  const Split s = split(prompts);
  CategoryRouter router(s.train_texts, s.train_labels, options.training);
  router.calibrate(s.validation_texts, s.validation_labels, options.sure_share);
  Composition result{.categories = {std::move(router), s.names},
                     .trained = static_cast<int64_t>(s.train_texts.size()),
                     .validated = static_cast<int64_t>(s.validation.size())};
  result.accuracy = accuracy_of(result.categories.router, s);

  ModelMapProblem& problem = result.problem;
  problem.categories = static_cast<int64_t>(s.names.size());
  problem.models = static_cast<int64_t>(models.size());
  for (const int64_t count : s.counts) {
    problem.share.push_back(static_cast<double>(count) / static_cast<double>(prompts.size()));
  }
  for (const ComposeModel& model : models) problem.size.push_back(model.size);
  problem.budget = options.budget;
  problem.margin = options.margin;
  problem.general = options.general.empty() ? -1 : index_named(models, options.general);
  check_budget(problem);

  const LossTable table(s, models, loss);
  table.fill(problem);
  if (options.general.empty()) problem.general = best_single(problem);
  result.map = best_model_map(problem);
  result.general = problem.general;
  result.stability = stability_of(table, result);
  return result;
}

}  // namespace cadre::ensemble
