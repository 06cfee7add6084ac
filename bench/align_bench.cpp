/// Matching two experts' neurons: seconds for the affinity matrix and the assignment, on one
/// thread. The exact solver and the one on lists of 64 candidates; `share` is the score found over
/// the bound that no permutation exceeds.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <numeric>

#include "cadre/base/parallel.h"
#include "cadre/base/random.h"
#include "cadre/reshape/align.h"

namespace {

using namespace cadre;
using namespace cadre::reshape;

constexpr int64_t kHidden = 256;

struct Expert {
  std::vector<float> gate, up, down;
  ExpertView view(int64_t inner) const {
    return {kHidden, inner, gate.data(), up.data(), down.data()};
  }
};

Expert random_expert(int64_t inner, uint64_t seed) {
  Expert expert;
  Random random(seed);
  for (auto* matrix : {&expert.gate, &expert.up, &expert.down}) {
    matrix->resize(static_cast<size_t>(inner * kHidden));
    for (float& value : *matrix) value = random.normal();
  }
  return expert;
}

/// The other expert in a random order with noise: a permutation to find, not only one to choose.
Expert noisy_copy(const Expert& expert, int64_t inner, float noise) {
  std::vector<int32_t> order(static_cast<size_t>(inner));
  std::iota(order.begin(), order.end(), 0);
  Random random(3);
  std::shuffle(order.begin(), order.end(), random);
  Expert copy = expert;
  permute_rows(order, kHidden, expert.gate.data(), copy.gate.data());
  permute_rows(order, kHidden, expert.up.data(), copy.up.data());
  permute_columns(order, kHidden, expert.down.data(), copy.down.data());
  for (auto* matrix : {&copy.gate, &copy.up, &copy.down}) {
    for (float& value : *matrix) value += noise * random.normal();
  }
  return copy;
}

void match(benchmark::State& state, const AlignOptions& options, bool related) {
  set_num_threads(1);
  const int64_t inner = state.range(0);
  const Expert a = random_expert(inner, 1);
  const Expert b = related ? noisy_copy(a, inner, 1.0F) : random_expert(inner, 2);
  Alignment found;
  for (auto _ : state) found = align_by_weights(a.view(inner), b.view(inner), options);
  state.counters["share"] = found.score / found.bound;
}

void BM_ExactUnrelated(benchmark::State& state) {
  match(state, {.exact_up_to = state.range(0)}, false);
}
void BM_ExactNoisyCopy(benchmark::State& state) {
  match(state, {.exact_up_to = state.range(0)}, true);
}
void BM_Candidates(benchmark::State& state) { match(state, {.exact_up_to = 0}, false); }

BENCHMARK(BM_ExactUnrelated)->Arg(1024)->Arg(4096)->Unit(benchmark::kSecond)->Iterations(1);
BENCHMARK(BM_ExactNoisyCopy)->Arg(4096)->Unit(benchmark::kSecond)->Iterations(1);
BENCHMARK(BM_Candidates)->Arg(4096)->Arg(14336)->Unit(benchmark::kSecond)->Iterations(1);

}  // namespace

BENCHMARK_MAIN();
