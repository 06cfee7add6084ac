#include "cadre/objectives/prior_approx.h"

#include "cadre/base/error.h"
#include "cadre/nn/tensor_check.h"

namespace cadre {
namespace {

using torch::Tensor;

/// Columns [T, k] of the k largest of each row, the lower first among equals.
Tensor largest(const Tensor& rows, int64_t k) {
  return std::get<1>(rows.detach().sort(/*stable=*/true, /*dim=*/1, /*descending=*/true))
      .narrow(1, 0, k);
}

void check_labels(const Tensor& logits, const Tensor& labels) {
  if (logits.dim() == 2 && labels.sizes() == logits.sizes()) return;
  throw UsageError("prior approximation: logits {} and labels {} must be [tokens, slices] both",
                   describe(logits), describe(labels));
}

}  // namespace

Tensor nearest_slices(const Tensor& dense, const Tensor& slices, int64_t k) {
  const torch::NoGradGuard no_grad;
  const bool fits = dense.dim() == 2 && slices.dim() == 3 && slices[0].sizes() == dense.sizes();
  if (!fits || k < 1 || k > slices.size(0)) {
    throw UsageError("nearest slices: k {} of slices {} for the dense output {} does not fit", k,
                     describe(slices), describe(dense));
  }
  const double share = static_cast<double>(k) / static_cast<double>(slices.size(0));
  const Tensor distance = (slices - dense * share).square().mean(2).t();  // [T, N]
  return torch::zeros_like(distance).scatter_(1, largest(-distance, k), 1.0);
}

Tensor prior_approximation(const Tensor& logits, const Tensor& labels) {
  check_labels(logits, labels);
  constexpr double kLeast = 1e-7;
  const Tensor p = torch::softmax(logits, 1).clamp(kLeast, 1 - kLeast);
  return (p * (p.log() - torch::log_softmax(labels.detach(), 1))).sum(1).mean();
}

double label_agreement(const Tensor& logits, const Tensor& labels) {
  check_labels(logits, labels);
  const auto k = static_cast<int64_t>(labels[0].sum().item<double>());
  return labels.gather(1, largest(logits, k)).mean().item<double>();
}

}  // namespace cadre
