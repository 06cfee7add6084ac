#include "cadre/routing/affinity.h"

#include <cmath>

#include "cadre/base/error.h"
#include "cadre/kernels/top_k.h"
#include "cadre/nn/linear.h"

namespace cadre {

torch::Tensor affinity(const RouteInput& input, const torch::Tensor& weight) {
  check_router_input(input, weight.size(1));
  auto logits = cadre::linear(input.hidden.to(torch::kFloat32), weight);
  check_finite_logits(logits, input.layer);
  return logits;
}

void check_finite_logits(const torch::Tensor& logits, int64_t layer) {
  // One pass instead of isfinite().all()'s three: a sum is finite only when every term is.
  if (std::isfinite(logits.detach().sum().item<float>())) return;
  throw Error(
      "router of layer {}: logits are not finite; lower the learning rate or check the data",
      layer);
}

void check_router_input(const RouteInput& input, int64_t width) {
  if (input.hidden.dim() == 2 && input.hidden.size(1) == width) return;
  throw UsageError("router of layer {}: hidden states must be [tokens, {}]", input.layer, width);
}

void check_router_sizes(int64_t hidden, int64_t experts) {
  if (hidden < 1) throw UsageError("router: hidden width is {}, must be at least 1", hidden);
  if (experts < 1) throw UsageError("router: {} experts, there must be at least 1", experts);
}

void check_router_k(int64_t k, int64_t experts) {
  if (k >= 1 && k <= experts) return;
  throw UsageError("router: k is {}, must be 1 to {}, the experts", k, experts);
}

void check_capacity_factor(double factor) {
  if (factor > 0 && std::isfinite(factor)) return;
  throw UsageError("router: capacity factor is {}, must be above 0", factor);
}

torch::Tensor initial_gate(int64_t experts, int64_t hidden, double std) {
  return torch::empty({experts, hidden}).normal_(0.0, std);
}

torch::Tensor valid_tokens_of(const RouteInput& input) {
  return input.padding.defined() ? input.padding.logical_not() : torch::Tensor();
}

torch::Tensor row_top_k(const torch::Tensor& scores, int64_t k) {
  const auto dense = scores.detach().to(torch::kFloat32).contiguous();
  auto ids = torch::empty({dense.size(0), k}, torch::kInt32);
  kernels::top_k(dense.data_ptr<float>(), dense.size(0), dense.size(1), k, ids.data_ptr<int32_t>(),
                 nullptr);
  return ids;
}

}  // namespace cadre
