#include "cadre/objectives/balance_forms.h"

#include <algorithm>

namespace cadre {
namespace {

using torch::Tensor;

/// Q_i = mean_t probs[t, i] over valid tokens, differentiable.
Tensor mean_probs(const Routing& routing) {
  auto probs = routing.probs;
  if (routing.valid.defined()) probs = probs * routing.valid.unsqueeze(1);
  const int64_t valid = routing.valid_tokens();
  return probs.sum(0) / static_cast<double>(std::max<int64_t>(valid, 1));
}

/// Pairs by expert whose place in their row is 0.
Tensor first_choices(const Routing& routing) {
  auto counts = torch::zeros({routing.experts});
  const int64_t* offset = routing.offsets.data_ptr<int64_t>();
  for (int64_t t = 0; t < routing.tokens(); ++t) {
    if (offset[t] == offset[t + 1]) continue;
    counts.data_ptr<float>()[routing.expert.data_ptr<int32_t>()[offset[t]]] += 1;
  }
  return counts;
}

Tensor zero() { return torch::zeros({}); }

}  // namespace

Tensor balance_per_token(const Routing& routing) {
  if (!routing.probs.defined()) return zero();
  const auto valid = static_cast<double>(std::max<int64_t>(routing.valid_tokens(), 1));
  const double mean_k = static_cast<double>(routing.pairs()) / valid;
  return expert_balance(routing, {}) * mean_k;
}

Tensor balance_pooled_nulls(const Routing& routing) {
  if (!routing.probs.defined()) return zero();
  const int64_t all = routing.probs.size(1), nulls = all - routing.experts;
  const auto slots = static_cast<double>(std::max<int64_t>(routing.pairs() + routing.null, 1));
  const double pooled =
      nulls > 0 ? static_cast<double>(routing.null) / (slots * static_cast<double>(nulls)) : 0;
  const auto f =
      torch::cat({routing.load().to(torch::kFloat32) / slots, torch::full({nulls}, pooled)});
  return torch::dot(f, mean_probs(routing)) * all;
}

Tensor balance_gshard(const Routing& routing) {
  if (!routing.probs.defined()) return zero();
  const int64_t valid = std::max<int64_t>(routing.valid_tokens(), 1);
  const auto first = first_choices(routing) / static_cast<double>(valid);
  return torch::dot(first, mean_probs(routing).narrow(0, 0, routing.experts)) * routing.experts;
}

std::optional<RoutingObjective> balance_of(BalanceForm form, double coefficient,
                                           BalanceScope scope) {
  switch (form) {
    case BalanceForm::kNone:
      return std::nullopt;
    case BalanceForm::kShare:
      return balance_expert(coefficient, scope);
    case BalanceForm::kPerToken:
      return RoutingObjective{
          "balance", coefficient,
          [](const Routing& routing, const RouteInput&) { return balance_per_token(routing); }};
    case BalanceForm::kPooledNulls:
      return RoutingObjective{
          "balance", coefficient,
          [](const Routing& routing, const RouteInput&) { return balance_pooled_nulls(routing); }};
  }
  return std::nullopt;
}

}  // namespace cadre
