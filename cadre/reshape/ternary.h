#pragma once

/// A sparse ternary vector: the signs of a vector's largest entries and one magnitude.
///
/// Yadav et al., "ComPEFT: Compression for Communicating Parameter Efficient Updates via
/// Sparsification and Quantization" (2023): of a residual tau keep the k entries of largest |tau|,
/// as alpha * sigma * sign(tau), sigma being the standard deviation of all entries. Where their
/// code keeps every entry that ties with the last, this keeps floor(density * size), ties by the
/// lower index, and never a zero, so that files are reproducible and within their budget.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace cadre::reshape {

/// Fills `values` with entries [first, first + size) of a vector that need not fit in memory.
/// Called from several threads.
using FlatReader = std::function<void(int64_t first, std::span<float> values)>;

/// What of it survives: magnitudes whose bits (as unsigned integers, which order like the
/// magnitudes) are above `bits`, and the first `ties` entries that equal it.
struct MagnitudeCut {
  uint32_t bits = 0;
  int64_t ties = 0;
};

struct TernaryOptions {
  double density = 0.2;  ///< share of entries kept, in (0, 1]
  double alpha = 1;      ///< positive
  enum class Magnitude {
    kDeviation,  ///< alpha times the standard deviation of all entries (ComPEFT)
    kMeanKept    ///< alpha times the mean magnitude of those kept (sparse ternary compression)
  } magnitude = Magnitude::kDeviation;
};

struct TernaryChoice {
  MagnitudeCut cut;
  int64_t kept = 0;
  double deviation = 0;  ///< of all entries, unbiased
  double mean_kept = 0;  ///< magnitude of those kept
  float scale = 0;       ///< what every survivor becomes, but for its sign
};

/// Two passes over the vector, in parallel; independent of the number of threads. Throws UsageError
/// for options out of range and for entries that are not finite.
TernaryChoice choose_ternary(int64_t size, const FlatReader& read, const TernaryOptions& options);

/// Two masks, bit i of word i / 64: 2 bits an entry, 8 times smaller than half floats.
struct TernaryVector {
  int64_t size = 0;
  float scale = 0;
  std::vector<uint64_t> plus, minus;

  int64_t kept() const;
};

TernaryVector ternarize(std::span<const float> values, const TernaryOptions& options);
/// The survivors of `values`, which begin after the vector's first `ties_before` entries equal to
/// the cut; returns how many of `values` equal it. Masks have words_of(values.size()) words.
int64_t mark(std::span<const float> values, const MagnitudeCut& cut, int64_t ties_before,
             uint64_t* plus, uint64_t* minus);
inline int64_t words_of(int64_t size) { return (size + 63) / 64; }

/// Algebra by counting bits; sizes must be equal (throws UsageError).
double dot(const TernaryVector& a, const TernaryVector& b);
double squared_length(const TernaryVector& a);
/// Entries in which the two differ in kind: plus, minus, zero.
int64_t hamming(const TernaryVector& a, const TernaryVector& b);

/// values[i] += weight * scale * entry[i]; as many values as entries.
void add_to(const TernaryVector& ternary, float weight, std::span<float> values);
/// values[i] = +scale, -scale or 0, from masks; float or half bits (of `scale` rounded to half).
void expand(const uint64_t* plus, const uint64_t* minus, float scale, std::span<float> values);
void expand(const uint64_t* plus, const uint64_t* minus, uint16_t half_scale,
            std::span<uint16_t> values);

/// Bits an entry of the ideal code (the entropy) and of the Golomb-Rice code take on random
/// positions: H(k) = -(1-k) log2(1-k) - k log2(k/2), and k (b + 1/(1-(1-k)^(2^b)) + 1).
double entropy_bits(double density);
double golomb_bits(double density);
/// The Rice parameter b* = 1 + floor(log2(ln(phi - 1) / ln(1 - k))), at least 0.
int golomb_parameter(double density);

}  // namespace cadre::reshape
