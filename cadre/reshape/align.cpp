#include "cadre/reshape/align.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/kernels/gemm.h"
#include "cadre/reshape/assignment.h"

namespace cadre::reshape {
namespace {

using kernels::gemm;
using kernels::Op;

/// Rows of C that are computed at a time for candidate lists: 256 x 14336 floats are 15 MB.
constexpr int64_t kTileRows = 256;

/// Writes rows [first, first + count) of C, `stride` floats apart.
using AffinityRows = std::function<void(int64_t first, int64_t count, float* out)>;

void check_same(const ExpertView& a, const ExpertView& b) {
  if (a.hidden != b.hidden || a.inner != b.inner || (a.gate == nullptr) != (b.gate == nullptr)) {
    throw UsageError("align: experts of {} x {} and {} x {} cannot be matched", a.inner, a.hidden,
                     b.inner, b.hidden);
  }
}

void weight_affinity(const ExpertView& a, const ExpertView& b, int64_t first, int64_t count,
                     float* out) {
  const int64_t d = a.hidden, h = a.inner;
  gemm(Op::kNone, Op::kTranspose, count, h, d, 1, a.up + first * d, d, b.up, d, 0, out, h);
  if (a.gate != nullptr) {
    gemm(Op::kNone, Op::kTranspose, count, h, d, 1, a.gate + first * d, d, b.gate, d, 1, out, h);
  }
  gemm(Op::kTranspose, Op::kNone, count, h, d, 1, a.down + first, h, b.down, h, 1, out, h);
}

float weight_affinity_of(const ExpertView& a, const ExpertView& b, int64_t i, int64_t j) {
  double sum = 0;
  for (int64_t c = 0; c < a.hidden; ++c) {
    sum += double{a.up[i * a.hidden + c]} * b.up[j * a.hidden + c];
    sum += double{a.down[c * a.inner + i]} * b.down[c * a.inner + j];
    if (a.gate != nullptr) sum += double{a.gate[i * a.hidden + c]} * b.gate[j * a.hidden + c];
  }
  return static_cast<float>(sum);
}

/// The k best columns of one row, the lower column first among equals.
void keep_best(const float* row, int64_t n, int64_t k, Candidate* out) {
  std::vector<int32_t> order(static_cast<size_t>(n));
  for (size_t j = 0; j < order.size(); ++j) order[j] = static_cast<int32_t>(j);
  std::nth_element(order.begin(), order.begin() + (k - 1), order.end(), [&](int32_t x, int32_t y) {
    return row[x] != row[y] ? row[x] > row[y] : x < y;
  });
  for (int64_t c = 0; c < k; ++c) {
    const int32_t column = order[static_cast<size_t>(c)];
    out[c] = {column, row[column]};
  }
}

Alignment to_alignment(Assignment found) {
  return {.neurons = std::move(found.columns), .score = found.score, .bound = found.bound};
}

Alignment solve(int64_t n, const AlignOptions& options, const AffinityRows& rows,
                const std::function<float(int64_t, int64_t)>& score) {
  if (n <= options.exact_up_to) {
    std::vector<float> all(static_cast<size_t>(n * n));
    rows(0, n, all.data());
    return to_alignment(assign_exact(n, all.data()));
  }
  const int64_t k = std::min(options.candidates, n);
  std::vector<Candidate> candidates(static_cast<size_t>(n * k));
  std::vector<float> tile(static_cast<size_t>(kTileRows * n));
  for (int64_t first = 0; first < n; first += kTileRows) {
    const int64_t count = std::min(kTileRows, n - first);
    rows(first, count, tile.data());
    parallel_for(count, 8, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        keep_best(tile.data() + i * n, n, k, candidates.data() + (first + i) * k);
      }
    });
  }
  return to_alignment(assign_candidates(n, k, candidates, score));
}

/// Columns of [T, H] with mean 0 and length 1; zero where they never move.
std::vector<float> standardized(int64_t tokens, int64_t inner, const float* x) {
  std::vector<float> out(x, x + tokens * inner);
  for (int64_t j = 0; j < inner; ++j) {
    double mean = 0, squares = 0;
    for (int64_t t = 0; t < tokens; ++t) mean += x[t * inner + j];
    mean /= static_cast<double>(std::max<int64_t>(tokens, 1));
    for (int64_t t = 0; t < tokens; ++t) squares += std::pow(x[t * inner + j] - mean, 2);
    const double factor = squares > 1e-24 ? 1 / std::sqrt(squares) : 0;
    for (int64_t t = 0; t < tokens; ++t) {
      out[static_cast<size_t>(t * inner + j)] =
          static_cast<float>((x[t * inner + j] - mean) * factor);
    }
  }
  return out;
}

}  // namespace

Alignment align_by_weights(const ExpertView& reference, const ExpertView& other,
                           const AlignOptions& options) {
  check_same(reference, other);
  return solve(
      reference.inner, options,
      [&](int64_t first, int64_t count, float* out) {
        weight_affinity(reference, other, first, count, out);
      },
      [&](int64_t i, int64_t j) { return weight_affinity_of(reference, other, i, j); });
}

Alignment align_by_activations(int64_t tokens, int64_t inner, const float* reference,
                               const float* other, const AlignOptions& options) {
  const auto a = standardized(tokens, inner, reference), b = standardized(tokens, inner, other);
  return solve(
      inner, options,
      [&](int64_t first, int64_t count, float* out) {
        gemm(Op::kTranspose, Op::kNone, count, inner, tokens, 1, a.data() + first, inner, b.data(),
             inner, 0, out, inner);
      },
      [&](int64_t i, int64_t j) {
        double sum = 0;
        for (int64_t t = 0; t < tokens; ++t) {
          sum +=
              double{a[static_cast<size_t>(t * inner + i)]} * b[static_cast<size_t>(t * inner + j)];
        }
        return static_cast<float>(sum);
      });
}

int64_t align_scratch_bytes(int64_t inner, const AlignOptions& options) {
  constexpr int64_t kFloat = sizeof(float);
  if (inner <= options.exact_up_to) return inner * inner * kFloat + 64 * inner;
  const auto list = options.candidates * static_cast<int64_t>(sizeof(Candidate));
  return kTileRows * inner * kFloat + inner * (list + 128);
}

void permute_rows(std::span<const int32_t> order, int64_t columns, const float* rows, float* out) {
  for (size_t i = 0; i < order.size(); ++i) {
    std::copy_n(rows + order[i] * columns, columns, out + static_cast<int64_t>(i) * columns);
  }
}

void permute_columns(std::span<const int32_t> order, int64_t rows, const float* matrix,
                     float* out) {
  const auto n = static_cast<int64_t>(order.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < n; ++i) {
      out[r * n + i] = matrix[r * n + order[static_cast<size_t>(i)]];
    }
  }
}

}  // namespace cadre::reshape
