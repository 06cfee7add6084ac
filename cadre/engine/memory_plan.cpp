#include "cadre/engine/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <numeric>
#include <thread>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/base/units.h"
#include "cadre/engine/expert_names.h"
#include "cadre/engine/kv_cache.h"
#include "cadre/engine/replay.h"

namespace cadre::engine {
namespace {

/// Program, threads' stacks, a tokenizer of 150,000 words: measured 20-40 MiB.
constexpr int64_t kProcessBytes = int64_t{40} << 20;
/// Experts' outputs that a pass keeps so that experts may run as they arrive.
constexpr int64_t kKeptOutputs = int64_t{16} << 20;
/// The kernels read weights at about this share of the plain reading speed.
constexpr double kKernelShare = 0.8;

int64_t tensor_bytes_in_memory(const SourceTensor& tensor, const PackedType& packed_type) {
  if (tensor.shape.size() < 2) {
    const int64_t count = tensor.shape.empty() ? 1 : tensor.shape[0];
    return count * static_cast<int64_t>(sizeof(float));
  }
  const int64_t columns = tensor.shape.back();
  const int64_t rows = std::accumulate(tensor.shape.begin(), tensor.shape.end() - 1, int64_t{1},
                                       std::multiplies<>());
  return kernels::panel_bytes(packed_type(tensor), rows, columns);
}

int64_t activation_bytes(const ModelSpec& spec, int64_t tokens) {
  const int64_t attention =
      spec.heads * (spec.key_width + spec.value_width) +
      spec.cached_heads() * (spec.cached_key_width() + spec.cached_value_width());
  const int64_t inner = std::max(spec.intermediate + spec.shared_intermediate,
                                 spec.experts_used * spec.expert_intermediate);
  // Values, their 8-bit form and the results beside them: about six hidden states a token.
  const int64_t a_token = 6 * spec.hidden + attention + 2 * inner + 2 * spec.experts;
  return 4 * (tokens * a_token + 2 * spec.vocabulary) + (spec.experts > 0 ? kKeptOutputs : 0);
}

int64_t layers_with_experts(const ExpertFiles& files) {
  return files.grid.experts > 0 ? files.count() / files.grid.experts : 0;
}

void forecast_hits(const ExpertFiles& files, const PlanRequest& request, MemoryPlan& plan) {
  if (plan.experts.capacity >= plan.expert_count) {
    plan.hit_source = "all experts stay in memory";
    return;
  }
  if (request.trace != nullptr) {
    const RouteTrace routes = decode_part(*request.trace);
    if (routes.layers != files.grid.layers || routes.experts != files.grid.experts)
      throw UsageError("the trace has {} layers of {} experts, the model {} of {}", routes.layers,
                       routes.experts, files.grid.layers, files.grid.experts);
    const ReplayOptions warm = {.warm_up = routes.size() / 4};
    plan.hit_rate = replay(routes, "score", plan.experts.capacity, warm).hit_rate();
    plan.hit_source = "replay of the trace";
    return;
  }
  const double all = static_cast<double>(plan.expert_count) / static_cast<double>(plan.cycle);
  plan.hit_rate = typical_hit_rate(plan.cycles(), all);
  plan.hit_source = "published routes of Qwen3-30B-A3B; give a trace of this model for better";
}

void check_budget(const MemoryPlan& plan, const PlanRequest& request) {
  if (plan.budget >= plan.least) return;
  throw UsageError(
      "{} of memory are too few: {} are the least for this model with a context of {} (weights "
      "that "
      "every token needs {}, keys and values {})",
      format_bytes(static_cast<uint64_t>(std::max<int64_t>(0, plan.budget))),
      format_bytes(static_cast<uint64_t>(plan.least)), request.context,
      format_bytes(static_cast<uint64_t>(plan.trunk)),
      format_bytes(static_cast<uint64_t>(plan.keys_values)));
}

double seconds_since(std::chrono::steady_clock::time_point began) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

/// The sum of `count` words (a multiple of 8), a line at a time, fetched ahead as the kernels fetch
/// weights.
uint64_t sum_of(const uint64_t* words, int64_t count) {
  constexpr int64_t kLine = 8, kAhead = 9216 / 8;
  std::array<uint64_t, kLine> sums = {};
  for (int64_t i = 0; i < count; i += kLine) {
    __builtin_prefetch(words + i + kAhead);
    for (int64_t k = 0; k < kLine; ++k) sums[static_cast<size_t>(k)] += words[i + k];
  }
  return std::accumulate(sums.begin(), sums.end(), uint64_t{0});
}

double measure_memory(int threads) {
  constexpr int64_t kWords = (int64_t{128} << 20) / 8;  // a thread: beyond any cache
  const Slab slab(threads * kWords * 8);
  auto* words = reinterpret_cast<uint64_t*>(slab.data());
  std::vector<uint64_t> sums(threads);
  double best = 0;
  // The first round also makes the pages.
  for (int round = 0; round < 5; ++round) {
    const auto began = std::chrono::steady_clock::now();
    std::vector<std::thread> team;
    for (int t = 0; t < threads; ++t)
      team.emplace_back([&, t, round] {
        uint64_t* mine = words + t * kWords;
        if (round == 0) std::fill(mine, mine + kWords, 1);
        sums[t] = sum_of(mine, kWords);
      });
    for (std::thread& thread : team) thread.join();
    if (round > 0)
      best = std::max(best, static_cast<double>(threads * kWords * 8) / seconds_since(began));
  }
  if (sums[0] != kWords) throw Error("memory does not hold what was written");
  return best;
}

double measure_disk(const ExpertFiles& files) {
  const int in_flight = ExpertStore::Options().in_flight;
  constexpr double kSeconds = 0.2;
  constexpr int64_t kLargest = int64_t{1} << 20;
  const auto reader = open_file_reader(files.paths, ReadMethod::kRing, in_flight);
  const Slab slab(in_flight * kLargest);
  Random random(1);
  std::vector<FileReadResult> results;
  int64_t bytes = 0;
  const auto start = [&](uint64_t tag) {
    const auto& parts = files.parts[random.below(files.parts.size())];
    const FilePart& part = parts.front();
    if (part.file < 0) return;
    const FileRead read = {
        .file = part.file,
        .offset = part.offset / kReadAlignment * kReadAlignment,
        .bytes = std::clamp(part.bytes / kReadAlignment * kReadAlignment, kReadAlignment, kLargest),
        .to = slab.data() + static_cast<int64_t>(tag) * kLargest,
        .tag = tag};
    reader->start({&read, 1});
  };
  const auto began = std::chrono::steady_clock::now();
  for (int i = 0; i < in_flight; ++i) start(static_cast<uint64_t>(i));
  while (seconds_since(began) < kSeconds) {
    results.clear();
    reader->collect(FileReader::Wait::kYes, results);
    if (results.empty()) break;
    for (const FileReadResult& result : results) {
      bytes += std::max<int64_t>(0, result.got);
      start(result.tag);
    }
  }
  return bytes > 0 ? static_cast<double>(bytes) / seconds_since(began) : Bandwidths().disk;
}

}  // namespace

Bandwidths measure_bandwidths(const ExpertFiles& files, int threads) {
  Bandwidths measured = {.memory = measure_memory(threads)};
  if (files.count() > 0) measured.disk = measure_disk(files);
  return measured;
}

int64_t trunk_bytes(const TensorSource& source, const PackedType& packed_type) {
  const bool tied = source.find("output.weight") == nullptr;
  int64_t bytes = 0;
  for (const std::string& name : source.names()) {
    if (is_routed_expert(name) || name.starts_with("cadre.")) continue;
    // The embedding's rows are read from the file as tokens come.
    if (name == "token_embd.weight" && !tied) continue;
    bytes += tensor_bytes_in_memory(source.require(name), packed_type);
  }
  return bytes;
}

double typical_hit_rate(double cycles, double cycles_of_all) {
  struct Point {
    double cycles, hits;
  };
  constexpr std::array kKnown = {Point{0, 0},     Point{0.5, 0.246}, Point{0.95, 0.356},
                                 Point{2, 0.546}, Point{4, 0.763},   Point{6, 0.875}};
  if (cycles >= cycles_of_all) return 1;
  const auto between = [&](Point a, Point b) {
    if (b.cycles <= a.cycles) return a.hits;
    return a.hits + (b.hits - a.hits) * (cycles - a.cycles) / (b.cycles - a.cycles);
  };
  for (size_t i = 1; i < kKnown.size(); ++i)
    if (cycles <= kKnown[i].cycles) return between(kKnown[i - 1], kKnown[i]);
  return between(kKnown.back(), {std::max(cycles_of_all, 6.0), 1.0});
}

MemoryPlan plan_memory(const TensorSource& source, const ExpertFiles& files,
                       const PlanRequest& request, const PackedType& packed_type) {
  const ModelSpec& spec = source.spec();
  MemoryPlan plan = {
      .budget = request.memory,
      .process = kProcessBytes,
      .trunk = trunk_bytes(source, packed_type),
      .keys_values = request.context * KvCache::bytes_per_token(spec, request.kv_type),
      .activations = activation_bytes(spec, request.pass_tokens)};
  const int64_t fixed = plan.total();
  plan.least = plan.resident = fixed;
  double expert_traffic = 0;
  if (files.count() > 0) {
    plan.expert_bytes = files.slot_bytes();
    plan.expert_count = files.count();
    plan.cycle = spec.experts_used * layers_with_experts(files);
    plan.least += least_streaming_bytes(files);
    plan.resident += resident_bytes(files);
    expert_traffic = static_cast<double>(plan.cycle) * static_cast<double>(plan.expert_bytes);
  }
  check_budget(plan, request);
  if (files.count() > 0) {
    plan.experts = plan_slots(files, spec.experts_used, request.memory - fixed);
    forecast_hits(files, request, plan);
  }
  plan.compute_seconds = (static_cast<double>(plan.trunk) + expert_traffic) /
                         (kKernelShare * request.bandwidths.memory);
  plan.stall_seconds = (1 - plan.hit_rate) * expert_traffic / request.bandwidths.disk;
  return plan;
}

}  // namespace cadre::engine
