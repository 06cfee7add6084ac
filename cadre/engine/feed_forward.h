#pragma once

/// Gated feed-forward layers: dense ones, shared experts and routed experts are all jobs of one
/// kind.

#include <cstdint>
#include <span>
#include <vector>

#include "cadre/engine/compute.h"
#include "cadre/kernels/panel_ffn.h"

namespace cadre::engine {

/// One expert and the tokens it works on.
struct FeedForwardJob {
  kernels::PanelExpert expert = {};
  const int32_t* tokens = nullptr;  ///< rows of x; null = rows 0 .. count
  const float* weights = nullptr;   ///< of each token; null = 1
  int64_t count = 0;
  int64_t first_pair = 0;  ///< where its (token, expert) pairs begin among its group's pairs

  int64_t token(int64_t i) const { return tokens == nullptr ? i : tokens[i]; }
  float weight(int64_t i) const { return weights == nullptr ? 1.0F : weights[i]; }
};

/// Adds jobs' results to out, out[t] += weight * expert(x[t]), in the jobs' order.
class FeedForward {
 public:
  explicit FeedForward(Team& team) : team_(team) {}

  /// What follows reads x and adds to out [tokens, hidden], which is zeroed here.
  void begin(const Activations& x, int64_t tokens, int64_t hidden, float* out);
  /// The next jobs have `pairs` pairs in all, of `inner` hidden values each.
  void begin_group(int64_t pairs, int64_t inner);
  /// Runs jobs and adds their results at once.
  void run(std::span<const FeedForwardJob> jobs);
  /// Runs jobs and keeps each pair's result for add_kept(), which takes pairs * hidden floats.
  void run_and_keep(std::span<const FeedForwardJob> jobs);
  /// Adds the kept results of these jobs.
  void add_kept(std::span<const FeedForwardJob> jobs);

 private:
  kernels::InnerActivations inner_of(const FeedForwardJob& job);
  void run_inner(std::span<const FeedForwardJob> jobs);
  template <class Use>
  void run_down(std::span<const FeedForwardJob> jobs, Use use);

  Team& team_;
  const Activations* x_ = nullptr;
  int64_t hidden_ = 0, pairs_ = 0;
  float* out_ = nullptr;
  Activations inner_;
  std::vector<float> kept_;  ///< [pairs, hidden]
};

/// Whether products with weights of this type read floats.
bool reads_floats(kernels::BlockType type);

}  // namespace cadre::engine
