#include "cadre/data/permutation.h"

#include <bit>

#include "cadre/base/random.h"

namespace cadre {

Permutation::Permutation(int64_t size, uint64_t seed, std::initializer_list<uint64_t> keys)
    : size_(size), half_bits_((std::bit_width(static_cast<uint64_t>(size - 1)) + 1) / 2), key_() {
  Random random(seed, keys);
  key_ = {random.next_u32(), random.next_u32()};
}

uint64_t Permutation::encrypt(uint64_t value) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t left = value >> half_bits_;
  uint64_t right = value & mask;
  for (uint32_t round = 0; round < 4; ++round) {
    const uint32_t mixed = philox4x32({static_cast<uint32_t>(right), round, 0, 0}, key_)[0];
    const uint64_t next = left ^ (mixed & mask);
    left = right;
    right = next;
  }
  return left << half_bits_ | right;
}

int64_t Permutation::operator()(int64_t index) const {
  uint64_t value = static_cast<uint64_t>(index);
  do {
    value = encrypt(value);
  } while (value >= static_cast<uint64_t>(size_));
  return static_cast<int64_t>(value);
}

}  // namespace cadre
