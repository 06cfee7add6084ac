#include "cadre/engine/expert_cache.h"

#include <algorithm>
#include <limits>

#include "cadre/base/error.h"

namespace cadre::engine {

ExpertCache::ExpertCache(const Options& options, std::unique_ptr<CachePolicy> policy)
    : options_(options), policy_(std::move(policy)) {
  // More slots than experts would never be filled.
  options_.capacity = std::min(options_.capacity, options_.grid.size());
  options_.staging =
      std::min(options_.staging, std::max<int64_t>(1, options_.grid.size() - options_.capacity));
  const int64_t count = options_.capacity + options_.staging;
  if (options_.capacity < 0 || options_.staging < 1 || count > std::numeric_limits<int32_t>::max())
    throw UsageError("an expert cache of {} experts and {} staging slots is impossible",
                     options.capacity, options.staging);
  entries_.resize(options_.grid.size());
  slots_.assign(count, -1);
  for (int64_t slot = count - 1; slot >= 0; --slot) free_.push_back(static_cast<int32_t>(slot));
}

int64_t ExpertCache::least() const {
  int64_t best = -1;
  double best_keep = std::numeric_limits<double>::infinity();
  for (const int64_t id : slots_) {
    if (!evictable(id)) continue;
    const double keep = policy_->keep(id);
    if (best < 0 || keep < best_keep) {
      best = id;
      best_keep = keep;
    }
  }
  return best;
}

void ExpertCache::evict(int64_t id) {
  drop(id);
  ++evictions_;
}

int32_t ExpertCache::fill(int64_t id) {
  const int32_t slot = free_.back();
  free_.pop_back();
  slots_[slot] = id;
  entries_[id] = {.state = State::kLoading, .pinned = entries_[id].pinned, .slot = slot};
  return slot;
}

std::optional<int32_t> ExpertCache::reserve(int64_t id) {
  if (free_.empty()) {
    const int64_t victim = least();
    if (victim < 0) return std::nullopt;
    evict(victim);
  }
  return fill(id);
}

std::optional<int32_t> ExpertCache::reserve_guess(int64_t id, double keep) {
  if (occupied() >= options_.capacity) {
    const int64_t victim = least();
    if (victim < 0 || policy_->keep(victim) >= keep) return std::nullopt;
    evict(victim);
  }
  if (free_.empty()) return std::nullopt;
  return fill(id);
}

void ExpertCache::loaded(int64_t id) { entries_[id].state = State::kResident; }

void ExpertCache::drop(int64_t id) {
  Entry& entry = entries_[id];
  slots_[entry.slot] = -1;
  free_.push_back(entry.slot);
  entry = {};
}

void ExpertCache::trim() {
  const int64_t surplus = occupied() - options_.capacity;
  if (surplus <= 0) return;
  victims_.clear();
  for (const int64_t id : slots_)
    if (evictable(id)) victims_.emplace_back(policy_->keep(id), id);
  const auto count = std::min<int64_t>(surplus, static_cast<int64_t>(victims_.size()));
  std::partial_sort(victims_.begin(), victims_.begin() + count, victims_.end());
  for (int64_t i = 0; i < count; ++i) evict(victims_[i].second);
}

std::vector<int64_t> plec_slots(const std::vector<int64_t>& demand, int64_t capacity) {
  std::vector<int64_t> slots = demand;
  int64_t left = capacity;
  for (int64_t& count : slots) {
    count = std::min(count, left);
    left -= count;
  }
  return slots;
}

}  // namespace cadre::engine
