// Speed of the products on panels. One token: GB/s of weights beside a plain read of the same
// buffer, measured alternately ("of_read" is the share of its speed), from memory and from the
// second cache. More tokens: GMAC/s. team: what a phase costs beside its work. Decoding, packing
// and quantising activations: values a second.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "cadre/base/random.h"
#include "cadre/base/team.h"
#include "cadre/kernels/panel_ffn.h"
#include "cadre/kernels/panels.h"

namespace cadre::kernels {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int64_t kColumns = 2048;

template <class Body>
double seconds(const Body& body) {
  const auto start = Clock::now();
  body();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double>& times) {
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

/// Panels of about `bytes`, whose scales are small normal numbers whatever the format.
struct Weights {
  BlockType type;
  int64_t panels;
  std::vector<std::byte> data;

  Weights(BlockType type, int64_t bytes)
      : type(type),
        panels(std::max<int64_t>(2, bytes / panel_stride(type, kColumns))),
        data(panels * panel_stride(type, kColumns), std::byte{0x19}) {}

  PanelMatrix matrix() const { return {type, panels * kPanelRows, kColumns, data.data()}; }
};

struct Activations {
  std::vector<float> values, scale;
  std::vector<int8_t> q;
  std::vector<int16_t> sums;
  int64_t columns;

  explicit Activations(int64_t tokens, int64_t columns = kColumns)
      : values(tokens * columns),
        scale(tokens * columns / 32),
        q(tokens * columns),
        sums(tokens * columns / 16),
        columns(columns) {
    Random random(1);
    for (float& value : values) value = random.uniform() - 0.5f;
    quantize_activations(values.data(), tokens, columns, q.data(), scale.data(), sums.data());
  }

  QuantizedActivations view() const {
    return {q.data(), scale.data(), sums.data(), values.data(), columns};
  }
};

/// Reads every cache line once, fetched ahead as the kernels do, into eight independent sums.
uint64_t read_all(const std::byte* data, int64_t bytes) {
  uint64_t sum[8] = {};
  for (int64_t i = 0; i + 64 <= bytes; i += 64) {
    __builtin_prefetch(data + i + 9216);
    uint64_t line[8];
    std::memcpy(line, data + i, 64);
    for (int k = 0; k < 8; ++k) sum[k] += line[k];
  }
  uint64_t all = 0;
  for (const uint64_t part : sum) all += part;
  return all;
}

/// Args: format, bytes of weights, threads.
void gemv(benchmark::State& state) {
  const auto type = static_cast<BlockType>(state.range(0));
  const Weights w(type, state.range(1));
  Team team(static_cast<int>(state.range(2)));
  const Activations x(1);
  std::vector<float> y(w.panels * kPanelRows);
  const int64_t stride = panel_stride(type, kColumns);
  const int64_t repeats = std::max<int64_t>(1, (int64_t{8} << 20) / state.range(1));
  const auto on_team = [&](const auto& body) {
    team.run([&](int thread) {
      const Range part = share_of(w.panels, 1, thread, team.threads());
      for (int64_t i = 0; i < repeats; ++i) body(part);
    });
  };
  const auto product = [&] {
    on_team([&](Range p) {
      panel_matmul(w.matrix(), x.view(), 1, p.begin, p.end, y.data(), w.panels * kPanelRows);
    });
  };
  const auto read = [&] {
    on_team([&](Range p) {
      benchmark::DoNotOptimize(
          read_all(w.data.data() + p.begin * stride, (p.end - p.begin) * stride));
    });
  };
  product();
  std::vector<double> ours, plain;
  for (auto _ : state) {
    ours.push_back(seconds(product));
    state.SetIterationTime(ours.back());
    plain.push_back(seconds(read));
  }
  const double gigabytes = 1e-9 * static_cast<double>(w.data.size() * repeats);
  const double our_time = median(ours), plain_time = median(plain);
  state.counters["GB/s"] = gigabytes / our_time;
  state.counters["read_GB/s"] = gigabytes / plain_time;
  state.counters["of_read"] = plain_time / our_time;
  state.SetLabel(std::string(block_info(type).name));
}

/// Args: format, tokens. One thread, 1024 rows.
void gemm(benchmark::State& state) {
  const auto type = static_cast<BlockType>(state.range(0));
  const int64_t tokens = state.range(1), rows = 1024;
  const Weights w(type, rows / kPanelRows * panel_stride(type, kColumns));
  const Activations x(tokens);
  std::vector<float> y(tokens * rows);
  for (auto _ : state) {
    panel_matmul(w.matrix(), x.view(), tokens, 0, w.panels, y.data(), rows);
    benchmark::DoNotOptimize(y.data());
  }
  state.counters["GMAC/s"] =
      benchmark::Counter(1e-9 * static_cast<double>(tokens * rows * kColumns),
                         benchmark::Counter::kIsIterationInvariantRate);
  state.SetLabel(std::string(block_info(type).name));
}

/// Args: format, tokens. One expert of D = 2048, H = 768 (Qwen3-30B-A3B's), one thread.
void expert(benchmark::State& state) {
  const auto type = static_cast<BlockType>(state.range(0));
  const int64_t tokens = state.range(1), inner_width = 768;
  const std::vector<std::byte> gate(panel_bytes(type, inner_width, kColumns), std::byte{0x19});
  const std::vector<std::byte> up(gate.size(), std::byte{0x19});
  const std::vector<std::byte> down(panel_bytes(type, kColumns, inner_width), std::byte{0x19});
  const PanelExpert e = {.gate = {type, inner_width, kColumns, gate.data()},
                         .up = {type, inner_width, kColumns, up.data()},
                         .down = {type, kColumns, inner_width, down.data()}};
  const Activations x(tokens);
  Activations inner(tokens, inner_width);
  const InnerActivations into = {inner.q.data(), inner.scale.data(), inner.sums.data(), nullptr};
  std::vector<float> y(tokens * kColumns);
  for (auto _ : state) {
    panel_ffn_inner(e, x.view(), 0, tokens, 0, inner_blocks(e), into);
    panel_ffn_down(e, into, 0, tokens, 0, kColumns / kPanelRows, nullptr, y.data());
    benchmark::DoNotOptimize(y.data());
  }
  state.counters["GMAC/s"] =
      benchmark::Counter(1e-9 * static_cast<double>(tokens * 3 * inner_width * kColumns),
                         benchmark::Counter::kIsIterationInvariantRate);
  state.SetLabel(std::string(block_info(type).name));
}

void count_values(benchmark::State& state, BlockType type, int64_t values) {
  state.counters["Gvalues/s"] = benchmark::Counter(1e-9 * static_cast<double>(values),
                                                   benchmark::Counter::kIsIterationInvariantRate);
  state.SetLabel(std::string(block_info(type).name));
}

void decode(benchmark::State& state) {
  const auto type = static_cast<BlockType>(state.range(0));
  const std::vector<std::byte> blocks(row_bytes(type, 64 * kColumns), std::byte{0x19});
  std::vector<float> values(64 * kColumns);
  for (auto _ : state) {
    dequantize(type, blocks.data(), 64 * kColumns, values.data());
    benchmark::DoNotOptimize(values.data());
  }
  count_values(state, type, 64 * kColumns);
}

void pack(benchmark::State& state) {
  const auto type = static_cast<BlockType>(state.range(0));
  const std::vector<std::byte> blocks(64 * row_bytes(type, kColumns), std::byte{0x19});
  std::vector<std::byte> panels(panel_bytes(type, 64, kColumns));
  for (auto _ : state) {
    pack_panels(type, 64, kColumns, blocks.data(), 0, 4, panels.data());
    benchmark::DoNotOptimize(panels.data());
  }
  count_values(state, type, 64 * kColumns);
}

void quantise_inputs(benchmark::State& state) {
  Activations x(64);
  for (auto _ : state) {
    quantize_activations(x.values.data(), 64, kColumns, x.q.data(), x.scale.data(), x.sums.data());
    benchmark::DoNotOptimize(x.q.data());
  }
  count_values(state, BlockType::kF32, 64 * kColumns);
}

/// Arg: threads. One empty run() and, inside it, 100 barriers.
void team(benchmark::State& state) {
  Team members(static_cast<int>(state.range(0)));
  double runs = 0, barriers = 0;
  int64_t rounds = 0;
  for (auto _ : state) {
    runs += seconds([&] { members.run([](int) {}); });
    barriers += seconds([&] {
      members.run([&](int) {
        for (int i = 0; i < 100; ++i) members.barrier();
      });
    });
    ++rounds;
  }
  state.counters["run_ns"] = 1e9 * runs / static_cast<double>(rounds);
  state.counters["barrier_ns"] = 1e7 * barriers / static_cast<double>(rounds);
}

std::vector<int64_t> all_formats() {
  std::vector<int64_t> formats;
  for (int64_t type = 0; type <= static_cast<int64_t>(BlockType::kMXFP4); ++type) {
    formats.push_back(type);
  }
  return formats;
}

BENCHMARK(gemv)
    ->ArgNames({"type", "bytes", "threads"})
    ->ArgsProduct({all_formats(), {256 << 20, 384 << 10}, {1, 2}})
    ->UseManualTime();
BENCHMARK(gemm)
    ->ArgNames({"type", "tokens"})
    ->ArgsProduct({all_formats(), {1, 2, 3, 4, 6, 8, 12, 48, 512}});
BENCHMARK(expert)
    ->ArgNames({"type", "tokens"})
    ->ArgsProduct({{static_cast<int64_t>(BlockType::kQ4_0), static_cast<int64_t>(BlockType::kQ4_K),
                    static_cast<int64_t>(BlockType::kMXFP4)},
                   {1, 4, 48, 512}});
BENCHMARK(decode)->ArgNames({"type"})->ArgsProduct({all_formats()});
BENCHMARK(pack)->ArgNames({"type"})->ArgsProduct({all_formats()});
BENCHMARK(quantise_inputs);
BENCHMARK(team)->ArgNames({"threads"})->Arg(1)->Arg(2);

}  // namespace
}  // namespace cadre::kernels

BENCHMARK_MAIN();
