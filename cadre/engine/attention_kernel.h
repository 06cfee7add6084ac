#pragma once

/// Attention of a few query rows over one page of 64 cached tokens (Dao et al., "FlashAttention",
/// 2022: the running maximum and sum). One chain defines each result, whatever the block of rows:
///   s[t] = scale * (chain of fma over d of q[d] k[d][t]);  m' = max(m, s[first..last))
///   p[t] = e^(s[t] - m');  c = e^(m - m');  l = l c + (16-lane sum of p)
///   o[d] = (o[d] c) + chain of fma over t of p[t] v[t][d]
/// Keys lie transposed in their page so that lanes are tokens, and no lane is summed across. Of
/// 8-bit keys and values the scores are multiplied by the key's scale after that of attention, and
/// p[t] by the value's scale where o is summed.

#include <cstdint>
#include <limits>

namespace cadre::engine {

constexpr int64_t kPageTokens = 64;

/// A query row (one head of one token) and its running state.
struct AttentionRow {
  const float* q;       ///< [key width]
  float* o;             ///< [value width], the weighted sum so far
  int64_t first, last;  ///< tokens of this page it sees
  float most = -std::numeric_limits<float>::infinity();
  float sum = 0;
};

/// One head's part of a page.
struct AttentionPage {
  const uint16_t* keys;    ///< BF16 [key width][64]
  const uint16_t* values;  ///< BF16 [64][value width]
  int64_t key_width, value_width;
  float scale;
  const uint16_t* next_keys = nullptr;  ///< of the page that comes next: fetched meanwhile
};

/// The same in 8 bits: a value is its integer times its token's scale.
struct Q8AttentionPage {
  const int8_t* keys;         ///< [key width][64]
  const int8_t* values;       ///< [64][value width]
  const float* key_scales;    ///< [64]
  const float* value_scales;  ///< [64]
  int64_t key_width, value_width;
  float scale;
  const int8_t* next_keys = nullptr;  ///< as above
};

/// Adds the page to each row's state. Rows with first >= last are left as they are.
void attend_page(const AttentionPage& page, AttentionRow* rows, int64_t count);
void attend_page(const Q8AttentionPage& page, AttentionRow* rows, int64_t count);

/// Merges the state (most, sum, values [width]) of a later chunk into an earlier one.
struct AttentionState {
  float most, sum;
  float* values;
};
void merge_attention(const AttentionState& later, int64_t width, AttentionState& state);
/// values / sum, where `sink` is one more logit without a value (-inf: none).
void finish_attention(AttentionState& state, float sink, int64_t width);

}  // namespace cadre::engine
