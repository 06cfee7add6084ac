// What the recurrent router (RMoE, state of 128) adds to a training step: forward and backward of a
// decoder of 4 layers, hidden 512, 32 experts of inner 256, top-8, 2048 tokens, vocabulary 4096.
// The routers are measured alone, alternately with plain top-k: exchanging them in the model would
// measure how balanced each routes at its beginning, too. "overhead" is 4 times the difference over
// the step with top-k, in CPU time: with one thread it does not depend on what else runs.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <ctime>
#include <vector>

#include "cadre/routing/recurrent_router.h"
#include "cadre/training/language_model.h"

namespace cadre {
namespace {

constexpr int64_t kHidden = 512, kExperts = 32, kActive = 8, kLayers = 4;
constexpr int64_t kBatch = 4, kLength = 512, kTokens = kBatch * kLength;

template <class Body>
double cpu_seconds(Body&& body) {
  const std::clock_t start = std::clock();
  body();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

double median(std::vector<double> times) {
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

void train_step(LanguageModel& model, const torch::Tensor& ids) {
  for (auto& parameter : model.decoder()->parameters()) parameter.mutable_grad().reset();
  model.loss(ids, ids, 0, 1).total.backward();
}

void route_and_back(Router& router, const torch::Tensor& hidden, const torch::Tensor& state) {
  for (auto& parameter : router.parameters()) parameter.mutable_grad().reset();
  const Routing routing = router.route({.hidden = hidden, .state = state});
  torch::Tensor loss = routing.weight.sum() + routing.probs.sum();
  if (routing.state.defined()) loss = loss + routing.state.sum();
  loss.backward();
}

void BM_RecurrentRouter(benchmark::State& state) {
  LanguageModel model({.vocabulary = 4096,
                       .hidden = kHidden,
                       .layers = kLayers,
                       .heads = 8,
                       .kv_heads = 8,
                       .experts = kExperts,
                       .experts_per_token = kActive,
                       .expert_intermediate = 256},
                      1);
  TopKRouter top_k(kHidden, kExperts, {.k = kActive, .weights = Weights::kNormalized});
  RecurrentRouter recurrent(kHidden, kExperts, {.k = kActive});
  const auto ids = torch::randint(0, 4096, {kBatch, kLength});
  const auto hidden = torch::randn({kTokens, kHidden}).requires_grad_();
  const auto below = torch::randn({kTokens, recurrent.options().width}).requires_grad_();
  train_step(model, ids);
  std::vector<double> steps, plain, with;
  for (auto _ : state) {
    steps.push_back(cpu_seconds([&] { train_step(model, ids); }));
    plain.push_back(cpu_seconds([&] { route_and_back(top_k, hidden, {}); }));
    with.push_back(cpu_seconds([&] { route_and_back(recurrent, hidden, below); }));
    state.SetIterationTime(with.back());
  }
  state.counters["step_ms"] = 1e3 * median(steps);
  state.counters["top_k_ms"] = 1e3 * median(plain);
  state.counters["recurrent_ms"] = 1e3 * median(with);
  state.counters["overhead"] = kLayers * (median(with) - median(plain)) / median(steps);
}
BENCHMARK(BM_RecurrentRouter)->UseManualTime()->Iterations(15)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace cadre

BENCHMARK_MAIN();
