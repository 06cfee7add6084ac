#pragma once

/// Counter-based random numbers: a stream is a pure function of (seed, keys), so that any step,
/// layer or worker can draw its numbers without anyone else's state, and a resumed run draws the
/// same ones. Generator: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

#include <cstdint>
#include <initializer_list>

namespace cadre {

class Random {
 public:
  /// A stream keyed by the run's seed and what it is for, e.g. Random(seed, {step, layer, pass}).
  explicit Random(uint64_t seed, std::initializer_list<uint64_t> keys = {});

  uint32_t next_u32();
  uint64_t next_u64();
  /// Uniform in [0, 1) with 24 bits.
  float uniform();
  /// Uniform integer in [0, bound), without modulo bias. bound >= 1.
  uint64_t below(uint64_t bound);
  /// Standard normal (Box-Muller).
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

  uint32_t key_[2];
  uint64_t position_ = 0;  ///< numbers drawn so far, in 32-bit words
  uint32_t block_[4] = {};
  float spare_normal_ = 0;
  bool has_spare_ = false;
};

}  // namespace cadre
