#pragma once

/// Which model of an ensemble answers a prompt: Jain et al., "Composition of Experts: A Modular
/// Compound AI System Leveraging Large Language Models" (2024). The prompt is classified, the
/// category looked up; what the classifier is not sure about goes to the general model.

#include <string>
#include <string_view>
#include <vector>

#include "cadre/ensemble/category_router_file.h"
#include "cadre/ensemble/ensemble_file.h"

namespace cadre::ensemble {

struct EnsembleChoice {
  int64_t model = 0;     ///< index into the file's models
  std::string category;  ///< the likeliest one
  double probability = 0;
  double entropy = 0;  ///< nats
  enum class Reason { kCategory, kUnsure } reason = Reason::kCategory;
};

class EnsembleRouter {
 public:
  /// Reads the router. Throws IoError, FormatError, UsageError when the router's categories are not
  /// those of the file (named).
  explicit EnsembleRouter(const EnsembleFile& file);
  EnsembleChoice choose(std::string_view prompt) const;

 private:
  NamedCategories categories_;
  std::vector<int64_t> models_;  ///< [categories]
  int64_t general_;
};

}  // namespace cadre::ensemble
