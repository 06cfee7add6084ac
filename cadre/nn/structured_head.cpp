#include "cadre/nn/structured_head.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "cadre/base/error.h"
#include "cadre/nn/linear.h"

namespace cadre {
namespace {

/// He et al. (2015): activations keep their size through ReLU layers. Where logits are normalised,
/// smaller ones would drown in the outputs' bias.
torch::Tensor he_normal(int64_t out, int64_t in) {
  return torch::randn({out, in}) * std::sqrt(2.0 / static_cast<double>(in));
}

void check(const StructuredHeadOptions& options) {
  const auto& classes = options.classes;
  const bool sizes = options.in >= 1 && options.hidden >= 1 && !classes.empty() &&
                     *std::min_element(classes.begin(), classes.end()) >= 1;
  if (!sizes) throw UsageError("structured head: every size must be at least 1");
  if (options.shared < 0 || options.shared > options.hidden) {
    throw UsageError("structured head: {} shared units of {}", options.shared, options.hidden);
  }
}

}  // namespace

StructuredHeadImpl::StructuredHeadImpl(const StructuredHeadOptions& options) : options_(options) {
  check(options);
  const auto verticals = static_cast<int64_t>(options.classes.size());
  const int64_t units = options.shared + verticals * (options.hidden - options.shared);
  hidden_weight = register_parameter("hidden_weight", he_normal(units, options.in));
  hidden_bias = register_parameter("hidden_bias", torch::zeros({units}));
  for (size_t v = 0; v < options.classes.size(); ++v) {
    const int64_t count = options.classes[v];
    const std::string number = std::to_string(v);
    out_weight.push_back(
        register_parameter("out_weight_" + number, he_normal(count, options.hidden)));
    out_bias.push_back(
        register_parameter("out_bias_" + number, torch::full({count}, options.bias)));
  }
}

torch::Tensor StructuredHeadImpl::forward(const torch::Tensor& x) {
  const int64_t shared = options_.shared, own = options_.hidden - shared;
  const auto hidden = torch::relu(linear(x, hidden_weight, hidden_bias));
  std::vector<torch::Tensor> logits;
  for (size_t v = 0; v < out_weight.size(); ++v) {
    const int64_t first = shared + static_cast<int64_t>(v) * own;
    const auto seen = torch::cat({hidden.narrow(1, 0, shared), hidden.narrow(1, first, own)}, 1);
    logits.push_back(linear(seen, out_weight[v], out_bias[v]));
  }
  return torch::cat(logits, 1);
}

}  // namespace cadre
