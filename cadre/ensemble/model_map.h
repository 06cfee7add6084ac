#pragma once

/// Which model answers which category of prompts, within a budget of parameters.
///
/// Jain et al., "Composition of Experts: A Modular Compound AI System Leveraging Large Language
/// Models" (2024), second step: min sum_c w_c L[c, m(c)] subject to the sizes of all models chosen
/// being at most B. Solved exactly, by going through all sets of models: 2^M C M steps.

#include <cstdint>
#include <vector>

namespace cadre::ensemble {

struct ModelMapProblem {
  int64_t categories = 0;      ///< C
  int64_t models = 0;          ///< M, 1 to 20
  std::vector<double> loss;    ///< [C, M] mean loss of a model on a category; NaN = not measured
  std::vector<double> share;   ///< [C] of the prompts; not negative
  std::vector<int64_t> size;   ///< [M] parameters, or any cost of having a model; positive
  int64_t budget = INT64_MAX;  ///< for the sizes of all models chosen
  /// The general model, -1 = none. It is always among those chosen, for prompts whose category is
  /// not sure; and a category goes to another one only when that one's loss is lower by more than
  /// `margin` standard errors of their difference (a departure from the paper, so that tables from
  /// few prompts do not switch on noise).
  int64_t general = -1;
  double margin = 1;
  std::vector<double> error = {};  ///< [C, M] standard errors of `loss`; empty = 0
};

struct ModelMap {
  std::vector<int64_t> model;  ///< [C]
  double loss = 0;             ///< weighted by share
  int64_t size = 0;            ///< of all models chosen
  double active = 0;           ///< mean size of the model that answers, weighted by share
};

/// The best map. Ties go to the smaller total size, within a category to the smaller model, then to
/// the lower index. Throws UsageError for tables that do not fit, and when no set of models within
/// the budget covers every category (says what the cheapest costs).
ModelMap best_model_map(const ModelMapProblem& problem);

}  // namespace cadre::ensemble
