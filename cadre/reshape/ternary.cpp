#include "cadre/reshape/ternary.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numbers>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/reshape/bucket_counts.h"

namespace cadre::reshape {
namespace {

constexpr int64_t kPiece = int64_t{1} << 16;
constexpr uint32_t kMagnitude = 0x7fffffff, kInfinity = 0x7f800000;

uint32_t magnitude_bits(float value) { return std::bit_cast<uint32_t>(value) & kMagnitude; }

/// Count, mean and sum of squared deviations of numbers, mergeable (Chan et al., 1979).
struct Moments {
  double count = 0, mean = 0, squares = 0;

  static Moments of(std::span<const float> values) {
    Moments m{.count = static_cast<double>(values.size())};
    for (const float v : values) m.mean += v;
    m.mean /= m.count;
    for (const float v : values) m.squares += (v - m.mean) * (v - m.mean);
    return m;
  }
  void merge(const Moments& other) {
    const double total = count + other.count, apart = other.mean - mean;
    squares += other.squares + apart * apart * count * other.count / total;
    mean += apart * other.count / total;
    count = total;
  }
  double deviation() const { return count > 1 ? std::sqrt(squares / (count - 1)) : 0; }
};

/// The threshold is found by the upper 16 bits of the magnitudes in one pass and the lower ones in
/// another. Sums of doubles are kept a piece, and merged in order, so that threads do not matter.
class Choice {
 public:
  Choice(int64_t size, const FlatReader& read) : size_(size), read_(read) {}

  void count_upper() {
    std::vector<Moments> moments(pieces());
    count([&](int64_t piece, std::span<const float> values, std::vector<int64_t>& histogram) {
      uint32_t largest = 0;
      for (const float v : values) {
        const uint32_t bits = magnitude_bits(v);
        largest = std::max(largest, bits);
        ++histogram[bits >> 16];
      }
      if (largest >= kInfinity) throw UsageError("the vector has entries that are not finite");
      moments[piece] = Moments::of(values);
    });
    Moments all;
    for (const Moments& m : moments) all.merge(m);
    deviation_ = all.deviation();
  }

  /// After count_upper(): where `keep` entries end.
  void find_bucket(int64_t keep) {
    above_ = 0;
    bucket_ = counts_.bucket_of(keep, above_);
  }

  void count_lower() {
    std::vector<double> sums(pieces());
    count([&](int64_t piece, std::span<const float> values, std::vector<int64_t>& histogram) {
      double sum = 0;
      for (const float v : values) {
        const uint32_t bits = magnitude_bits(v), upper = bits >> 16;
        if (upper > bucket_) sum += std::bit_cast<float>(bits);
        if (upper == bucket_) ++histogram[bits & 0xffff];
      }
      sums[piece] = sum;
    });
    for (const double sum : sums) sum_above_ += sum;
  }

  /// After count_lower().
  TernaryChoice result(int64_t keep) const {
    TernaryChoice choice{.kept = above_, .deviation = deviation_};
    const uint32_t lower = counts_.bucket_of(keep, choice.kept);
    choice.cut.bits = bucket_ << 16 | lower;
    choice.cut.ties = choice.cut.bits == 0 ? 0 : std::min(keep - choice.kept, counts_[lower]);
    choice.kept += choice.cut.ties;
    double sum = sum_above_;
    const auto add = [&](int64_t entries, uint32_t low) {
      sum += static_cast<double>(entries) * std::bit_cast<float>(bucket_ << 16 | low);
    };
    for (uint32_t low = 0xffff; low > lower; --low) add(counts_[low], low);
    add(choice.cut.ties, lower);
    choice.mean_kept = choice.kept > 0 ? sum / static_cast<double>(choice.kept) : 0;
    return choice;
  }

 private:
  int64_t pieces() const { return (size_ + kPiece - 1) / kPiece; }

  template <typename Body>
  void count(const Body& body) {
    counts_.clear();
    parallel_for(pieces(), 1, [&](int64_t begin, int64_t end) {
      std::vector<int64_t> histogram(BucketCounts::kBuckets);
      std::vector<float> values(kPiece);
      for (int64_t piece = begin; piece < end; ++piece) {
        const int64_t first = piece * kPiece;
        const std::span part(values.data(), std::min(kPiece, size_ - first));
        read_(first, part);
        body(piece, part, histogram);
      }
      counts_.add(histogram);
    });
  }

  int64_t size_;
  const FlatReader& read_;
  BucketCounts counts_;
  uint32_t bucket_ = 0;
  int64_t above_ = 0;  ///< entries in buckets above
  double sum_above_ = 0, deviation_ = 0;
};

template <typename Number>
void expand_words(const uint64_t* words, Number value, std::span<Number> values) {
  const auto last = words_of(static_cast<int64_t>(values.size()));
  for (int64_t w = 0; w < last; ++w) {
    Number* at = values.data() + w * 64;
    for (uint64_t word = words[w]; word != 0; word &= word - 1) at[std::countr_zero(word)] = value;
  }
}

void check_sizes(const TernaryVector& a, const TernaryVector& b) {
  if (a.size == b.size) return;
  throw UsageError("ternary vectors of {} and {} entries do not fit together", a.size, b.size);
}

}  // namespace

TernaryChoice choose_ternary(int64_t size, const FlatReader& read, const TernaryOptions& options) {
  if (!(options.density > 0 && options.density <= 1)) {
    throw UsageError("density {} is not a share above 0 and at most 1", options.density);
  }
  if (!(options.alpha > 0 && std::isfinite(options.alpha))) {
    throw UsageError("alpha {} is not a positive number", options.alpha);
  }
  if (size < 1) throw UsageError("a vector without entries can't be compressed");
  const auto keep = static_cast<int64_t>(options.density * static_cast<double>(size));
  Choice search(size, read);
  search.count_upper();
  search.find_bucket(keep);
  search.count_lower();
  TernaryChoice choice = search.result(keep);
  const bool mean = options.magnitude == TernaryOptions::Magnitude::kMeanKept;
  choice.scale = static_cast<float>(options.alpha * (mean ? choice.mean_kept : choice.deviation));
  return choice;
}

int64_t TernaryVector::kept() const {
  int64_t count = 0;
  for (size_t w = 0; w < plus.size(); ++w) count += std::popcount(plus[w] | minus[w]);
  return count;
}

TernaryVector ternarize(std::span<const float> values, const TernaryOptions& options) {
  const auto size = static_cast<int64_t>(values.size());
  const auto read = [&](int64_t first, std::span<float> out) {
    std::copy_n(values.begin() + first, out.size(), out.begin());
  };
  const TernaryChoice choice = choose_ternary(size, read, options);
  TernaryVector result{.size = size, .scale = choice.scale};
  result.plus.resize(words_of(size));
  result.minus.resize(words_of(size));
  mark(values, choice.cut, 0, result.plus.data(), result.minus.data());
  return result;
}

int64_t mark(std::span<const float> values, const MagnitudeCut& cut, int64_t ties_before,
             uint64_t* plus, uint64_t* minus) {
  int64_t ties = ties_before;
  for (size_t first = 0; first < values.size(); first += 64) {
    uint64_t p = 0, m = 0;
    const size_t count = std::min<size_t>(64, values.size() - first);
    for (size_t i = 0; i < count; ++i) {
      const float value = values[first + i];
      const uint32_t bits = magnitude_bits(value);
      bool kept = bits > cut.bits;
      if (bits == cut.bits) kept = ties++ < cut.ties;
      const uint64_t negative = std::bit_cast<uint32_t>(value) >> 31;
      p |= (static_cast<uint64_t>(kept) & ~negative) << i;
      m |= (static_cast<uint64_t>(kept) & negative) << i;
    }
    plus[first / 64] = p;
    minus[first / 64] = m;
  }
  return ties - ties_before;
}

double dot(const TernaryVector& a, const TernaryVector& b) {
  check_sizes(a, b);
  int64_t agree = 0, differ = 0;
  for (size_t w = 0; w < a.plus.size(); ++w) {
    agree += std::popcount(a.plus[w] & b.plus[w]) + std::popcount(a.minus[w] & b.minus[w]);
    differ += std::popcount(a.plus[w] & b.minus[w]) + std::popcount(a.minus[w] & b.plus[w]);
  }
  return static_cast<double>(a.scale) * b.scale * static_cast<double>(agree - differ);
}

double squared_length(const TernaryVector& a) {
  return static_cast<double>(a.scale) * a.scale * static_cast<double>(a.kept());
}

int64_t hamming(const TernaryVector& a, const TernaryVector& b) {
  check_sizes(a, b);
  int64_t count = 0;
  for (size_t w = 0; w < a.plus.size(); ++w) {
    count += std::popcount((a.plus[w] ^ b.plus[w]) | (a.minus[w] ^ b.minus[w]));
  }
  return count;
}

void add_to(const TernaryVector& ternary, float weight, std::span<float> values) {
  const float step = weight * ternary.scale;
  for (size_t w = 0; w < ternary.plus.size(); ++w) {
    float* at = values.data() + w * 64;
    for (uint64_t p = ternary.plus[w]; p != 0; p &= p - 1) at[std::countr_zero(p)] += step;
    for (uint64_t m = ternary.minus[w]; m != 0; m &= m - 1) at[std::countr_zero(m)] -= step;
  }
}

void expand(const uint64_t* plus, const uint64_t* minus, float scale, std::span<float> values) {
  std::fill(values.begin(), values.end(), 0.0F);
  expand_words(plus, scale, values);
  expand_words(minus, -scale, values);
}

void expand(const uint64_t* plus, const uint64_t* minus, uint16_t half_scale,
            std::span<uint16_t> values) {
  std::fill(values.begin(), values.end(), uint16_t{0});
  expand_words(plus, half_scale, values);
  expand_words(minus, static_cast<uint16_t>(half_scale ^ 0x8000), values);
}

double entropy_bits(double density) {
  const double zeros = density < 1 ? -(1 - density) * std::log2(1 - density) : 0;
  return zeros - density * std::log2(density / 2);
}

int golomb_parameter(double density) {
  if (density >= 1) return 0;
  const double ratio = std::log(std::numbers::phi - 1) / std::log1p(-density);
  return std::max(0, 1 + static_cast<int>(std::floor(std::log2(ratio))));
}

double golomb_bits(double density) {
  const int b = golomb_parameter(density);
  const double position = b + 1 / (1 - std::pow(1 - density, std::exp2(b)));
  return density * (position + 1);
}

}  // namespace cadre::reshape
