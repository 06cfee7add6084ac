#include "cadre/reshape/merge_methods.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>

#include "cadre/base/error.h"
#include "cadre/base/text.h"
#include "cadre/formats/json.h"
#include "cadre/reshape/copy.h"
#include "cadre/reshape/mix_kernels.h"
#include "cadre/reshape/span_kernel.h"
#include "cadre/reshape/task_arithmetic.h"

namespace cadre::reshape {
namespace {

using nlohmann::json;

double number(const MergeTensor& tensor, const std::string& name) {
  const json value = tensor.parameter(name);
  if (value.is_boolean()) return value.get<bool>() ? 1 : 0;
  if (!value.is_number())
    throw UsageError("{}: parameter \"{}\" must be a number", tensor.where, name);
  return value.get<double>();
}

bool flag(const MergeTensor& tensor, const std::string& name) { return number(tensor, name) != 0; }

double number(const MergeTensor& tensor, const std::string& name, size_t model) {
  const json value = tensor.model_parameter(name, model);
  if (!value.is_number())
    throw UsageError("{}: parameter \"{}\" must be a number", tensor.where, name);
  return value.get<double>();
}

std::vector<double> weights_of(const MergeTensor& tensor) {
  std::vector<double> weights;
  for (size_t i = 0; i < tensor.models.size(); ++i) weights.push_back(number(tensor, "weight", i));
  return weights;
}

Step step_of(const MergeTensor& tensor, std::shared_ptr<TileKernel> kernel,
             int64_t scratch_bytes = 0) {
  Step step = {.out = {tensor.out},
               .in = tensor.models,
               .kernel = std::move(kernel),
               .scratch_bytes = scratch_bytes};
  step.in.insert(step.in.end(), tensor.fisher.begin(), tensor.fisher.end());
  if (tensor.has_base) step.in.push_back(tensor.base);
  return step;
}

Step linear(const MergeTensor& tensor) {
  const bool normalize = flag(tensor, "normalize");
  const std::vector<double> weights = weights_of(tensor);
  double sum = 0;
  for (const double weight : weights) sum += weight;
  if (normalize && std::abs(sum) < 1e-12)
    throw UsageError("{}: the weights of {} sum to zero; set normalize to false", tensor.where,
                     quote(tensor.out.name));
  return step_of(tensor,
                 linear_kernel(weights, normalize ? Weights::kNormalized : Weights::kAsGiven));
}

Step fisher(const MergeTensor& tensor) {
  if (tensor.fisher.size() != tensor.models.size())
    throw UsageError("{}: method fisher needs key \"fisher\" of every model", tensor.where);
  return step_of(tensor, fisher_kernel(weights_of(tensor)));
}

/// scale (one number) times the only input.
Step passthrough(const MergeTensor& tensor) {
  const double scale = number(tensor, "scale");
  if (scale != 1) return step_of(tensor, linear_kernel({scale}, Weights::kAsGiven));
  if (tensor.out.dtype != tensor.widest) return step_of(tensor, cast_kernel());
  return {.out = {tensor.out}, .in = tensor.models, .kernel = CopyKernel{}};
}

SpanOptions span_of(const MergeTensor& tensor, Coefficients coefficients) {
  return {.coefficients = std::move(coefficients),
          .base = tensor.has_base ? SpanBase::kLast : SpanBase::kNone,
          .columns = tensor.out.shape.size() < 2 ? elements_of(tensor.out.shape)
                                                 : columns_of(tensor.out.shape)};
}

/// The base is one end of the arc, not the origin.
Step slerp(const MergeTensor& tensor) {
  MergeTensor pair = tensor;
  if (pair.has_base) pair.models.insert(pair.models.begin(), pair.base);
  pair.has_base = false;
  return step_of(pair, span_kernel(span_of(pair, slerp_coefficients(number(tensor, "t")))));
}

Step nuslerp(const MergeTensor& tensor) {
  const std::vector<double> weights = weights_of(tensor);
  const double sum = weights[0] + weights[1];
  const double t = std::abs(sum) < 1e-6 ? 0.5 : weights[1] / sum;
  SpanOptions options = span_of(tensor, nuslerp_coefficients(t));
  if (!flag(tensor, "nuslerp_flatten")) {
    if (flag(tensor, "nuslerp_row_wise"))
      throw UsageError("{}: nuslerp_row_wise is not supported; leave it out for rows of the matrix",
                       tensor.where);
    options.scope = SpanScope::kRow;
  }
  return step_of(tensor, span_kernel(std::move(options)));
}

Step multislerp(const MergeTensor& tensor) {
  std::vector<double> weights = weights_of(tensor);
  if (!flag(tensor, "normalize_weights"))
    throw UsageError("{}: multislerp without normalize_weights is not supported", tensor.where);
  return step_of(tensor, span_kernel(span_of(tensor, multislerp_coefficients(weights))));
}

Step karcher(const MergeTensor& tensor) {
  std::vector<double> weights(tensor.models.size(), 1.0);
  const auto rounds = static_cast<int64_t>(number(tensor, "max_iter"));
  return step_of(
      tensor,
      span_kernel(span_of(tensor, karcher_coefficients(weights, rounds, number(tensor, "tol")))));
}

Step model_stock(const MergeTensor& tensor) {
  SpanOptions options = span_of(tensor, model_stock_coefficients());
  if (flag(tensor, "filter_wise")) options.scope = SpanScope::kRow;
  return step_of(tensor, span_kernel(std::move(options)));
}

Step nearswap(const MergeTensor& tensor) {
  const double t = number(tensor, "t");
  if (!(t > 0)) throw UsageError("{}: nearswap's t {} must be positive", tensor.where, t);
  return step_of(tensor, nearswap_kernel(t));
}

Step ram(const MergeTensor& tensor) {
  return step_of(tensor, ram_kernel(static_cast<int64_t>(tensor.models.size()),
                                    {.epsilon = number(tensor, "epsilon")}));
}

Step ramplus(const MergeTensor& tensor) {
  return step_of(tensor, ram_kernel(static_cast<int64_t>(tensor.models.size()),
                                    {.epsilon = number(tensor, "epsilon"),
                                     .r = number(tensor, "r"),
                                     .alpha = number(tensor, "alpha")}));
}

Step sce(const MergeTensor& tensor) {
  return step_of(tensor, sce_kernel(static_cast<int64_t>(tensor.models.size()),
                                    number(tensor, "select_topk")));
}

Step fusion(const MergeTensor& tensor) { return step_of(tensor, fusion_kernel(tensor.out.shape)); }

template <Sparsify sparsify, Consensus consensus>
Step task_vectors(const MergeTensor& tensor) {
  TaskArithmeticOptions options = {
      .sparsify = sparsify,
      .consensus = consensus,
      .weights = flag(tensor, "normalize") ? Weights::kNormalized : Weights::kAsGiven,
      .lambda = number(tensor, "lambda"),
      .seed = XXH3_64bits_withSeed(tensor.out.name.data(), tensor.out.name.size(),
                                   static_cast<uint64_t>(number(tensor, "seed"))),
      .shape = tensor.out.shape};
  if (flag(tensor, "rescale")) {
    const json norm = tensor.parameter("rescale_norm");
    if (!norm.is_string())
      throw UsageError("{}: parameter \"rescale_norm\" must be a text", tensor.where);
    options.rescale = rescale_named(norm.get<std::string>());
  }
  for (size_t i = 0; i < tensor.models.size(); ++i) {
    TaskVector vector = {.weight = number(tensor, "weight", i),
                         .density = number(tensor, "density", i)};
    if (sparsify == Sparsify::kOutliers) vector.gamma = number(tensor, "gamma", i);
    if (sparsify == Sparsify::kDella) vector.epsilon = number(tensor, "epsilon", i);
    options.models.push_back(vector);
  }
  const int64_t scratch = task_arithmetic_scratch(options);
  return step_of(tensor, task_arithmetic_kernel(std::move(options)), scratch);
}

std::vector<MergeParameter> task_parameters(bool normalize, bool rescale,
                                            std::vector<MergeParameter> more = {}) {
  std::vector<MergeParameter> all = {
      {"weight", nullptr},    {"density", 1.0}, {"normalize", normalize}, {"rescale", rescale},
      {"rescale_norm", "l1"}, {"lambda", 1.0},  {"int8_mask", false},     {"seed", 0}};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

std::vector<MergeMethod> make_methods() {
  constexpr int kMany = 1000;
  using S = Sparsify;
  using C = Consensus;
  const MergeBase none = MergeBase::kNone, optional = MergeBase::kOptional,
                  required = MergeBase::kRequired;
  const std::vector<MergeParameter> outliers = {{"gamma", 0.01}}, della = {{"epsilon", 0.15}};
  return {
      {"linear",
       "Weighted average",
       none,
       1,
       kMany,
       {{"weight", nullptr}, {"normalize", true}},
       linear},
      {"passthrough",
       "Layers of one model or of several, stacked",
       none,
       1,
       1,
       {{"scale", 1.0}},
       passthrough},
      {"slerp", "Along the arc between two models", optional, 1, 2, {{"t", nullptr}}, slerp},
      {"nuslerp",
       "Along the arc, with weights; about the base when given",
       optional,
       2,
       2,
       {{"weight", nullptr}, {"nuslerp_flatten", true}, {"nuslerp_row_wise", false}},
       nuslerp},
      {"multislerp",
       "Weighted mean of many models on the sphere",
       optional,
       1,
       kMany,
       {{"weight", nullptr}, {"normalize_weights", true}},
       multislerp},
      {"karcher",
       "Karcher mean on the sphere",
       none,
       1,
       kMany,
       {{"max_iter", 10}, {"tol", 1e-5}},
       karcher},
      {"task_arithmetic", "Sum of weighted task vectors", required, 1, kMany,
       task_parameters(false, false), task_vectors<S::kNone, C::kNone>},
      {"ties", "Largest changes, majority sign", required, 1, kMany, task_parameters(true, false),
       task_vectors<S::kMagnitude, C::kSum>},
      {"dare_linear", "Random changes, scaled up", required, 1, kMany, task_parameters(false, true),
       task_vectors<S::kRandom, C::kNone>},
      {"dare_ties", "Random changes, scaled up, majority sign", required, 1, kMany,
       task_parameters(false, true), task_vectors<S::kRandom, C::kSum>},
      {"della", "Random changes, the larger the likelier, majority sign", required, 1, kMany,
       task_parameters(true, true, della), task_vectors<S::kDella, C::kSum>},
      {"della_linear", "Random changes, the larger the likelier", required, 1, kMany,
       task_parameters(false, true, della), task_vectors<S::kDella, C::kNone>},
      {"breadcrumbs", "Largest changes but the outliers", required, 1, kMany,
       task_parameters(false, false, outliers), task_vectors<S::kOutliers, C::kNone>},
      {"breadcrumbs_ties", "Largest changes but the outliers, majority sign", required, 1, kMany,
       task_parameters(false, false, outliers), task_vectors<S::kOutliers, C::kSum>},
      {"sce",
       "Places where models differ most, weighed by change",
       required,
       1,
       kMany,
       {{"select_topk", 1.0}, {"int8_mask", false}},
       sce},
      {"ram",
       "Shared changes averaged, own ones kept",
       required,
       1,
       kMany,
       {{"epsilon", 1e-5}},
       ram},
      {"ramplus_tl",
       "Shared changes averaged, own ones strengthened",
       required,
       1,
       kMany,
       {{"epsilon", 1e-5}, {"r", 0.1}, {"alpha", 0.2}},
       ramplus},
      {"model_stock",
       "Towards the mean as far as the models agree",
       required,
       2,
       kMany,
       {{"filter_wise", false}},
       model_stock},
      {"nearswap",
       "The other's values where they are near",
       required,
       1,
       1,
       {{"t", nullptr}},
       nearswap},
      {"arcee_fusion", "The other's values where they matter", required, 1, 1, {}, fusion},
      {"fisher",
       "Average by per-parameter Fisher information",
       none,
       1,
       kMany,
       {{"weight", 1.0}},
       fisher},
  };
}

}  // namespace

std::vector<std::string> MergeMethod::parameter_names() const {
  std::vector<std::string> names;
  for (const MergeParameter& parameter : parameters) names.emplace_back(parameter.name);
  return names;
}

const MergeParameter& MergeMethod::parameter(const std::string& wanted) const {
  for (const MergeParameter& parameter : parameters)
    if (parameter.name == wanted) return parameter;
  throw Error("merge method {} has no parameter {}", name, wanted);
}

std::span<const MergeMethod> merge_methods() {
  static const std::vector<MergeMethod> methods = make_methods();
  return methods;
}

const MergeMethod& merge_method_named(std::string_view name) {
  std::vector<std::string> names;
  for (const MergeMethod& method : merge_methods()) {
    if (method.name == name) return method;
    names.emplace_back(method.name);
  }
  throw UsageError("unknown merge method '{}'{} (known: {})", name, did_you_mean(name, names),
                   fmt::join(names, ", "));
}

}  // namespace cadre::reshape
