#pragma once

/// A matrix as low rank plus a few whole rows: W = U V + S, S zero but for the rows kept.
///
/// Li et al., "Merge, Then Compress" (2024), section 3.3, after LoSparse (Li et al., 2023): U = U_r
/// sqrt(Sigma_r), V = sqrt(Sigma_r) V_r^T of the truncated singular value decomposition, S = W - U
/// V pruned by rows (output units). The paper prunes while training; here the rows are chosen at
/// once, by given importances or by how much of W they hold.

#include <cstdint>
#include <span>
#include <vector>

namespace cadre::reshape {

struct LowRankSparse {
  int64_t rows = 0, columns = 0, rank = 0;
  std::vector<float> u;              ///< [rows, rank]
  std::vector<float> v;              ///< [rank, columns]
  std::vector<int32_t> sparse_rows;  ///< rising
  std::vector<float> sparse;         ///< [sparse_rows, columns]

  int64_t numbers() const {
    return static_cast<int64_t>(u.size() + v.size() + sparse.size() + sparse_rows.size());
  }
};

struct LowRankOptions {
  int64_t rank = 32;
  double rows_kept = 0.1;  ///< share of S's rows, rounded down
  uint64_t seed = 0;       ///< of the randomised decomposition
  /// Up to this many singular values the decomposition is exact; beyond it randomised (Halko,
  /// Martinsson, Tropp, 2011, algorithm 4.4 with 3 rounds and 10 spare columns).
  int64_t exact_up_to = 512;
};

/// `importance` [rows] chooses the rows kept (largest first, ties: the lower); empty = the squared
/// length of what U V misses of a row. Throws UsageError for a rank outside [1, min(rows,
/// columns)], a share outside [0, 1], or numbers that are not finite.
LowRankSparse factor_low_rank_sparse(int64_t rows, int64_t columns, const float* w,
                                     const LowRankOptions& options,
                                     std::span<const double> importance = {});

/// U V + S as [rows, columns].
std::vector<float> expand(const LowRankSparse& factors);

/// ||W||_F^2 / ||W||_2^2: how many directions a matrix really uses.
double stable_rank(int64_t rows, int64_t columns, const float* w);

}  // namespace cadre::reshape
