#pragma once

/// Makes an ensemble of models that exist: fits the category router to labelled prompts and the map
/// from categories to models to the models' losses on prompts that the router did not learn from.
///
/// Jain et al., "Composition of Experts: A Modular Compound AI System Leveraging Large Language
/// Models" (2024). Here a model's loss is bits a byte of a prompt's answer, so that models with
/// different tokenizers compare, unless the prompts bring losses of their own (a judge's, say).

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "cadre/engine/session.h"
#include "cadre/engine/text_frame.h"
#include "cadre/ensemble/category_router_file.h"
#include "cadre/ensemble/model_map.h"

namespace cadre::ensemble {

struct LabelledPrompt {
  std::string category, prompt;
  std::string answer;                    ///< empty when `losses` has them all
  std::map<std::string, double> losses;  ///< by the model's name: lower is better
};

/// One JSON object a line: {"category": "code", "prompt": "...", "answer": "..."}, or
/// "losses": {"small": 1.2, ...} in the answer's place. Throws FormatError with the line.
std::vector<LabelledPrompt> parse_labelled_prompts(std::string_view jsonl,
                                                   const std::string& where);

/// Bits a byte of the answer after the prompt; what does not fit the context is left out, the
/// prompt's beginning first. Throws UsageError for an empty answer.
double answer_bits(const std::shared_ptr<engine::Model>& model, const engine::TextFrame& frame,
                   const LabelledPrompt& prompt, int64_t context);

struct ComposeModel {
  std::string name;
  int64_t size = 0;  ///< what having it costs: bytes, parameters
};

struct ComposeOptions {
  int64_t budget = INT64_MAX;  ///< for the sizes of all models chosen
  std::string general;         ///< "" = the one of least mean loss that the budget allows
  double margin = 1;           ///< ModelMapProblem::margin
  double sure_share = 0.95;    ///< CategoryRouter::calibrate
  CategoryTraining training = {};
};

struct Composition {
  NamedCategories categories;
  int64_t general = 0;
  ModelMapProblem problem;  ///< the table of losses and their errors
  ModelMap map;
  double accuracy = 0;  ///< of the router on validation prompts
  int64_t trained = 0, validated = 0;
  std::vector<double> stability;  ///< [C] share of resampled tables that give the same model
};

/// Every third prompt of a category validates: calibrates the router and fills the table; the
/// others train the router. `loss(model, prompt)` is called for validation prompts only, model by
/// model. Throws UsageError: fewer than three prompts of a category or two categories, a general
/// model of no such name, a loss that is not finite, and as best_model_map does.
Composition compose(const std::vector<LabelledPrompt>& prompts,
                    const std::vector<ComposeModel>& models,
                    const std::function<double(int64_t model, const LabelledPrompt&)>& loss,
                    const ComposeOptions& options = {});

}  // namespace cadre::ensemble
