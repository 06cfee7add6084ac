#include "cadre/objectives/consistency.h"

#include "cadre/base/error.h"
#include "cadre/nn/tensor_check.h"

namespace cadre {
namespace {

constexpr int64_t kIgnored = -100;

torch::Tensor log_probs(const torch::Tensor& logits) {
  return torch::log_softmax(logits.to(torch::kFloat32), -1);
}

/// Mean over the rows that count; 0 when none does.
torch::Tensor mean_of(const torch::Tensor& rows, const torch::Tensor& counted) {
  if (!counted.defined()) return rows.numel() ? rows.mean() : rows.sum();
  const auto mask = counted.to(torch::kFloat32);
  return (rows * mask).sum() / mask.sum().clamp_min(1);
}

torch::Tensor divergence(const torch::Tensor& log_a, const torch::Tensor& log_b) {
  return ((log_a.exp() - log_b.exp()) * (log_a - log_b)).sum(-1) / 2;
}

}  // namespace

torch::Tensor symmetric_kl(const torch::Tensor& logits_a, const torch::Tensor& logits_b,
                           const torch::Tensor& counted) {
  if (logits_a.dim() < 1 || logits_a.sizes() != logits_b.sizes()) {
    throw UsageError("consistency: logits {} and {} must be alike", describe(logits_a),
                     describe(logits_b));
  }
  if (counted.defined() && counted.sizes() != logits_a.sizes().slice(0, logits_a.dim() - 1)) {
    throw UsageError("consistency: a mask {} does not fit logits {}", describe(counted),
                     describe(logits_a));
  }
  return mean_of(divergence(log_probs(logits_a), log_probs(logits_b)), counted);
}

torch::Tensor consistency_loss(const torch::Tensor& logits_a, const torch::Tensor& logits_b,
                               const torch::Tensor& targets, const Consistency& options) {
  const auto counted = targets != kIgnored;
  auto loss = options.coefficient * symmetric_kl(logits_a, logits_b, counted);
  const auto index = targets.clamp_min(0).unsqueeze(-1);
  for (const auto& logits : {logits_a, logits_b}) {
    loss = loss + mean_of(-log_probs(logits).gather(-1, index).squeeze(-1), counted);
  }
  return loss;
}

}  // namespace cadre
