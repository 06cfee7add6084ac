#include "cadre/base/random.h"

#include <cmath>
#include <numbers>

#include "cadre/base/error.h"

namespace cadre {
namespace {

// The finaliser of SplitMix64: a bijection, so different keys never meet in one step.
uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

uint32_t low(uint64_t x) { return static_cast<uint32_t>(x); }
uint32_t high(uint64_t x) { return static_cast<uint32_t>(x >> 32); }

}  // namespace

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53;
  constexpr uint64_t kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9;
  constexpr uint32_t kWeyl1 = 0xBB67AE85;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = kMultiplier0 * counter[0];
    const uint64_t product1 = kMultiplier1 * counter[2];
    counter = {high(product1) ^ counter[1] ^ key[0], low(product1),
               high(product0) ^ counter[3] ^ key[1], low(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

Random::Random(uint64_t seed, std::initializer_list<uint64_t> keys) : seed_(seed) {
  for (const uint64_t key : keys) stream_ = mix(stream_ ^ mix(key));
}

void Random::refill() {
  const uint64_t block = position_ / 4;
  block_ =
      philox4x32({low(block), high(block), low(stream_), high(stream_)}, {low(seed_), high(seed_)});
}

void Random::seek(uint64_t position) {
  position_ = position;
  if (position_ % 4 != 0) refill();
}

uint64_t Random::next_u64() {
  const uint64_t first = next_u32();
  return first | (static_cast<uint64_t>(next_u32()) << 32);
}

// Lemire, "Fast random integer generation in an interval" (2019): a division only when it is
// needed.
uint64_t Random::below(uint64_t bound) {
  if (bound == 0) throw UsageError("random number below 0 requested: the bound must be at least 1");
  unsigned __int128 product = static_cast<unsigned __int128>(next_u64()) * bound;
  if (static_cast<uint64_t>(product) < bound) {
    const uint64_t threshold = -bound % bound;
    while (static_cast<uint64_t>(product) < threshold) {
      product = static_cast<unsigned __int128>(next_u64()) * bound;
    }
  }
  return static_cast<uint64_t>(product >> 64);
}

float Random::normal() {
  // All 32 bits under the logarithm: tails reach 6.6 sigma, and the argument is never 0.
  const double radius_uniform = (next_u32() + 0.5) * 0x1p-32;
  const double angle = 2 * std::numbers::pi * next_u32() * 0x1p-32;
  return static_cast<float>(std::sqrt(-2 * std::log(radius_uniform)) * std::cos(angle));
}

}  // namespace cadre
