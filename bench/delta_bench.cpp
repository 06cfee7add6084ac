// Ternary residuals: encoding, and decoding into half floats (bytes a second count the half
// floats).

#include <benchmark/benchmark.h>

#include <bit>
#include <cstdlib>

#include "cadre/base/random.h"
#include "cadre/kernels/blocks.h"
#include "cadre/reshape/ternary.h"
#include "cadre/reshape/ternary_code.h"

namespace {

using namespace cadre;
using namespace cadre::reshape;

struct Block {
  std::vector<uint64_t> plus = std::vector<uint64_t>(kTernaryWords), minus = plus;
  int64_t kept = 0;
};

Block random_block(double density) {
  Block block;
  Random random(1);
  for (int64_t i = 0; i < kTernaryBlock; ++i) {
    if (random.uniform() >= density) continue;
    (random.below(2) == 0 ? block.plus : block.minus)[i / 64] |= uint64_t{1} << (i % 64);
    ++block.kept;
  }
  return block;
}

void decode_half(benchmark::State& state) {
  const Block block = random_block(static_cast<double>(state.range(0)) / 100);
  const auto bytes = encode_ternary(block.plus.data(), block.minus.data(), kTernaryBlock);
  Block decoded;
  std::vector<uint16_t> values(kTernaryBlock);
  const uint16_t scale = kernels::float_to_half(0.01F);
  for (auto _ : state) {
    decode_ternary(bytes, block.kept, kTernaryBlock, decoded.plus.data(), decoded.minus.data(), "");
    expand(decoded.plus.data(), decoded.minus.data(), scale, values);
    benchmark::DoNotOptimize(values.data());
  }
  if (decoded.plus != block.plus || decoded.minus != block.minus) std::abort();
  state.SetBytesProcessed(state.iterations() * kTernaryBlock * 2);
}
BENCHMARK(decode_half)->ArgName("percent")->Arg(5)->Arg(10)->Arg(20)->Arg(30)->Arg(50);

void encode(benchmark::State& state) {
  const Block block = random_block(static_cast<double>(state.range(0)) / 100);
  for (auto _ : state) {
    benchmark::DoNotOptimize(encode_ternary(block.plus.data(), block.minus.data(), kTernaryBlock));
  }
  state.SetBytesProcessed(state.iterations() * kTernaryBlock * 2);
}
BENCHMARK(encode)->ArgName("percent")->Arg(5)->Arg(20)->Arg(50);

void dot_of_masks(benchmark::State& state) {
  const Block x = random_block(0.2), y = random_block(0.3);
  const TernaryVector a{.size = kTernaryBlock, .scale = 1, .plus = x.plus, .minus = x.minus};
  const TernaryVector b{.size = kTernaryBlock, .scale = 1, .plus = y.plus, .minus = y.minus};
  for (auto _ : state) benchmark::DoNotOptimize(dot(a, b));
  state.SetItemsProcessed(state.iterations() * kTernaryBlock);
}
BENCHMARK(dot_of_masks);

}  // namespace

BENCHMARK_MAIN();
