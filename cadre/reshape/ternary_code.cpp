#include "cadre/reshape/ternary_code.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "cadre/base/error.h"
#include "cadre/reshape/ternary.h"

namespace cadre::reshape {
namespace {

constexpr int kLargestParameter = 15;
constexpr unsigned kZerosCoded = 0x80;  // in the first byte, beside the parameter

using Words = std::array<uint64_t, kTernaryWords>;

/// Bits are taken and put from the lowest of the first byte on.
class BitWriter {
 public:
  explicit BitWriter(std::vector<std::byte>& bytes) : bytes_(bytes) {}
  void put(uint64_t bits, int count) {
    word_ |= bits << held_;
    held_ += count;
    for (; held_ >= 8; held_ -= 8, word_ >>= 8) bytes_.push_back(static_cast<std::byte>(word_));
  }
  void put_zeros(int64_t count) {
    for (; count > 0; count -= 32) put(0, static_cast<int>(std::min<int64_t>(count, 32)));
  }
  void finish() {
    if (held_ > 0) put(0, 8 - held_);
  }

 private:
  std::vector<std::byte>& bytes_;
  uint64_t word_ = 0;
  int held_ = 0;
};

class BitReader {
 public:
  static constexpr int kWindow = 57;  // bits that a read at any bit offset holds

  explicit BitReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  /// The bits from `at_` on, zeros after the end.
  uint64_t window() const {
    const auto byte = static_cast<size_t>(at_ >> 3);
    uint64_t word = 0;
    if (byte + 8 <= bytes_.size()) {
      std::memcpy(&word, bytes_.data() + byte, 8);
    } else if (byte < bytes_.size()) {
      std::memcpy(&word, bytes_.data() + byte, bytes_.size() - byte);
    }
    return word >> (at_ & 7);
  }
  void skip(int64_t bits) { at_ += bits; }
  bool past_end() const { return at_ > end(); }
  int64_t end() const { return static_cast<int64_t>(bytes_.size()) * 8; }
  int64_t at() const { return at_; }
  uint64_t take(int count) {
    const uint64_t bits = window() & ((uint64_t{1} << count) - 1);
    at_ += count;
    return bits;
  }

 private:
  std::span<const std::byte> bytes_;
  int64_t at_ = 0;
};

void for_each_gap(const Words& mask, int64_t words, const auto& body) {
  int64_t next = 0;
  for (int64_t w = 0; w < words; ++w) {
    for (uint64_t word = mask[w]; word != 0; word &= word - 1) {
      const int64_t position = w * 64 + std::countr_zero(word);
      body(position - next);
      next = position + 1;
    }
  }
}

int best_parameter(const Words& mask, int64_t words) {
  std::array<int64_t, kLargestParameter + 1> bits{};
  for_each_gap(mask, words, [&](int64_t gap) {
    for (int b = 0; b <= kLargestParameter; ++b) bits[b] += (gap >> b) + 1 + b;
  });
  return static_cast<int>(std::min_element(bits.begin(), bits.end()) - bits.begin());
}

void flip(Words& mask, int64_t size) {
  const int64_t words = words_of(size);
  for (int64_t w = 0; w < words; ++w) mask[w] = ~mask[w];
  if (size % 64 != 0) mask[words - 1] &= (uint64_t{1} << (size % 64)) - 1;
}

/// Long runs of zeros: what does not fit the window.
int64_t slow_gap(BitReader& reader, int b, const std::string& where) {
  int64_t quotient = 0;
  uint64_t window = reader.window();
  while ((window & ((uint64_t{1} << BitReader::kWindow) - 1)) == 0) {
    quotient += BitReader::kWindow;
    reader.skip(BitReader::kWindow);
    if (reader.past_end()) throw FormatError("{}: gaps run past the end of their block", where);
    window = reader.window();
  }
  const int zeros = std::countr_zero(window);
  reader.skip(zeros + 1);
  return ((quotient + zeros) << b) + static_cast<int64_t>(reader.take(b));
}

void read_gaps(BitReader& reader, int64_t codes, int b, int64_t size, Words& mask,
               const std::string& where) {
  const uint64_t low_mask = (uint64_t{1} << b) - 1;
  int64_t position = -1;
  for (int64_t i = 0; i < codes; ++i) {
    const uint64_t window = reader.window();
    const int zeros = std::countr_zero(window);
    if (zeros + 1 + b <= BitReader::kWindow) {
      position +=
          1 + (int64_t{zeros} << b) + static_cast<int64_t>(window >> (zeros + 1) & low_mask);
      reader.skip(zeros + 1 + b);
    } else {
      position += 1 + slow_gap(reader, b, where);
    }
    if (position >= size) throw FormatError("{}: a gap leads beyond its block", where);
    mask[position >> 6] |= uint64_t{1} << (position & 63);
  }
}

/// b = 0: the gaps are the mask up to its last bit.
void read_mask(BitReader& reader, int64_t codes, int64_t words, Words& mask,
               const std::string& where) {
  int64_t count = 0;
  for (int64_t w = 0; w < words && count < codes; ++w) {
    mask[w] = reader.take(32);
    mask[w] |= reader.take(32) << 32;
    count += std::popcount(mask[w]);
  }
  if (count != codes) throw FormatError("{}: a block's mask has not the bits it should", where);
}

/// Spreads the next signs over the survivors.
void read_signs(BitReader& signs, const Words& mask, int64_t words, uint64_t* plus,
                uint64_t* minus) {
  for (int64_t w = 0; w < words; ++w) {
    const int count = std::popcount(mask[w]);
    uint64_t bits = signs.take(std::min(count, 32));
    if (count > 32) bits |= signs.take(count - 32) << 32;
    uint64_t negative = 0;
    for (uint64_t rest = mask[w]; bits != 0; bits >>= 1, rest &= rest - 1) {
      negative |= (rest & -rest) & -(bits & 1);
    }
    minus[w] = negative;
    plus[w] = mask[w] & ~negative;
  }
}

}  // namespace

std::vector<std::byte> encode_ternary(const uint64_t* plus, const uint64_t* minus, int64_t size) {
  const int64_t words = words_of(size);
  Words mask{};
  int64_t kept = 0;
  std::vector<std::byte> bytes(1);
  BitWriter writer(bytes);
  for (int64_t w = 0; w < words; ++w) {
    mask[w] = plus[w] | minus[w];
    kept += std::popcount(mask[w]);
    for (uint64_t rest = mask[w]; rest != 0; rest &= rest - 1) {
      writer.put(minus[w] >> std::countr_zero(rest) & 1, 1);
    }
  }
  writer.finish();
  const bool zeros = kept > size / 2;
  if (zeros) flip(mask, size);
  const int b = best_parameter(mask, words);
  bytes[0] = static_cast<std::byte>(static_cast<unsigned>(b) | (zeros ? kZerosCoded : 0));
  for_each_gap(mask, words, [&](int64_t gap) {
    writer.put_zeros(gap >> b);
    writer.put(1, 1);
    writer.put(static_cast<uint64_t>(gap) & ((uint64_t{1} << b) - 1), b);
  });
  writer.finish();
  return bytes;
}

void decode_ternary(std::span<const std::byte> bytes, int64_t kept, int64_t size, uint64_t* plus,
                    uint64_t* minus, const std::string& where) {
  const auto sign_bytes = static_cast<size_t>((kept + 7) / 8);
  if (bytes.size() < 1 + sign_bytes || kept > size) {
    throw FormatError("{}: a block is shorter than its signs", where);
  }
  const auto first = std::to_integer<unsigned>(bytes[0]);
  const int b = static_cast<int>(first & ~kZerosCoded);
  const bool zeros = (first & kZerosCoded) != 0;
  if (b > kLargestParameter) throw FormatError("{}: a block's Rice parameter is {}", where, b);

  const int64_t words = words_of(size), codes = zeros ? size - kept : kept;
  Words mask;
  std::fill_n(mask.begin(), words, 0);
  BitReader gaps(bytes.subspan(1 + sign_bytes));
  if (b == 0) {
    read_mask(gaps, codes, words, mask, where);
    if (size % 64 != 0 && mask[words - 1] >> (size % 64) != 0) {
      throw FormatError("{}: a gap leads beyond its block", where);
    }
  } else {
    read_gaps(gaps, codes, b, size, mask, where);
  }
  // A mask is read in whole words, beyond its end.
  const bool ends = b == 0 ? gaps.at() >= gaps.end() : (gaps.at() + 7) / 8 * 8 == gaps.end();
  if (!ends) throw FormatError("{}: a block is not as long as its gaps", where);
  if (zeros) flip(mask, size);
  BitReader signs(bytes.subspan(1, sign_bytes));
  read_signs(signs, mask, words, plus, minus);
}

}  // namespace cadre::reshape
