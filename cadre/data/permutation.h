#pragma once

/// Shuffled orders without a table: any position of a permutation of any length, in constant time
/// and memory.

#include <array>
#include <cstdint>
#include <initializer_list>

namespace cadre {

/// A pseudo-random permutation of [0, size), a pure function of (seed, keys). A Feistel network
/// over the next even number of bits with cycle walking (Black & Rogaway, "Ciphers with Arbitrary
/// Finite Domains", 2002): at most 4 walks on average.
class Permutation {
 public:
  /// size from 1 to 2^62.
  Permutation(int64_t size, uint64_t seed, std::initializer_list<uint64_t> keys);
  /// Where position `index` in [0, size) goes.
  int64_t operator()(int64_t index) const;

 private:
  uint64_t encrypt(uint64_t value) const;

  int64_t size_;
  int half_bits_;
  std::array<uint32_t, 2> key_;
};

}  // namespace cadre
