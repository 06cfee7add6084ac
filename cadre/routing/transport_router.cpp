#include "cadre/routing/transport_router.h"

#include <algorithm>
#include <cmath>

#include "cadre/base/error.h"
#include "cadre/routing/affinity.h"
#include "cadre/routing/expert_side.h"
#include "cadre/routing/transport/exact.h"
#include "cadre/routing/transport_plan.h"

namespace cadre {
namespace {

void check_limits(const SparseTransport& options, int64_t experts) {
  if (!(options.capacity_factor >= 1) || !std::isfinite(options.capacity_factor)) {
    throw UsageError("router: capacity factor is {}, must be at least 1: every token needs a place",
                     options.capacity_factor);
  }
  check_router_k(options.k, experts);
}

void check_solver(const SparseTransport& options) {
  if (!(options.gamma > 0)) {
    throw UsageError("router: gamma is {}, must be above 0", options.gamma);
  }
  if (options.steps < 0) {
    throw UsageError("router: {} solver steps, must not be negative", options.steps);
  }
  if (!(options.learning_rate > 0)) {
    throw UsageError("router: the solver's learning rate is {}, must be above 0",
                     options.learning_rate);
  }
}

/// The potentials to start from, of the rows of `problem` or, when tokens are limited, of its
/// columns.
std::vector<double> start_of(const transport::Problem& problem, const SparseTransport& options) {
  if (options.start == TransportStart::kZero) return {};
  transport::Plan exact = transport::solve_exact(problem);
  transport::centre_potentials(problem, exact);
  return options.axis == TransportAxis::kExpert ? exact.alpha : exact.beta;
}

}  // namespace

TransportRouter::TransportRouter(int64_t hidden, int64_t experts, const SparseTransport& options)
    : options_(options) {
  check_router_sizes(hidden, experts);
  check_limits(options, experts);
  check_solver(options);
  weight = register_parameter("weight", initial_gate(experts, hidden, options.init_std));
}

/// T [m, E] of one group's probs [m, E], differentiable.
torch::Tensor TransportRouter::plan_of(const torch::Tensor& probs, const SparseTransport& options) {
  const int64_t tokens = probs.size(0);
  const auto supply = torch::ones({tokens}, torch::kFloat64);
  const auto demand = torch::full(
      {experts()}, static_cast<double>(tokens) / static_cast<double>(experts()), torch::kFloat64);
  const auto cost = -probs;
  const transport::Sparse solver = {
      .gamma = options.gamma,
      .method = transport::Adam{.steps = options.steps, .learning_rate = options.learning_rate},
      .start = start_of(problem_of(cost, supply, demand), options)};
  transport::Sparse limited = solver;
  torch::Tensor plan;
  if (options.axis == TransportAxis::kExpert) {
    limited.k = choice_capacity(options.capacity_factor, tokens, experts());
    plan = sparse_plan(cost, supply, demand, limited);
  } else {
    limited.k = std::max(options.k, (experts() + tokens - 1) / tokens);
    plan = sparse_plan(cost.t(), demand, supply, limited).t();
  }
  const auto sums = plan.detach().sum(1);
  row_error_ = std::max(row_error_, (sums - 1).abs().max().item<double>());
  return plan;
}

Routing TransportRouter::route(const RouteInput& input) {
  SparseTransport options = options_;
  options.capacity_factor = input.knobs.capacity_factor.value_or(options.capacity_factor);
  options.k = input.knobs.k.value_or(options.k);
  check_limits(options, experts());
  const auto logits = affinity(input, weight);
  const auto probs = torch::softmax(logits, 1);
  const auto valid = valid_tokens_of(input);
  const bool by_sequence = options.scope == ChoiceScope::kSequence;
  const auto groups =
      group_by_sequence(logits.size(0), by_sequence ? input.sequence : torch::Tensor(), valid);
  const bool weights_are_plan = options.combine == TransportCombine::kPlan;
  auto plan = torch::zeros_like(probs);
  row_error_ = 0;
  for (const auto& group : groups) {
    const auto rows = torch::tensor(group, torch::kInt64);
    const auto affinities = probs.index_select(0, rows);
    plan = plan.index_copy(0, rows,
                           plan_of(weights_are_plan ? affinities : affinities.detach(), options));
  }
  Routing routing =
      routing_from_mask(plan.detach() > 0, probs, weights_are_plan ? plan : probs, valid);
  routing.logits = logits;
  routing.probs = probs;
  return routing;
}

}  // namespace cadre
