#pragma once

/// Moving tokens to experts and back. A routing is a list of pairs (token, expert, weight) stored
/// by token (CSR: token t owns pairs [offsets[t], offsets[t + 1])); an expert may appear any number
/// of times, a token may own no pair.

#include <cstdint>

namespace cadre::kernels {

/// Stable counting sort of pairs by expert. expert [pairs] in [0, experts).
/// Writes expert_offsets [experts + 1] and order [pairs]: order[slot] = pair, pairs of one expert
/// contiguous and in rising pair order. Throws cadre::Error for an id out of range.
void sort_by_expert(const int32_t* expert, int64_t pairs, int64_t experts, int64_t* expert_offsets,
                    int64_t* order);

/// y[slot] = x[rows[slot]]: x [*, width], rows [slots], y [slots, width].
void gather_rows(const float* x, const int64_t* rows, int64_t slots, int64_t width, float* y);

/// Weighted combine without races: y[t] = sum over t's pairs of weight[pair] *
/// x[slot_of_pair[pair]], in pair order (the same bits for any number of threads). A token without
/// pairs gets zeros. token_offsets [tokens + 1], slot_of_pair [pairs], weight [pairs] (null = all
/// ones), x [slots, width], y [tokens, width].
void combine_rows(const float* x, const int64_t* token_offsets, const int64_t* slot_of_pair,
                  const float* weight, int64_t tokens, int64_t width, float* y);

/// Backward of combine_rows: dx[slot_of_pair[p]] = weight[p] * dy[token of p] and
/// dweight[p] = <x[slot_of_pair[p]], dy[token of p]>. dweight may be null; weight null = all ones.
void combine_rows_backward(const float* dy, const float* x, const int64_t* token_offsets,
                           const int64_t* slot_of_pair, const float* weight, int64_t tokens,
                           int64_t width, float* dx, float* dweight);

}  // namespace cadre::kernels
