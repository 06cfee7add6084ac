// The transport solvers on a router's problem: 1024 tokens to 64 experts, costs -softmax of logits
// N(0, 1), every token sends 1, every expert receives 16; single process, all cores. "row_error" is
// the largest |sum of a row - 1| of the plan, "gap" its cost less the dual bound.

#include <benchmark/benchmark.h>

#include <cmath>
#include <random>

#include "cadre/routing/transport/exact.h"
#include "cadre/routing/transport/sinkhorn.h"
#include "cadre/routing/transport/sparse.h"

namespace cadre::transport {
namespace {

constexpr int64_t kTokens = 1024, kExperts = 64;

Problem routing_problem() {
  std::mt19937_64 generator(3);
  std::normal_distribution<double> normal;
  Problem problem{.rows = kTokens, .columns = kExperts};
  for (int64_t i = 0; i < kTokens; ++i) {
    double sum = 0;
    std::vector<double> row(kExperts);
    for (double& value : row) sum += value = std::exp(normal(generator));
    for (const double value : row) problem.cost.push_back(-value / sum);
  }
  problem.supply.assign(kTokens, 1.0);
  problem.demand.assign(kExperts, static_cast<double>(kTokens) / kExperts);
  return problem;
}

template <class Solve>
void measure(benchmark::State& state, const Solve& solve) {
  const Problem problem = routing_problem();
  Plan plan;
  for (auto _ : state) plan = solve(problem);
  state.counters["iterations"] = static_cast<double>(plan.iterations);
  state.counters["row_error"] = plan.row_error;
  state.counters["gap"] = plan.objective - plan.bound;
  state.counters["converged"] = plan.converged ? 1 : 0;
}

/// What the router's "exact" start with no steps does: assignment, centre of its potentials, one
/// evaluation. The optimum where k = tokens / experts, 16 here.
Plan sparse_from_exact(const Problem& problem, int64_t k) {
  Plan exact = solve_exact(problem);
  centre_potentials(problem, exact);
  return solve_sparse(problem, {.k = k, .method = Adam{.steps = 0}, .start = exact.alpha});
}

void unregularised(benchmark::State& state) { measure(state, solve_exact); }
void entropic(benchmark::State& state) {
  const double epsilon = 1 / static_cast<double>(state.range(0));
  measure(state, [=](const Problem& p) { return solve_entropic(p, {.epsilon = epsilon}); });
}
void quadratic(benchmark::State& state) {
  measure(state, [](const Problem& p) { return solve_sparse(p, {}); });
}
void quadratic_dual(benchmark::State& state) {
  measure(state, [](const Problem& p) { return solve_sparse(p, {.form = DualForm::kDual}); });
}
void sparse_exact_start(benchmark::State& state) {
  measure(state, [k = state.range(0)](const Problem& p) { return sparse_from_exact(p, k); });
}
void sparse_adam(benchmark::State& state) {
  const Adam adam{.steps = state.range(0)};
  measure(state, [=](const Problem& p) {
    return solve_sparse(p, {.k = kTokens / kExperts, .method = adam});
  });
}
void sparse_lbfgs(benchmark::State& state) {
  measure(state, [k = state.range(0)](const Problem& p) { return solve_sparse(p, {.k = k}); });
}

BENCHMARK(unregularised)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(entropic)->Arg(20)->Arg(100)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(quadratic)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(quadratic_dual)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(sparse_exact_start)->Arg(16)->Arg(20)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(sparse_adam)->Arg(20)->Arg(100)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(sparse_lbfgs)
    ->Arg(16)
    ->Arg(20)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime()
    ->Iterations(1);

}  // namespace
}  // namespace cadre::transport

BENCHMARK_MAIN();
