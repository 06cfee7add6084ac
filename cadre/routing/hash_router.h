#pragma once

/// Routing by token id (Roller et al., "Hash Layers For Large Sparse Models", 2021): a fixed table
/// says which expert works on which token; nothing is learned. "Balanced assignment" of the paper:
/// ids by falling frequency, each to the expert with the least load so far, so that experts get
/// equal shares of the text although a few ids make most of it. One expert a token, weight 1.

#include <torch/torch.h>

#include <vector>

#include "cadre/routing/router.h"

namespace cadre {

struct Hash {
  int64_t vocabulary = 0;
  /// Occurrences of each id in the training text; empty = all alike, dealt out by `seed`.
  std::vector<int64_t> frequencies = {};
  uint64_t seed = 0;  ///< order among ids of equal frequency; give each layer its own
};

/// Buffer: table [V] float32, the expert of each id, as a checkpoint carries it (exact below 2^24).
class HashRouter : public Router {
 public:
  /// Throws UsageError: no experts, no vocabulary, frequencies of another size or below 0.
  HashRouter(int64_t experts, const Hash& options);

  /// Throws UsageError without token ids, or for an id outside the table.
  Routing route(const RouteInput& input) override;
  int64_t experts() const override { return experts_; }

  /// A new table, once the frequencies of the training text are known. Same errors as above.
  void assign(const Hash& options);

  torch::Tensor table;

 private:
  int64_t experts_;
};

/// table[id] = expert; the rule above.
std::vector<int64_t> balanced_hash(int64_t experts, const Hash& options);

}  // namespace cadre
