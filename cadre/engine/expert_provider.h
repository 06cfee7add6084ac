#pragma once

/// How the forward pass gets at experts' weights, wherever they live. The forward pass names what a
/// layer needs and computes what is ready; results never depend on what was resident.
///
/// One layer: begin_layer(), then take_ready() until it returns nothing; panels() of what it handed
/// out, release() when done with it; end_layer(). All calls come from one thread, except panels(),
/// which any thread of the team may call between take_ready() and release().

#include <cstdint>
#include <span>

#include "cadre/kernels/panels.h"

namespace cadre::engine {

/// One expert's three matrices in panel form, ready to compute with. (Experts' biases are few, and
/// stay in memory with the trunk.)
struct ExpertPanels {
  kernels::PanelMatrix gate, up, down;
};

struct ExpertCounters {
  int64_t hits = 0, misses = 0, prefetched = 0, prefetch_used = 0;
  int64_t bytes_read = 0;
  double stall_seconds = 0;
};

/// What a pass does to one sequence: it generates, or reads on in the prompt.
struct PassSlice {
  int32_t sequence;
  int32_t token = 0;                   ///< the one that a generating sequence feeds
  std::span<const int32_t> text = {};  ///< all of the prompt so far, what the pass reads included;
                                       ///< empty when generating
};

class ExpertProvider {
 public:
  virtual ~ExpertProvider() = default;

  /// A pass through the layers is about to begin: a hint for predictors that see tokens.
  virtual void begin_pass(std::span<const PassSlice> slices) { (void)slices; }

  /// Whether an expert's weights are in memory now: what skip-cold asks before begin_layer().
  virtual bool is_resident(int64_t layer, int32_t expert) const = 0;

  /// Announces the experts that `layer` needs after its router ran (ascending ids, none twice),
  /// pins those in memory and starts reading the others. `weights[i]` is the summed router weight
  /// of experts[i], for policies; `tokens` the number of tokens in the pass: one to a few when
  /// decoding, hundreds in prefill, where the readings go through a ring instead of the cache.
  virtual void begin_layer(int64_t layer, std::span<const int32_t> experts,
                           std::span<const float> weights, int64_t tokens) = 0;

  /// Indices into begin_layer's list of the experts that are ready and were not handed out yet;
  /// waits only when none is. Empty when all were handed out. Missing experts arrive about in the
  /// order announced. Valid until the next call. Throws IoError when a read failed.
  virtual std::span<const int32_t> take_ready() = 0;

  /// The panels of a handed-out expert; valid until it is released.
  virtual ExpertPanels panels(int64_t layer, int32_t expert) const = 0;

  /// The forward pass is done with this expert: its memory may serve the next reading before the
  /// layer ends (a prefill chunk may need more experts than fit).
  virtual void release(int64_t layer, int32_t expert) = 0;

  /// The layer has run, or failed: unpins, evicts, and lets prefetching go on.
  virtual void end_layer(int64_t layer) = 0;

  /// Hints for what comes: the normalised hidden states [tokens, hidden] that the router of `layer`
  /// saw, and what it chose (`experts` [tokens, k], -1 = no expert), for look-ahead predictors.
  virtual void observe(int64_t layer, const float* hidden, int64_t tokens,
                       std::span<const int32_t> experts) = 0;

  virtual ExpertCounters counters() const = 0;
};

}  // namespace cadre::engine
