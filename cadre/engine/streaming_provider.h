#pragma once

/// Experts from disk: those that are used often stay in a cache, missing ones are read while others
/// compute, likely ones ahead of time. What the forward pass computes never depends on it.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cadre/engine/expert_cache.h"
#include "cadre/engine/expert_files.h"
#include "cadre/engine/expert_provider.h"
#include "cadre/engine/expert_store.h"
#include "cadre/engine/expert_usage.h"
#include "cadre/engine/predictor.h"
#include "cadre/engine/prefetch.h"
#include "cadre/engine/slab.h"

namespace cadre::engine {

struct StreamingOptions {
  int64_t memory = 0;        ///< bytes for cache, staging slots and reading buffers
  int64_t experts_used = 8;  ///< K: what a token needs of a layer
  std::string policy = "score";
  std::string predictor = "gate";             ///< guesses are read with any but "none"
  GateFunction gate = {};                     ///< for predictor gate
  std::filesystem::path predictor_file = {};  ///< for predictor path
  std::vector<float> usage = {};              ///< of earlier runs (load_usage()), or empty
  /// Given the rates of use when the provider goes, for the next run; may be empty.
  std::function<void(const std::vector<float>&)> keep_usage = {};
  int64_t prefill_tokens = 33;  ///< passes of so many tokens or more leave the cache as it is
  ReadMethod method = ReadMethod::kRing;
  Team* team = nullptr;  ///< shares the work that follows a read; outlives the provider
  PrefetchGauge::Options prefetch = {};
};

/// How a memory budget is divided.
struct SlotPlan {
  int64_t capacity = 0;  ///< experts that stay
  int64_t staging = 0;   ///< slots for those on their way
  int64_t bytes = 0;     ///< of all slots and reading buffers
};

/// The best division of `memory`: up to K staging slots, the rest capacity, and no more slots than
/// experts. Throws UsageError when it is below least_streaming_bytes().
SlotPlan plan_slots(const ExpertFiles& files, int64_t experts_used, int64_t memory);
/// Two slots (one is read while the other computes) and the reading buffers.
int64_t least_streaming_bytes(const ExpertFiles& files);
/// All experts at once.
int64_t resident_bytes(const ExpertFiles& files);

class StreamingProvider final : public ExpertProvider {
 public:
  /// Opens the files. `files` is kept; what its memory pointers point to must outlive the provider.
  /// `reader` replaces the files' own, for tests. Throws IoError, UsageError.
  StreamingProvider(ExpertFiles files, const StreamingOptions& options,
                    std::unique_ptr<FileReader> reader = nullptr);
  ~StreamingProvider() override;

  void begin_pass(std::span<const PassSlice> slices) override;
  bool is_resident(int64_t layer, int32_t expert) const override;
  void begin_layer(int64_t layer, std::span<const int32_t> experts, std::span<const float> weights,
                   int64_t tokens) override;
  std::span<const int32_t> take_ready() override;
  ExpertPanels panels(int64_t layer, int32_t expert) const override;
  void release(int64_t layer, int32_t expert) override;
  void end_layer(int64_t layer) override;
  void observe(int64_t layer, const float* hidden, int64_t tokens,
               std::span<const int32_t> experts) override;
  ExpertCounters counters() const override;

  const SlotPlan& slots() const { return plan_; }
  std::string_view reader_name() const { return store_.reader_name(); }
  const ExpertUsage& usage() const { return usage_; }

 private:
  /// An expert of the layer that runs.
  enum class Stage : uint8_t { kNoSlot, kReading, kReady, kHanded, kReleased };
  struct Wanted {
    int64_t id;
    Stage stage;
    bool missed;  ///< was not in memory when the layer began
  };
  enum class Evict : uint8_t { kAsTheCacheSays, kWhateverGoes };

  std::byte* slot_data(int64_t id) const;
  int32_t index_of(int64_t id) const;
  void start_pass();
  void want(int64_t id);
  void use(int64_t id, float weight);
  void drop_stale_guesses(int64_t layer);
  bool ring_is_turning() const;
  void find_slots(Evict evict);
  void take(std::span<const ExpertStore::Arrival> arrivals);
  bool is_seed(int64_t id) const;
  void seed(int64_t layer);
  void check_guesses(std::span<const int32_t> experts);
  void prefetch();
  bool submit_guess(int64_t id, double probability);

  ExpertFiles files_;
  StreamingOptions options_;
  SlotPlan plan_;
  Slab slab_;
  ExpertCache cache_;
  ExpertStore store_;  ///< after the slab: waits for reads into it
  std::unique_ptr<Predictor> predictor_;
  PrefetchGauge gauge_;
  RankCalibration calibration_;
  ExpertUsage usage_;

  int64_t pass_ = -1, layer_ = -1;
  bool decoding_ = true, running_ = false;
  std::vector<Wanted> wanted_;
  std::vector<int32_t> ready_, handed_;
  int64_t without_slot_ = 0;        ///< in stage kNoSlot
  std::string error_;               ///< of a wanted expert
  std::vector<int64_t> pass_uses_;  ///< experts used in this pass
  std::vector<int64_t> seeds_;      ///< experts of a prompt's last tokens in layer_
  std::vector<uint8_t> guessed_;    ///< by expert: read on a guess and not used since
  std::vector<int64_t> reading_guesses_;
  std::vector<Guess> guesses_;        ///< for the next layer, best first
  bool guessed_layer_ = false;        ///< guesses_ are of the layer observed last
  bool prefetched_layer_ = false;     ///< and have been submitted
  ExpertStore::Statistics at_layer_;  ///< the store's when the layer before began
  double layer_began_ = 0;
  ExpertCounters counters_;
};

}  // namespace cadre::engine
