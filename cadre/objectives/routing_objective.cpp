#include "cadre/objectives/routing_objective.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/kernels/elementwise.h"

namespace cadre {
namespace {

constexpr int64_t kTokenGrain = 512;

/// The load f of each token's scope and the token's share in the mean; no gradient in either.
struct Load {
  torch::Tensor f;      ///< [scopes, E], float32
  torch::Tensor scope;  ///< [T] int64
  torch::Tensor share;  ///< [T] float32: 1 / (scopes * valid tokens of the scope), 0 for padding
};

/// sum_t share_t * <f[scope_t], p_t> / sum p_t, the common form of all balance terms, in one pass
/// over probs each way (autograd's product, sums and quotient would make eight).
class MeanLoad : public torch::autograd::Function<MeanLoad> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* ctx, const torch::Tensor& probs,
                               const torch::Tensor& f, const torch::Tensor& scope,
                               const torch::Tensor& share) {
    const int64_t tokens = scope.size(0), n = probs.size(1), experts = f.size(1);
    auto values = torch::empty({2, tokens}, share.options());
    const float* p = probs.data_ptr<float>();
    float* value = values.data_ptr<float>();
    float* sum = value + tokens;
    parallel_for(tokens, kTokenGrain, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const float* load = f.data_ptr<float>() + scope.data_ptr<int64_t>()[t] * experts;
        const float* row = p + t * n;
        sum[t] = std::accumulate(row, row + experts, 0.0F);
        value[t] = sum[t] > 0 ? std::inner_product(row, row + experts, load, 0.0F) / sum[t] : 0;
      }
    });
    ctx->save_for_backward({f, scope, share, values});
    ctx->saved_data["columns"] = n;
    return torch::dot(values[0], share);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto &f = saved[0], &scope = saved[1], &share = saved[2], &values = saved[3];
    const int64_t tokens = scope.size(0), experts = f.size(1);
    const int64_t n = ctx->saved_data["columns"].toInt();
    const auto grad = grads[0].item<float>();
    auto dprobs = n == experts ? torch::empty({tokens, n}, share.options())
                               : torch::zeros({tokens, n}, share.options());
    const float* value = values.data_ptr<float>();
    const float* sum = value + tokens;
    float* dp = dprobs.data_ptr<float>();
    parallel_for(tokens, kTokenGrain, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const float* load = f.data_ptr<float>() + scope.data_ptr<int64_t>()[t] * experts;
        const float factor = sum[t] > 0 ? grad * share.data_ptr<float>()[t] / sum[t] : 0;
        for (int64_t e = 0; e < experts; ++e) dp[t * n + e] = factor * (load[e] - value[t]);
      }
    });
    return {dprobs, {}, {}, {}};
  }
};

/// Mean over valid tokens of logsumexp squared. d/dl = 2 lse / T * softmax(l).
class SquaredLogSumExp : public torch::autograd::Function<SquaredLogSumExp> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* ctx, const torch::Tensor& logits,
                               const torch::Tensor& share) {
    auto lse = torch::empty({logits.size(0)}, share.options());
    kernels::logsumexp_rows(logits.data_ptr<float>(), logits.size(0), logits.size(1),
                            lse.data_ptr<float>());
    ctx->save_for_backward({logits, lse, share});
    return torch::dot(lse.square(), share);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto &logits = saved[0], &lse = saved[1], &share = saved[2];
    auto dlogits = torch::empty(logits.sizes(), share.options());
    kernels::softmax_rows(logits.data_ptr<float>(), logits.size(0), logits.size(1),
                          dlogits.data_ptr<float>());
    dlogits.mul_((lse * share * (grads[0] * 2)).unsqueeze(1));
    return {dlogits, {}};
  }
};

/// The scope of every token as rows 0, 1, 2, ... of a table.
std::vector<int64_t> scopes_of(const Routing& routing, const torch::Tensor& sequence) {
  std::vector<int64_t> scope(routing.tokens(), 0);
  if (!sequence.defined()) return scope;
  if (sequence.dim() != 1 || sequence.size(0) != routing.tokens()) {
    throw UsageError("balance: sequence ids must be [{}], one for each token", routing.tokens());
  }
  const auto dense =
      std::get<1>(torch::_unique(sequence, /*sorted=*/true, /*return_inverse=*/true));
  const int64_t* id = dense.data_ptr<int64_t>();
  return {id, id + routing.tokens()};
}

Load load_of(const Routing& routing, const torch::Tensor& sequence) {
  const int64_t tokens = routing.tokens(), experts = routing.experts;
  const auto scope = scopes_of(routing, sequence);
  const int64_t scopes = tokens > 0 ? *std::max_element(scope.begin(), scope.end()) + 1 : 1;
  const bool* valid = routing.valid.defined() ? routing.valid.data_ptr<bool>() : nullptr;
  const int64_t* offset = routing.offsets.data_ptr<int64_t>();
  const int32_t* expert = routing.expert.data_ptr<int32_t>();
  Load load{.f = torch::zeros({scopes, experts}),
            .scope = torch::tensor(scope, torch::kInt64),
            .share = torch::zeros({tokens})};
  float* f = load.f.data_ptr<float>();
  std::vector<int64_t> members(scopes, 0);
  for (int64_t t = 0; t < tokens; ++t) {
    members[scope[t]] += !valid || valid[t];
    for (int64_t p = offset[t]; p < offset[t + 1]; ++p) ++f[scope[t] * experts + expert[p]];
  }
  const auto alive = scopes - std::count(members.begin(), members.end(), 0);
  for (int64_t t = 0; t < tokens; ++t) {
    if (valid && !valid[t]) continue;
    load.share.data_ptr<float>()[t] = 1.0F / static_cast<float>(alive * members[scope[t]]);
  }
  const auto pairs = load.f.sum(1, /*keepdim=*/true).clamp_min(1);
  load.f.mul_(experts).div_(pairs);
  return load;
}

torch::Tensor mean_load(const Routing& routing, const Load& load) {
  return MeanLoad::apply(routing.probs.contiguous(), load.f, load.scope, load.share);
}

}  // namespace

torch::Tensor expert_balance(const Routing& routing, const RouteInput& input, BalanceScope scope) {
  if (!routing.probs.defined()) return torch::zeros({});
  const bool per_sequence = scope == BalanceScope::kSequence;
  return mean_load(routing, load_of(routing, per_sequence ? input.sequence : torch::Tensor()));
}

torch::Tensor device_balance(const Routing& routing, int64_t groups) {
  if (groups < 1 || routing.experts % groups != 0) {
    throw UsageError("device balance: {} experts do not divide into {} groups", routing.experts,
                     groups);
  }
  if (!routing.probs.defined()) return torch::zeros({});
  Load load = load_of(routing, {});
  const int64_t size = routing.experts / groups;
  load.f = load.f.view({groups, size}).mean(1).repeat_interleave(size).unsqueeze(0);
  return mean_load(routing, load);
}

torch::Tensor router_z_loss(const Routing& routing) {
  if (!routing.logits.defined()) return torch::zeros({});
  const int64_t tokens = routing.tokens(), valid = routing.valid_tokens();
  auto share = routing.valid.defined() ? routing.valid.to(torch::kFloat32) : torch::ones({tokens});
  share = share / std::max<int64_t>(valid, 1);
  return SquaredLogSumExp::apply(routing.logits.contiguous(), share);
}

RoutingObjective balance_expert(double coefficient, BalanceScope scope) {
  return {"balance", coefficient, [scope](const Routing& routing, const RouteInput& input) {
            return expert_balance(routing, input, scope);
          }};
}

RoutingObjective balance_device(double coefficient, int64_t groups) {
  return {"device_balance", coefficient, [groups](const Routing& routing, const RouteInput&) {
            return device_balance(routing, groups);
          }};
}

RoutingObjective z_loss(double coefficient) {
  return {"z_loss", coefficient,
          [](const Routing& routing, const RouteInput&) { return router_z_loss(routing); }};
}

}  // namespace cadre
