#pragma once

/// Experts' hidden neurons in corresponding order: a gated feed-forward expert is the same function
/// under any permutation of its inner neurons, so two experts can only be averaged after their
/// neurons are matched.
///
/// Weight matching (Li et al., "Merge, Then Compress", 2024, section 3.1; after Ainsworth et al.,
/// "Git Re-Basin", 2023): C[i, j] = <gate row i, gate row j> + <up row i, up row j> + <down column
/// i, down column j> between the reference's neuron i and the other's neuron j; the permutation is
/// the assignment that maximises the sum. The paper's experts have no gate: leave it null.
/// Activation matching: C is the Pearson correlation of the neurons' activations on shared tokens.

#include <cstdint>
#include <span>
#include <vector>

namespace cadre::reshape {

/// One expert. gate, up [H, D], down [D, H]; gate is null for a plain MLP.
struct ExpertView {
  int64_t hidden = 0;  ///< D
  int64_t inner = 0;   ///< H
  const float* gate = nullptr;
  const float* up = nullptr;
  const float* down = nullptr;
};

struct AlignOptions {
  /// Up to this many neurons the assignment is exact: H^2 floats and about H^3 steps at worst.
  int64_t exact_up_to = 4096;
  /// Beyond it, each neuron's best partners only: 12 H candidates bytes.
  int64_t candidates = 64;
};

struct Alignment {
  std::vector<int32_t> neurons;  ///< [H]: place i takes the other's neuron neurons[i]
  double score = 0;              ///< sum of C over the pairs
  double bound = 0;              ///< what no permutation exceeds; equal to score when exact
};

/// Throws UsageError when shapes differ or weights are not finite.
Alignment align_by_weights(const ExpertView& reference, const ExpertView& other,
                           const AlignOptions& options = {});
/// Activations [T, H] of both on the same tokens. A neuron that never moves correlates with none.
Alignment align_by_activations(int64_t tokens, int64_t inner, const float* reference,
                               const float* other, const AlignOptions& options = {});

/// Bytes that align_by_weights takes beside its inputs.
int64_t align_scratch_bytes(int64_t inner, const AlignOptions& options = {});

/// out[i] = rows[order[i]] of [n, columns]: gate and up.
void permute_rows(std::span<const int32_t> order, int64_t columns, const float* rows, float* out);
/// out[:, i] = matrix[:, order[i]] of [rows, n]: down.
void permute_columns(std::span<const int32_t> order, int64_t rows, const float* matrix, float* out);

}  // namespace cadre::reshape
