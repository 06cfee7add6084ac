#include "cadre/ensemble/ensemble_router.h"

#include <algorithm>

#include "cadre/base/error.h"
#include "cadre/base/text.h"

namespace cadre::ensemble {

EnsembleRouter::EnsembleRouter(const EnsembleFile& file)
    : categories_(read_category_router(file.router)), general_(file.general) {
  const auto& names = categories_.names;
  for (const std::string& name : names) {
    const auto found = file.categories.find(name);
    if (found == file.categories.end()) {
      throw UsageError("{} knows category '{}', [categories] names no model for it",
                       file.router.string(), name);
    }
    models_.push_back(found->second);
  }
  for (const auto& [name, model] : file.categories) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    throw UsageError("[categories] has '{}', which {} does not know{}", name, file.router.string(),
                     did_you_mean(name, names));
  }
}

EnsembleChoice EnsembleRouter::choose(std::string_view prompt) const {
  using Confidence = CategoryRouter::Answer::Confidence;
  const CategoryRouter::Answer answer = categories_.router.route(prompt);
  const auto category = static_cast<size_t>(answer.category);
  const bool sure = answer.confidence == Confidence::kSure;
  return {.model = sure ? models_[category] : general_,
          .category = categories_.names[category],
          .probability = answer.probability,
          .entropy = answer.entropy,
          .reason = sure ? EnsembleChoice::Reason::kCategory : EnsembleChoice::Reason::kUnsure};
}

}  // namespace cadre::ensemble
