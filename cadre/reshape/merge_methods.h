#pragma once

/// The ways to merge tensors of several models: one row each.

#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cadre/reshape/plan.h"

namespace cadre::reshape {

/// One tensor to be merged, and where its parameters come from.
struct MergeTensor {
  TensorInfo out;
  std::vector<SliceRef> models;  ///< the base left out, unless the method takes it as one of them
  std::vector<SliceRef> fisher;  ///< of method fisher, one a model
  SliceRef base;                 ///< when has_base
  bool has_base = false;
  DType widest = DType::kF32;  ///< among the inputs
  /// A parameter for all models, or that of model i; the method's default when nothing says.
  std::function<nlohmann::json(const std::string& name)> parameter;
  std::function<nlohmann::json(const std::string& name, size_t model)> model_parameter;
  std::string where;  ///< what errors begin with
};

enum class MergeBase {
  kNone,      ///< the base, if any, is a model like the others
  kOptional,  ///< set apart when there is one
  kRequired,
};

struct MergeParameter {
  const char* name;
  nlohmann::json fallback;  ///< null = must be given
};

struct MergeMethod {
  const char* name;
  const char* help;
  MergeBase base;
  int min_models, max_models;  ///< beside the base
  std::vector<MergeParameter> parameters;
  Step (*step)(const MergeTensor& tensor);

  std::vector<std::string> parameter_names() const;
  const MergeParameter& parameter(const std::string& name) const;
};

std::span<const MergeMethod> merge_methods();
/// Throws UsageError that names the nearest.
const MergeMethod& merge_method_named(std::string_view name);

}  // namespace cadre::reshape
