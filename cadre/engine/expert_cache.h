#pragma once

/// Which expert is in which slot of the cache: bookkeeping only, no bytes, so that replaying a
/// trace runs the very code that serves. There are `capacity` slots that stay filled and `staging`
/// ones into which a layer's missing experts are read before anything is evicted: after the layer
/// its own experts may be the ones to go.

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "cadre/engine/cache_policy.h"

namespace cadre::engine {

class ExpertCache {
 public:
  enum class State : uint8_t { kAbsent, kLoading, kResident };

  struct Options {
    ExpertGrid grid;
    int64_t capacity = 0;  ///< experts that stay between layers
    int64_t staging = 1;   ///< slots above it; at least 1
  };

  /// Throws UsageError when there would be no slot or more than 2^31.
  ExpertCache(const Options& options, std::unique_ptr<CachePolicy> policy);

  CachePolicy& policy() { return *policy_; }
  const Options& options() const { return options_; }
  int64_t slots() const { return static_cast<int64_t>(slots_.size()); }
  /// Experts loading or resident.
  int64_t occupied() const { return slots() - static_cast<int64_t>(free_.size()); }
  /// More than the capacity, so that trim() would evict.
  bool over_full() const { return occupied() > options_.capacity; }
  bool has_free_slot() const { return !free_.empty(); }
  State state(int64_t id) const { return entries_[id].state; }
  /// The slot of an expert that is not absent.
  int32_t slot(int64_t id) const { return entries_[id].slot; }

  /// Gives an absent expert a slot to load into: a free one, or that of the expert worth least that
  /// is neither pinned nor loading. Empty when there is none.
  std::optional<int32_t> reserve(int64_t id);
  /// The same for a guess: only slots that the capacity leaves free, or of an expert worth less
  /// than `keep`, so that the staging slots stay free for the layer's own.
  std::optional<int32_t> reserve_guess(int64_t id, double keep);
  /// Its bytes have arrived.
  void loaded(int64_t id);
  /// Gives up an expert that is not pinned: its reading failed, was cancelled, or is of no use.
  void drop(int64_t id);

  /// Pinned experts are never evicted. Pins do not nest.
  void pin(int64_t id) { entries_[id].pinned = true; }
  void unpin(int64_t id) { entries_[id].pinned = false; }
  bool pinned(int64_t id) const { return entries_[id].pinned; }

  /// Evicts what is worth least until the capacity holds; pinned and loading experts stay. One scan
  /// of the slots: about 2 ns each.
  void trim();

  int64_t evictions() const { return evictions_; }

 private:
  struct Entry {
    State state = State::kAbsent;
    bool pinned = false;
    int32_t slot = -1;
  };
  bool evictable(int64_t id) const {
    return id >= 0 && entries_[id].state == State::kResident && !entries_[id].pinned;
  }
  /// The evictable expert worth least, -1 when there is none.
  int64_t least() const;
  void evict(int64_t id);
  int32_t fill(int64_t id);

  Options options_;
  std::unique_ptr<CachePolicy> policy_;
  std::vector<Entry> entries_;  ///< by expert
  std::vector<int64_t> slots_;  ///< the expert in each slot, -1 = none
  std::vector<int32_t> free_;
  std::vector<std::pair<double, int64_t>> victims_;  ///< scratch of trim()
  int64_t evictions_ = 0;
};

/// ExpertFlow's division of a cache over layers (2024): each gets the slots its forecast demands;
/// when they are more than `capacity`, the farthest layers give way first. `demand` is by layer in
/// the order they come.
std::vector<int64_t> plec_slots(const std::vector<int64_t>& demand, int64_t capacity);

}  // namespace cadre::engine
