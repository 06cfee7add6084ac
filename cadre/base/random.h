#pragma once

/// Counter-based random numbers: a stream is a pure function of (seed, keys), so that any step,
/// layer or worker can draw its numbers without anyone else's state, and a resumed run draws the
/// same ones. Generator: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2,
/// 3", 2011): 2^66 words a stream, about 1 ns a word.

#include <array>
#include <cstdint>
#include <initializer_list>

namespace cadre {

/// One block of Philox4x32-10: four random words that depend on nothing but (counter, key).
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

/// A stream of random numbers. Not for sharing between threads: give each its own keys.
class Random {
 public:
  /// A stream keyed by the run's seed and what it is for, e.g. Random(seed, {step, layer, pass}).
  explicit Random(uint64_t seed, std::initializer_list<uint64_t> keys = {});

  uint32_t next_u32() {
    if (position_ % 4 == 0) refill();
    return block_[position_++ % 4];
  }
  uint64_t next_u64();
  /// Uniform in [0, 1) with 24 bits.
  float uniform() { return static_cast<float>(next_u32() >> 8) * 0x1p-24F; }
  /// Uniform integer in [0, bound), without modulo bias. Throws UsageError when bound is 0.
  uint64_t below(uint64_t bound);
  /// Standard normal (Box-Muller; one of the pair is dropped, so that position() says everything).
  float normal();

  /// Where the stream stands: everything a checkpoint needs beside the seed and the keys.
  uint64_t position() const { return position_; }
  void seek(uint64_t position);

  // UniformRandomBitGenerator, for std::shuffle and friends.
  using result_type = uint32_t;
  static constexpr uint32_t min() { return 0; }
  static constexpr uint32_t max() { return UINT32_MAX; }
  uint32_t operator()() { return next_u32(); }

 private:
  void refill();

  uint64_t seed_;
  uint64_t stream_ = 0;    ///< the keys, hashed
  uint64_t position_ = 0;  ///< numbers drawn so far, in 32-bit words
  std::array<uint32_t, 4> block_ = {};
};

}  // namespace cadre
