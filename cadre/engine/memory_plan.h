#pragma once

/// What a model needs, what a budget gives it, and how fast that will be: before anything is
/// loaded. Memory goes to the trunk first, then to keys and values, then to the expert cache.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "cadre/engine/expert_files.h"
#include "cadre/engine/kv_type.h"
#include "cadre/engine/streaming_provider.h"
#include "cadre/engine/tensor_source.h"
#include "cadre/engine/trace.h"

namespace cadre::engine {

/// Bytes a second.
struct Bandwidths {
  double memory = 10e9;  ///< all threads reading
  double disk = 1e9;     ///< random reads of experts, a few in flight
};

/// About 0.3 s. Memory: `threads` threads sum a buffer larger than the caches. Disk: experts at
/// random through the store's reader.
Bandwidths measure_bandwidths(const ExpertFiles& files, int threads);

struct PlanRequest {
  int64_t memory = 0;      ///< budget of the whole process
  int64_t context = 4096;  ///< tokens of keys and values
  KvType kv_type = KvType::kBf16;
  int64_t pass_tokens = 512;  ///< most tokens a forward pass takes at once
  Bandwidths bandwidths = {};
  const RouteTrace* trace = nullptr;  ///< routes of this model to forecast hits from
};

struct MemoryPlan {
  int64_t budget = 0;
  int64_t process = 0;  ///< program, threads, tokenizer
  int64_t trunk = 0;    ///< weights that every token needs
  int64_t keys_values = 0;
  int64_t activations = 0;
  SlotPlan experts;          ///< cache; all zero for a dense model
  int64_t expert_bytes = 0;  ///< of one
  int64_t expert_count = 0;
  int64_t cycle = 0;     ///< experts that one token needs: K x layers with experts
  int64_t least = 0;     ///< the smallest budget that works with this context
  int64_t resident = 0;  ///< the budget that holds everything
  double hit_rate = 1;
  std::string hit_source;                         ///< what the forecast rests on
  double compute_seconds = 0, stall_seconds = 0;  ///< a token

  int64_t total() const { return process + trunk + keys_values + activations + experts.bytes; }
  double cycles() const {
    return cycle > 0 ? static_cast<double>(experts.capacity) / static_cast<double>(cycle) : 0;
  }
  double tokens_per_second() const { return 1 / (compute_seconds + stall_seconds); }
};

/// Throws UsageError that says the least memory when the budget is below it, or when the trace is
/// another model's.
MemoryPlan plan_memory(const TensorSource& source, const ExpertFiles& files,
                       const PlanRequest& request, const PackedType& packed_type = stays_as_stored);

/// Bytes of everything but the routed experts, in panel form.
int64_t trunk_bytes(const TensorSource& source, const PackedType& packed_type = stays_as_stored);

/// Share of hits of the default policy with a cache of so many cycles, when nothing is known of the
/// text: replay of published routes of Qwen3-30B-A3B (0.5 to 6 cycles), linear between, 1 when
/// everything fits.
double typical_hit_rate(double cycles, double cycles_of_all);

}  // namespace cadre::engine
