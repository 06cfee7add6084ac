#include "cadre/objectives/consistency.h"

#include <algorithm>

#include "cadre/base/error.h"
#include "cadre/nn/linear.h"
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

/// CE(y, p1) + CE(y, p2) and the symmetric divergence.
struct Terms {
  torch::Tensor cross_entropies, divergence;
};

Terms terms_of(const torch::Tensor& logits_a, const torch::Tensor& logits_b,
               const torch::Tensor& targets) {
  const auto counted = targets != kIgnored;
  const auto index = targets.clamp_min(0).unsqueeze(-1);
  const auto log_a = log_probs(logits_a), log_b = log_probs(logits_b);
  const auto right = (log_a + log_b).gather(-1, index).squeeze(-1);
  return {mean_of(-right, counted), mean_of(divergence(log_a, log_b), counted)};
}

void check_hidden(const torch::Tensor& hidden_a, const torch::Tensor& hidden_b,
                  const torch::Tensor& weight, const torch::Tensor& targets, int64_t chunk) {
  const bool fits = hidden_a.dim() >= 1 && hidden_a.sizes() == hidden_b.sizes() &&
                    weight.dim() == 2 && hidden_a.size(-1) == weight.size(1) &&
                    targets.sizes() == hidden_a.sizes().slice(0, hidden_a.dim() - 1);
  if (!fits) {
    throw UsageError(
        "consistency: hidden {} and {}, weight {}, targets {} do not fit; expected twice [..., D], "
        "[V, D] and [...]",
        describe(hidden_a), describe(hidden_b), describe(weight), describe(targets));
  }
  if (chunk < 1) throw UsageError("consistency: a chunk needs at least one token, got {}", chunk);
}

/// What a call says and learns beside its tensors.
struct Chunks {
  torch::Tensor targets;  ///< [T]
  Consistency options;
  int64_t chunk = 0;
  double cross_entropies = 0, divergence = 0;
};

/// The gradients are made in forward, for a loss gradient of 1.
struct ConsistencyFunction : torch::autograd::Function<ConsistencyFunction> {
  static torch::Tensor forward(torch::autograd::AutogradContext* context,
                               const torch::Tensor& hidden_a, const torch::Tensor& hidden_b,
                               const torch::Tensor& weight, Chunks* chunks) {
    const torch::AutoGradMode with_gradient(true);
    const auto leaf = [](const torch::Tensor& x) { return x.detach().requires_grad_(); };
    const auto head = leaf(weight);
    const auto da = torch::zeros_like(hidden_a), db = torch::zeros_like(hidden_b);
    const auto counted = (chunks->targets != kIgnored).sum().clamp_min(1).item<double>();
    double total = 0;
    for (int64_t begin = 0; begin < hidden_a.size(0); begin += chunks->chunk) {
      const int64_t rows = std::min(chunks->chunk, hidden_a.size(0) - begin);
      const auto a = leaf(hidden_a.narrow(0, begin, rows)),
                 b = leaf(hidden_b.narrow(0, begin, rows));
      const auto targets = chunks->targets.narrow(0, begin, rows);
      // Means over the chunk, as a share of the mean over all.
      const double share = (targets != kIgnored).sum().item<double>() / counted;
      const Terms terms = terms_of(cadre::linear(a, head), cadre::linear(b, head), targets);
      const auto loss =
          (terms.cross_entropies + chunks->options.coefficient * terms.divergence) * share;
      loss.backward();
      da.narrow(0, begin, rows).copy_(a.grad());
      db.narrow(0, begin, rows).copy_(b.grad());
      total += loss.item<double>();
      chunks->cross_entropies += share * terms.cross_entropies.item<double>();
      chunks->divergence += share * terms.divergence.item<double>();
    }
    context->save_for_backward(
        {da, db, head.grad().defined() ? head.grad() : torch::zeros_like(weight)});
    return torch::full({}, total, hidden_a.options().requires_grad(false));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    auto results = context->get_saved_variables();
    for (torch::Tensor& result : results) result = result * grads[0];
    results.emplace_back();
    return results;
  }
};

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
  const Terms terms = terms_of(logits_a, logits_b, targets);
  return terms.cross_entropies + options.coefficient * terms.divergence;
}

ConsistencyParts chunked_consistency(const torch::Tensor& hidden_a, const torch::Tensor& hidden_b,
                                     const torch::Tensor& weight, const torch::Tensor& targets,
                                     const Consistency& options, int64_t chunk) {
  check_hidden(hidden_a, hidden_b, weight, targets, chunk);
  const int64_t width = weight.size(1);
  Chunks chunks = {.targets = targets.reshape(-1), .options = options, .chunk = chunk};
  ConsistencyParts parts;
  parts.total = ConsistencyFunction::apply(hidden_a.reshape({-1, width}),
                                           hidden_b.reshape({-1, width}), weight, &chunks);
  parts.cross_entropy = chunks.cross_entropies / 2;
  parts.divergence = chunks.divergence;
  return parts;
}

}  // namespace cadre
