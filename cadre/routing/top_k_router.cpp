#include "cadre/routing/top_k_router.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/kernels/top_k.h"
#include "cadre/nn/linear.h"

namespace cadre {
namespace {

constexpr int64_t kTokenGrain = 512;
/// Keeps the sum of selected sigmoids off zero; far below the smallest score that matters.
constexpr float kTiny = 1e-20F;

void check(int64_t hidden, int64_t experts, const TopK& options) {
  if (hidden < 1) throw UsageError("router: hidden width is {}, must be at least 1", hidden);
  if (experts < 1) throw UsageError("router: {} experts, there must be at least 1", experts);
  if (options.groups < 1 || experts % options.groups != 0) {
    throw UsageError("router: {} experts do not divide into {} groups", experts, options.groups);
  }
  if (options.groups_used < 1 || options.groups_used > options.groups) {
    throw UsageError("router: groups_used is {}, must be 1 to {}", options.groups_used,
                     options.groups);
  }
  if (options.bias_update < 0) {
    throw UsageError("router: bias_update is {}, must not be negative", options.bias_update);
  }
}

void check_k(int64_t k, int64_t experts, const TopK& options) {
  const int64_t reachable = experts / options.groups * options.groups_used;
  if (k >= 1 && k <= reachable) return;
  throw UsageError("router: k is {}, must be 1 to {}, the experts{} it may choose from", k,
                   reachable, options.groups > 1 ? " in the groups" : "");
}

void check_capacity_factor(const std::optional<double>& factor) {
  if (factor && !(*factor > 0 && std::isfinite(*factor))) {
    throw UsageError("router: capacity factor is {}, must be above 0", *factor);
  }
}

/// One pass instead of isfinite().all()'s three: a sum is finite only when every term is.
void check_finite(const torch::Tensor& logits, int64_t layer) {
  if (std::isfinite(logits.detach().sum().item<float>())) return;
  throw Error(
      "router of layer {}: logits are not finite; lower the learning rate or check the data",
      layer);
}

/// w[t, j] = scale * probs[t, ids[t, j]], divided by the row's sum when normalised: one small pass
/// forward and one backward, where gather, sum and divide would make nine.
class SelectedWeights : public torch::autograd::Function<SelectedWeights> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* ctx, const torch::Tensor& probs,
                               const torch::Tensor& ids, bool normalize, double scale) {
    const int64_t tokens = ids.size(0), k = ids.size(1), n = probs.size(1);
    auto weights = torch::empty({tokens, k}, probs.options().requires_grad(false));
    auto factors = torch::empty({tokens}, weights.options());
    const float* p = probs.data_ptr<float>();
    const int32_t* id = ids.data_ptr<int32_t>();
    float* w = weights.data_ptr<float>();
    float* factor = factors.data_ptr<float>();
    parallel_for(tokens, kTokenGrain, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        float sum = 0;
        for (int64_t j = t * k; j < (t + 1) * k; ++j) sum += w[j] = p[t * n + id[j]];
        factor[t] = static_cast<float>(scale) / (normalize ? sum + kTiny : 1.0F);
        for (int64_t j = t * k; j < (t + 1) * k; ++j) w[j] *= factor[t];
      }
    });
    ctx->save_for_backward({ids, weights, factors});
    ctx->saved_data["normalize"] = normalize;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["experts"] = n;
    return weights;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const int64_t tokens = saved[0].size(0), k = saved[0].size(1);
    const int64_t n = ctx->saved_data["experts"].toInt();
    const auto scale = static_cast<float>(ctx->saved_data["scale"].toDouble());
    const bool normalize = ctx->saved_data["normalize"].toBool();
    const auto dweights = grads[0].contiguous();
    auto dprobs = torch::zeros({tokens, n}, dweights.options());
    const int32_t* id = saved[0].data_ptr<int32_t>();
    const float* w = saved[1].data_ptr<float>();
    const float* factor = saved[2].data_ptr<float>();
    const float* dw = dweights.data_ptr<float>();
    float* dp = dprobs.data_ptr<float>();
    parallel_for(tokens, kTokenGrain, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        // d(scale g_j / s): the sum s takes back the mean of the gradients, weighted by g / s.
        float mean = 0;
        for (int64_t j = t * k; normalize && j < (t + 1) * k; ++j) mean += dw[j] * w[j] / scale;
        for (int64_t j = t * k; j < (t + 1) * k; ++j) {
          dp[t * n + id[j]] = factor[t] * (dw[j] - mean);
        }
      }
    });
    return {dprobs, {}, {}, {}};
  }
};

/// scores [T, E] with -inf outside each token's best groups.
torch::Tensor within_best_groups(const torch::Tensor& scores, int64_t groups, int64_t used,
                                 int64_t best_of_group) {
  const int64_t tokens = scores.size(0), size = scores.size(1) / groups;
  best_of_group = std::min(best_of_group, size);
  auto ids = torch::empty({tokens * groups, best_of_group}, torch::kInt32);
  auto values = torch::empty({tokens * groups, best_of_group}, torch::kFloat32);
  kernels::top_k(scores.data_ptr<float>(), tokens * groups, size, best_of_group,
                 ids.data_ptr<int32_t>(), values.data_ptr<float>());
  const auto group_scores = values.sum(1).contiguous();
  auto best = torch::empty({tokens, used}, torch::kInt32);
  kernels::top_k(group_scores.data_ptr<float>(), tokens, groups, used, best.data_ptr<int32_t>(),
                 nullptr);
  auto masked = torch::full_like(scores, -std::numeric_limits<float>::infinity());
  const int32_t* group = best.data_ptr<int32_t>();
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t j = 0; j < used; ++j) {
      const int64_t start = (t * groups + group[t * used + j]) * size;
      std::copy_n(scores.data_ptr<float>() + start, size, masked.data_ptr<float>() + start);
    }
  }
  return masked;
}

}  // namespace

TopKRouter::TopKRouter(int64_t hidden, int64_t experts, const TopK& options)
    : experts_(experts), options_(options) {
  check(hidden, experts, options);
  check_k(options.k, experts, options);
  check_capacity_factor(options.capacity_factor);
  weight =
      register_parameter("weight", torch::empty({experts, hidden}).normal_(0.0, options.init_std));
  if (options.bias_update > 0) {
    e_score_correction_bias = register_buffer("e_score_correction_bias", torch::zeros({experts}));
  }
}

torch::Tensor TopKRouter::select(const torch::Tensor& probs, int64_t k) const {
  auto scores = probs.detach();
  if (options_.bias_update > 0) scores = scores + e_score_correction_bias;
  if (options_.groups_used < options_.groups) {
    const int64_t best_of_group = options_.bias_update > 0 ? 2 : 1;
    scores = within_best_groups(scores, options_.groups, options_.groups_used, best_of_group);
  }
  auto ids = torch::empty({scores.size(0), k}, torch::kInt32);
  kernels::top_k(scores.data_ptr<float>(), scores.size(0), experts_, k, ids.data_ptr<int32_t>(),
                 nullptr);
  return ids;
}

Routing TopKRouter::route(const RouteInput& input) {
  if (input.hidden.dim() != 2 || input.hidden.size(1) != weight.size(1)) {
    throw UsageError("router of layer {}: hidden states must be [tokens, {}]", input.layer,
                     weight.size(1));
  }
  const int64_t k = input.knobs.k.value_or(options_.k);
  const auto factor =
      input.knobs.capacity_factor ? input.knobs.capacity_factor : options_.capacity_factor;
  check_k(k, experts_, options_);
  check_capacity_factor(factor);

  const auto logits = cadre::linear(input.hidden.to(torch::kFloat32), weight);
  check_finite(logits, input.layer);
  const auto probs =
      options_.squash == Squash::kSoftmax ? torch::softmax(logits, 1) : torch::sigmoid(logits);
  const auto ids = select(probs, k);
  const auto weights =
      SelectedWeights::apply(probs, ids, options_.weights == Weights::kNormalized, options_.scale);
  const auto valid = input.padding.defined() ? input.padding.logical_not() : torch::Tensor();
  Routing routing = routing_from_dense(experts_, ids, weights, valid);
  routing.logits = logits;
  routing.probs = probs;
  if (!factor) return routing;
  const int64_t capacity = expert_capacity(*factor, k, routing.valid_tokens(), experts_);
  return drop_over_capacity(routing, capacity, options_.drop_order);
}

void TopKRouter::after_step(const torch::Tensor& load) {
  if (options_.bias_update <= 0) return;
  torch::NoGradGuard no_grad;
  const auto count = load.to(torch::kFloat32);
  e_score_correction_bias.add_(torch::sign(count.mean() - count), options_.bias_update)
      .clamp_(-1.0, 1.0);
}

}  // namespace cadre
