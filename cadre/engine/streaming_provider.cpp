#include "cadre/engine/streaming_provider.h"

#include <algorithm>
#include <chrono>

#include "cadre/base/error.h"
#include "cadre/base/log.h"
#include "cadre/base/units.h"

namespace cadre::engine {
namespace {

constexpr int64_t kLeastSlots = 2;
/// Of a prompt, the experts of so many last tokens stay in the cache for what is generated next.
constexpr int64_t kSeedTokens = 8;
constexpr double kPriorHalfLife = 8;

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::unique_ptr<FileReader> open_reader(const ExpertFiles& files, ReadMethod method,
                                        std::unique_ptr<FileReader> given) {
  if (given) return given;
  return open_file_reader(files.paths, method, ExpertStore::Options().in_flight);
}

std::unique_ptr<CachePolicy> policy_of(const ExpertFiles& files, const StreamingOptions& options) {
  PolicyOptions policy = {.grid = files.grid};
  if (static_cast<int64_t>(options.usage.size()) == files.grid.size()) {
    ExpertUsage usage(files.grid);
    usage.set_rates(options.usage);
    policy.prior = usage.prior(policy.half_life);
  }
  if (options.policy == "belady")
    throw UsageError("cache policy belady needs the future: it serves `cadre replay` only");
  return make_cache_policy(options.policy, policy);
}

}  // namespace

int64_t least_streaming_bytes(const ExpertFiles& files) {
  const int64_t slots = std::min(kLeastSlots, files.count());
  return slots * files.slot_bytes() + ExpertStore::buffer_bytes(files);
}

int64_t resident_bytes(const ExpertFiles& files) {
  int64_t bytes = ExpertStore::buffer_bytes(files);
  if (files.mixed.empty()) return bytes + files.count() * files.slot_bytes();
  for (int64_t id = 0; id < files.grid.size(); ++id) bytes += files.layout_of(id).bytes;
  return bytes;
}

SlotPlan plan_slots(const ExpertFiles& files, int64_t experts_used, int64_t memory) {
  const int64_t least = least_streaming_bytes(files);
  if (memory < least)
    throw UsageError("{} for experts are too few: {} are the least that this model runs in",
                     format_bytes(static_cast<uint64_t>(std::max<int64_t>(0, memory))),
                     format_bytes(static_cast<uint64_t>(least)));
  const int64_t buffers = ExpertStore::buffer_bytes(files);
  const int64_t count = files.count();
  const int64_t slots = std::min((memory - buffers) / files.slot_bytes(), count);
  SlotPlan plan;
  // With all experts in memory nothing is ever on its way for long; below, half of few slots stage.
  plan.staging = slots == count ? 1 : std::clamp<int64_t>(slots / 2, 1, experts_used);
  plan.capacity = slots - plan.staging;
  if (slots == count) plan.capacity = count;
  plan.bytes = slots * files.slot_bytes() + buffers;
  return plan;
}

StreamingProvider::StreamingProvider(ExpertFiles files, const StreamingOptions& options,
                                     std::unique_ptr<FileReader> reader)
    : files_(std::move(files)),
      options_(options),
      plan_(plan_slots(files_, options.experts_used, options.memory)),
      slab_((plan_.capacity + plan_.staging) * files_.slot_bytes()),
      cache_({.grid = files_.grid, .capacity = plan_.capacity, .staging = plan_.staging},
             policy_of(files_, options)),
      store_(files_, open_reader(files_, options.method, std::move(reader)),
             {.from_memory = options.method == ReadMethod::kMapped, .team = options.team}),
      predictor_(make_predictor(options.predictor, {.grid = files_.grid,
                                                    .gate = options.gate,
                                                    .usage = options.usage,
                                                    .half_life = kPriorHalfLife,
                                                    .file = options.predictor_file})),
      gauge_(options.prefetch),
      calibration_(files_.grid.experts),
      usage_(files_.grid),
      guessed_(files_.grid.size(), 0) {
  if (static_cast<int64_t>(options.usage.size()) == files_.grid.size())
    usage_.set_rates(options.usage);
}

StreamingProvider::~StreamingProvider() {
  if (!pass_uses_.empty()) usage_.add_pass(pass_uses_);
  if (options_.keep_usage && pass_ >= 0) options_.keep_usage(usage_.rates());
}

std::byte* StreamingProvider::slot_data(int64_t id) const {
  return slab_.data() + cache_.slot(id) * files_.slot_bytes();
}

/// Where an expert stands in the layer's list, -1 when it is not wanted. The list is sorted.
int32_t StreamingProvider::index_of(int64_t id) const {
  const auto at =
      std::lower_bound(wanted_.begin(), wanted_.end(), id,
                       [](const Wanted& wanted, int64_t other) { return wanted.id < other; });
  const bool found = at != wanted_.end() && at->id == id;
  return found ? static_cast<int32_t>(at - wanted_.begin()) : -1;
}

bool StreamingProvider::is_resident(int64_t layer, int32_t expert) const {
  return cache_.state(files_.grid.id(layer, expert)) == ExpertCache::State::kResident;
}

void StreamingProvider::begin_pass(std::span<const PassSlice> slices) {
  std::vector<int32_t> sequences, tokens;
  for (const PassSlice& slice : slices) {
    if (!slice.text.empty()) {
      predictor_->begin_sequence(slice.sequence, slice.text);
      continue;
    }
    sequences.push_back(slice.sequence);
    tokens.push_back(slice.token);
  }
  if (!tokens.empty()) cache_.policy().forecast(predictor_->begin_pass(sequences, tokens));
}

void StreamingProvider::start_pass() {
  if (!pass_uses_.empty()) usage_.add_pass(pass_uses_);
  pass_uses_.clear();
  ++pass_;
}

void StreamingProvider::use(int64_t id, float weight) {
  cache_.policy().use(id, weight);
  pass_uses_.push_back(id);
}

/// An expert of the layer that begins.
void StreamingProvider::want(int64_t id) {
  cache_.pin(id);
  const ExpertCache::State state = cache_.state(id);
  if (state != ExpertCache::State::kAbsent && guessed_[id] != 0) ++counters_.prefetch_used;
  guessed_[id] = 0;
  if (state == ExpertCache::State::kResident) {
    ++counters_.hits;
    ready_.push_back(static_cast<int32_t>(wanted_.size()));
    wanted_.push_back({id, Stage::kReady, false});
    return;
  }
  ++counters_.misses;
  if (state == ExpertCache::State::kLoading) {
    store_.promote(id);
    wanted_.push_back({id, Stage::kReading, true});
    return;
  }
  ++without_slot_;
  wanted_.push_back({id, Stage::kNoSlot, true});
}

void StreamingProvider::begin_layer(int64_t layer, std::span<const int32_t> experts,
                                    std::span<const float> weights, int64_t tokens) {
  if (running_) throw Error("layer {} begins before layer {} has ended", layer, layer_);
  if (layer < 0 || layer >= files_.grid.layers || files_.layers[layer].bytes == 0)
    throw Error("layer {} has no routed experts", layer);
  take(store_.poll());
  if (layer <= layer_ || pass_ < 0) start_pass();
  layer_ = layer;
  running_ = true;
  decoding_ = tokens < options_.prefill_tokens;
  check_guesses(experts);
  cache_.policy().reach(pass_, layer);
  for (size_t i = 0; i < experts.size(); ++i) {
    const int64_t id = files_.grid.id(layer, experts[i]);
    // What a prompt reads is not used, so that it is what goes first: the cache survives.
    if (decoding_) use(id, i < weights.size() ? weights[i] : 0.0F);
    want(id);
  }
  drop_stale_guesses(layer);
  find_slots(Evict::kAsTheCacheSays);
  take(store_.poll());
}

/// Guesses whose layer is here or gone, and that were not begun.
void StreamingProvider::drop_stale_guesses(int64_t layer) {
  std::erase_if(reading_guesses_, [&](int64_t id) {
    if (cache_.pinned(id) || cache_.state(id) != ExpertCache::State::kLoading) return true;
    if (files_.grid.layer_of(id) > layer || !store_.cancel(id)) return false;
    cache_.drop(id);
    guessed_[id] = 0;
    return true;
  });
}

/// Whether an expert of a prompt that was read for this layer will give its slot back.
bool StreamingProvider::ring_is_turning() const {
  return !decoding_ && std::any_of(wanted_.begin(), wanted_.end(), [](const Wanted& wanted) {
    return wanted.missed && wanted.stage != Stage::kNoSlot && wanted.stage != Stage::kReleased;
  });
}

/// Slots and readings for the wanted experts that have none. A prompt's go round in the slots that
/// are free when its layer begins, so that it does not flush the cache.
void StreamingProvider::find_slots(Evict evict) {
  for (auto wanted = wanted_.begin(); without_slot_ > 0 && wanted != wanted_.end(); ++wanted) {
    if (wanted->stage != Stage::kNoSlot) continue;
    if (evict == Evict::kAsTheCacheSays && !cache_.has_free_slot() && ring_is_turning()) return;
    if (!cache_.reserve(wanted->id)) return;
    --without_slot_;
    wanted->stage = Stage::kReading;
    store_.submit(wanted->id, slot_data(wanted->id), ExpertStore::Priority::kDemand);
  }
}

void StreamingProvider::take(std::span<const ExpertStore::Arrival> arrivals) {
  for (const ExpertStore::Arrival& arrival : arrivals) {
    const int32_t index = index_of(arrival.id);
    std::erase(reading_guesses_, arrival.id);
    if (!arrival.error.empty()) {
      cache_.drop(arrival.id);
      guessed_[arrival.id] = 0;
      if (index >= 0)
        error_ = arrival.error;
      else
        logger().debug("reading ahead failed: {}", arrival.error);
      continue;
    }
    cache_.loaded(arrival.id);
    if (index < 0) continue;
    wanted_[index].stage = Stage::kReady;
    ready_.push_back(index);
  }
}

std::span<const int32_t> StreamingProvider::take_ready() {
  if (!running_) throw Error("take_ready() outside of a layer");
  take(store_.poll());
  while (ready_.empty() && error_.empty()) {
    const auto waits = [](const Wanted& wanted) {
      return wanted.stage == Stage::kReading || wanted.stage == Stage::kNoSlot;
    };
    if (std::none_of(wanted_.begin(), wanted_.end(), waits)) break;
    find_slots(Evict::kAsTheCacheSays);
    if (store_.pending() == 0) find_slots(Evict::kWhateverGoes);
    if (store_.pending() == 0)
      throw Error("layer {}: {} experts wait for slots and none is released", layer_,
                  without_slot_);
    const double began = now_seconds();
    take(store_.wait());
    counters_.stall_seconds += now_seconds() - began;
  }
  if (!error_.empty()) throw IoError("{}", error_);
  prefetch();
  std::swap(handed_, ready_);
  ready_.clear();
  for (const int32_t index : handed_) wanted_[index].stage = Stage::kHanded;
  return handed_;
}

ExpertPanels StreamingProvider::panels(int64_t layer, int32_t expert) const {
  const int64_t id = files_.grid.id(layer, expert);
  return files_.panels(id, slot_data(id));
}

void StreamingProvider::release(int64_t layer, int32_t expert) {
  const int64_t id = files_.grid.id(layer, expert);
  const int32_t index = index_of(id);
  if (index < 0 || wanted_[index].stage != Stage::kHanded)
    throw Error("expert {} of layer {} was not handed out", expert, layer);
  wanted_[index].stage = Stage::kReleased;
  cache_.unpin(id);
  const bool rings = !decoding_ && wanted_[index].missed && !is_seed(id) && cache_.over_full();
  if (rings) cache_.drop(id);
  if (without_slot_ > 0) {
    find_slots(Evict::kAsTheCacheSays);
    take(store_.poll());
  }
}

bool StreamingProvider::is_seed(int64_t id) const {
  return std::binary_search(seeds_.begin(), seeds_.end(), id);
}

/// After a prompt the cache holds what its last tokens used.
void StreamingProvider::seed(int64_t layer) {
  for (const int64_t id : seeds_)
    if (files_.grid.layer_of(id) == layer) use(id, 0);
  seeds_.clear();
}

void StreamingProvider::end_layer(int64_t layer) {
  if (!running_ || layer != layer_) throw Error("layer {} ends without having begun", layer);
  running_ = false;
  if (!decoding_) seed(layer);
  for (const Wanted& wanted : wanted_) {
    cache_.unpin(wanted.id);
    // After a failure some were never waited for.
    if (wanted.stage == Stage::kReading &&
        cache_.state(wanted.id) == ExpertCache::State::kLoading && store_.cancel(wanted.id))
      cache_.drop(wanted.id);
  }
  wanted_.clear();
  ready_.clear();
  without_slot_ = 0;
  error_.clear();
  take(store_.poll());
  cache_.trim();
  prefetch();
}

void StreamingProvider::observe(int64_t layer, const float* hidden, int64_t tokens,
                                std::span<const int32_t> experts) {
  const bool decoding = tokens < options_.prefill_tokens;
  if (!decoding) {
    const int64_t used = static_cast<int64_t>(experts.size()) / tokens;
    const int64_t last = std::min(tokens, kSeedTokens) * used;
    seeds_.clear();
    for (const int32_t expert : experts.last(last))
      if (expert >= 0) seeds_.push_back(files_.grid.id(layer, expert));
    std::sort(seeds_.begin(), seeds_.end());
    seeds_.erase(std::unique(seeds_.begin(), seeds_.end()), seeds_.end());
  }
  guessed_layer_ = decoding;
  prefetched_layer_ = !decoding;
  if (decoding) predictor_->observe(layer, hidden, tokens, experts);
}

/// Learns from what the layer really needs, and from how long the one before took.
void StreamingProvider::check_guesses(std::span<const int32_t> experts) {
  for (size_t rank = 0; rank < guesses_.size(); ++rank) {
    if (files_.grid.layer_of(guesses_[rank].id) != layer_) break;
    const bool came_true = std::binary_search(experts.begin(), experts.end(),
                                              files_.grid.expert_of(guesses_[rank].id));
    calibration_.learn(static_cast<int64_t>(rank), came_true ? 1.0 : 0.0);
  }
  guesses_.clear();
  const double now = now_seconds();
  const ExpertStore::Statistics statistics = store_.statistics();
  if (layer_began_ > 0 && decoding_) {
    const double total = now - layer_began_;
    gauge_.measure_layer(total - (statistics.demand_seconds - at_layer_.demand_seconds), total);
    gauge_.measure_reading(static_cast<double>(statistics.bytes_read - at_layer_.bytes_read),
                           statistics.busy_seconds - at_layer_.busy_seconds);
  }
  layer_began_ = now;
  at_layer_ = statistics;
}

bool StreamingProvider::submit_guess(int64_t id, double probability) {
  if (cache_.state(id) != ExpertCache::State::kAbsent) return false;
  if (!cache_.reserve_guess(id, cache_.policy().keep_guess(id, probability))) return false;
  store_.submit(id, slot_data(id), ExpertStore::Priority::kGuess);
  reading_guesses_.push_back(id);
  guessed_[id] = 1;
  ++counters_.prefetched;
  return true;
}

/// Once a layer, when nothing demanded is on its way.
void StreamingProvider::prefetch() {
  if (!guessed_layer_ || prefetched_layer_ || store_.demanded() > 0 || without_slot_ > 0) return;
  prefetched_layer_ = true;
  predictor_->guess(2 * options_.experts_used, guesses_);
  int64_t width = gauge_.width(files_.slot_bytes()) - store_.pending();
  int64_t rank = 0, layer = -1;
  for (const Guess& guess : guesses_) {
    if (width <= 0) break;
    rank = files_.grid.layer_of(guess.id) == layer ? rank + 1 : 0;
    layer = files_.grid.layer_of(guess.id);
    const double probability = calibration_.probability(rank);
    if (probability >= gauge_.threshold() && submit_guess(guess.id, probability)) --width;
  }
  take(store_.poll());
}

ExpertCounters StreamingProvider::counters() const {
  ExpertCounters counters = counters_;
  counters.bytes_read = store_.statistics().bytes_read;
  return counters;
}

}  // namespace cadre::engine
