#pragma once

/// The linear assignment problem: n rows, n columns, each row gets its own column, the sum of the
/// chosen scores is as large as can be.
///
/// Exact: Jonker and Volgenant, "A shortest augmenting path algorithm for dense and sparse linear
/// assignment problems" (1987): column reduction, augmenting row reduction, shortest paths.
/// Bounded: the same shortest paths over each row's best candidates only, for matrices that do not
/// fit in memory (14336 neurons: 822 MB of scores, 7 MB of lists of 64).

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace cadre::reshape {

struct Assignment {
  std::vector<int32_t> columns;  ///< [n]: row i gets column columns[i]; a permutation
  double score = 0;              ///< sum of the chosen scores
  double bound = 0;              ///< no assignment scores more than this
};

/// The best assignment of `scores` [n, n]; ties are settled the same way every time. O(n^3) at
/// worst, about 10 n^2 steps a free row in practice. Throws UsageError for scores that are not
/// finite.
Assignment assign_exact(int64_t n, const float* scores);

/// One row's candidates.
struct Candidate {
  int32_t column;
  float score;
};

/// The best assignment over candidates [n, k] (each row's `k` best, no column twice in a row). Rows
/// that no chain of exchanges can serve get what columns are left, by an exact assignment among
/// themselves of score(row, column). `bound` is the sum of the rows' best candidates.
Assignment assign_candidates(int64_t n, int64_t k, std::span<const Candidate> candidates,
                             const std::function<float(int64_t, int64_t)>& score);

}  // namespace cadre::reshape
