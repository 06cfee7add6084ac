#pragma once

/// Causal attention over paged caches, for any mix of sequences. Each query's chain is fixed: pages
/// in rising order within chunks of 512 tokens, chunks merged in rising order. How the work is cut
/// over threads does not touch it.

#include <cstdint>
#include <span>
#include <vector>

#include "cadre/base/team.h"
#include "cadre/engine/kv_cache.h"

namespace cadre::engine {

/// Consecutive tokens of one sequence whose keys and values are already in its cache.
struct AttentionSpan {
  const KvCache* cache;
  int64_t first_position, tokens;
  const float* q;  ///< [tokens, heads * cached key width]
  float* out;      ///< [tokens, heads * cached value width]
};

/// `sinks`: one logit a head, or empty.
void attend(Team& team, const ModelSpec& spec, int64_t layer, std::span<const float> sinks,
            std::span<const AttentionSpan> spans);

}  // namespace cadre::engine
