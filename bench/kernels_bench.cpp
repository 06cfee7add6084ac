// Speed of the kernels, beside oneDNN called directly where it does the same work. "ratio" is
// direct time / our time, measured alternately in the same run.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <numeric>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

#include "cadre/base/parallel.h"
#include "cadre/base/random.h"
#include "cadre/kernels/attention.h"
#include "cadre/kernels/dispatch.h"
#include "cadre/kernels/elementwise.h"
#include "cadre/kernels/expert_ffn.h"
#include "cadre/kernels/gemm.h"
#include "cadre/kernels/grouped_gemm.h"
#include "cadre/kernels/optimizer.h"
#include "cadre/kernels/top_k.h"

namespace cadre::kernels {
namespace {

using Floats = std::vector<float>;
using Clock = std::chrono::steady_clock;

Floats random_floats(int64_t n, uint64_t seed, float scale = 1) {
  Random random(seed);
  Floats x(n);
  for (float& value : x) value = scale * (random.uniform() - 0.5f);
  return x;
}

template <class Body>
double seconds(const Body& body) {
  const auto start = Clock::now();
  body();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Alternates ours and the other; reports both rates and the ratio of the medians.
template <class Ours, class Other>
void compare(benchmark::State& state, double flops, const Ours& ours, const Other& other) {
  ours();
  other();
  std::vector<double> our_times, other_times;
  for (auto _ : state) {
    our_times.push_back(seconds(ours));
    state.SetIterationTime(our_times.back());
    other_times.push_back(seconds(other));
  }
  const auto median = [](std::vector<double>& times) {
    std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
    return times[times.size() / 2];
  };
  const double our_time = median(our_times);
  const double other_time = median(other_times);
  state.counters["GFLOP/s"] = flops / our_time * 1e-9;
  state.counters["other_GFLOP/s"] = flops / other_time * 1e-9;
  state.counters["ratio"] = other_time / our_time;
}

void count_flops(benchmark::State& state, double flops) {
  state.counters["GFLOP/s"] =
      benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void count_bytes(benchmark::State& state, double bytes) {
  state.counters["GB/s"] =
      benchmark::Counter(bytes * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

struct Layout {
  const char* name;
  Op a, b;
};
constexpr Layout kLayouts[] = {{"NT", Op::kNone, Op::kTranspose},
                               {"NN", Op::kNone, Op::kNone},
                               {"TN", Op::kTranspose, Op::kNone}};

/// A dense product of one layout; leading dimensions are the natural ones.
struct Product {
  Layout layout;
  int64_t m, n, k;
  Floats a, b, c;

  Product(const Layout& l, int64_t rows, int64_t columns, int64_t depth)
      : layout(l),
        m(rows),
        n(columns),
        k(depth),
        a(random_floats(m * k, 1)),
        b(random_floats(k * n, 2)),
        c(m * n) {}

  int64_t lda() const { return layout.a == Op::kNone ? k : m; }
  int64_t ldb() const { return layout.b == Op::kNone ? n : k; }
  double flops() const { return 2.0 * m * n * k; }

  void ours() {
    gemm(layout.a, layout.b, m, n, k, 1, a.data(), lda(), b.data(), ldb(), 0, c.data(), n);
  }

  void sgemm() {
    dnnl::sgemm(layout.a == Op::kNone ? 'N' : 'T', layout.b == Op::kNone ? 'N' : 'T', m, n, k, 1,
                a.data(), lda(), b.data(), ldb(), 0, c.data(), n);
  }
};

/// oneDNN's matmul primitive made for exactly one shape.
class StaticMatmul {
 public:
  explicit StaticMatmul(Product& p) : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    using Dims = dnnl::memory::dims;
    const auto desc = [](Op op, int64_t rows, int64_t columns) {
      return dnnl::memory::desc({rows, columns}, dnnl::memory::data_type::f32,
                                op == Op::kNone ? Dims{columns, 1} : Dims{1, rows});
    };
    const auto a = desc(p.layout.a, p.m, p.k);
    const auto b = desc(p.layout.b, p.k, p.n);
    const auto c = desc(Op::kNone, p.m, p.n);
    primitive_ = dnnl::matmul({dnnl::matmul::desc(a, b, c), engine_});
    arguments_ = {{DNNL_ARG_SRC, dnnl::memory(a, engine_, p.a.data())},
                  {DNNL_ARG_WEIGHTS, dnnl::memory(b, engine_, p.b.data())},
                  {DNNL_ARG_DST, dnnl::memory(c, engine_, p.c.data())}};
  }

  void run() {
    primitive_.execute(stream_, arguments_);
    stream_.wait();
  }

 private:
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::matmul primitive_;
  std::unordered_map<int, dnnl::memory> arguments_;
};

void gemm_vs_sgemm(benchmark::State& state) {
  Product p(kLayouts[state.range(0)], state.range(1), state.range(2), state.range(3));
  state.SetLabel(p.layout.name);
  compare(
      state, p.flops(), [&] { p.ours(); }, [&] { p.sgemm(); });
}

void gemm_vs_static_matmul(benchmark::State& state) {
  Product p(kLayouts[state.range(0)], state.range(1), state.range(2), state.range(3));
  StaticMatmul matmul(p);
  state.SetLabel(p.layout.name);
  compare(
      state, p.flops(), [&] { p.ours(); }, [&] { matmul.run(); });
}

void gemm_shapes(benchmark::internal::Benchmark* bench) {
  for (const int64_t layout : {0, 1, 2}) {
    bench->Args({layout, 1024, 1408, 512});
    bench->Args({layout, 1024, 512, 1408});
    bench->Args({layout, 4096, 512, 512});
  }
  bench->UseManualTime()->Unit(benchmark::kMicrosecond);
}

/// Row counts that never repeat against one fixed count: what a product pays for a new shape.
void gemm_random_rows(benchmark::State& state) {
  constexpr int64_t kMax = 1024, kN = 512, kK = 512;
  const Floats a = random_floats(kMax * kK, 1);
  const Floats b = random_floats(kN * kK, 2);
  Floats c(kMax * kN);
  std::vector<uint16_t> a16(a.size()), b16(b.size());
  to_bf16(a.data(), kMax * kK, a16.data());
  to_bf16(b.data(), kN * kK, b16.data());
  const bool narrow = state.range(0) == 1;
  const auto run = [&](int64_t m) {
    if (narrow) {
      gemm_bf16(Op::kNone, Op::kTranspose, m, kN, kK, a16.data(), kK, b16.data(), kK, 0, c.data(),
                kN);
    } else {
      gemm(Op::kNone, Op::kTranspose, m, kN, kK, 1, a.data(), kK, b.data(), kK, 0, c.data(), kN);
    }
  };
  std::vector<int64_t> counts(kMax - 512);
  std::iota(counts.begin(), counts.end(), 512);
  std::shuffle(counts.begin(), counts.end(), Random(1));
  const double mean = std::accumulate(counts.begin(), counts.end(), 0.0) / counts.size();
  run(512);
  size_t next = 0;
  double rows = 0;
  std::vector<double> varying, fixed;
  for (auto _ : state) {
    const int64_t m = counts[next++ % counts.size()];
    rows += m;
    varying.push_back(seconds([&] { run(m); }));
    fixed.push_back(seconds([&] { run(static_cast<int64_t>(mean)); }));
  }
  state.SetLabel(narrow ? "bf16" : "fp32");
  const double per_row = std::accumulate(varying.begin(), varying.end(), 0.0) / rows;
  const double per_row_fixed =
      std::accumulate(fixed.begin(), fixed.end(), 0.0) / fixed.size() / mean;
  state.counters["GFLOP/s"] = 2.0 * kN * kK / per_row * 1e-9;
  state.counters["ratio"] = per_row_fixed / per_row;
}

void gemm_bf16_rate(benchmark::State& state) {
  Product p(kLayouts[state.range(0)], state.range(1), state.range(2), state.range(3));
  std::vector<uint16_t> a(p.a.size()), b(p.b.size());
  to_bf16(p.a.data(), p.m * p.k, a.data());
  to_bf16(p.b.data(), p.k * p.n, b.data());
  for (auto _ : state) {
    gemm_bf16(p.layout.a, p.layout.b, p.m, p.n, p.k, a.data(), p.lda(), b.data(), p.ldb(), 0,
              p.c.data(), p.n);
  }
  state.SetLabel(p.layout.name);
  count_flops(state, p.flops());
}

/// 4096 tokens, top 8, D = 512, H = 256: the same active work for every number of experts.
struct ExpertProblem {
  static constexpr int64_t kRows = 32768, kHidden = 512, kInner = 256;
  int64_t experts;
  std::vector<int64_t> offsets;
  Floats x, dy, w_gate, w_up, w_down, gate_up, y, dx, dw_gate, dw_up, dw_down;

  explicit ExpertProblem(int64_t e)
      : experts(e),
        offsets(e + 1),
        x(random_floats(kRows * kHidden, 1)),
        dy(random_floats(kRows * kHidden, 2)),
        w_gate(random_floats(e * kHidden * kInner, 3, 0.1f)),
        w_up(random_floats(e * kHidden * kInner, 4, 0.1f)),
        w_down(random_floats(e * kHidden * kInner, 5, 0.1f)),
        gate_up(kRows * 2 * kInner),
        y(kRows * kHidden),
        dx(kRows * kHidden),
        dw_gate(e * kHidden * kInner),
        dw_up(e * kHidden * kInner),
        dw_down(e * kHidden * kInner) {
    Random random(7);
    std::vector<int64_t> counts(e);
    for (int64_t i = 0; i < kRows; ++i) ++counts[random.below(e)];
    std::partial_sum(counts.begin(), counts.end(), offsets.begin() + 1);
  }

  ExpertFfnShape shape() const { return {experts, kHidden, kInner}; }
  double forward_flops() const { return 6.0 * kRows * kHidden * kInner; }

  void forward() {
    expert_ffn(shape(), offsets.data(), x.data(), w_gate.data(), w_up.data(), w_down.data(),
               gate_up.data(), y.data());
  }
  void backward() {
    expert_ffn_backward(shape(), offsets.data(), x.data(), w_gate.data(), w_up.data(),
                        w_down.data(), gate_up.data(), dy.data(), dx.data(), dw_gate.data(),
                        dw_up.data(), dw_down.data());
  }

  /// The same multiplications as dense products over all rows: one expert, nothing to route.
  void dense() {
    const auto product = [](Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, const float* a,
                            int64_t lda, const float* b, int64_t ldb,
                            float* c) { gemm(op_a, op_b, m, n, k, 1, a, lda, b, ldb, 0, c, n); };
    constexpr int64_t kH = kInner, kD = kHidden;
    for (int i = 0; i < 2; ++i) {
      product(Op::kNone, Op::kTranspose, kRows, kH, kD, x.data(), kD, w_up.data(), kD,
              gate_up.data());
      product(Op::kNone, Op::kNone, kRows, kD, kH, gate_up.data(), kH, w_up.data(), kD, dx.data());
      product(Op::kTranspose, Op::kNone, kH, kD, kRows, gate_up.data(), kH, x.data(), kD,
              dw_up.data());
    }
    product(Op::kNone, Op::kTranspose, kRows, kD, kH, gate_up.data(), kH, w_down.data(), kH,
            y.data());
    product(Op::kNone, Op::kNone, kRows, kH, kD, dy.data(), kD, w_down.data(), kH, gate_up.data());
    product(Op::kTranspose, Op::kNone, kD, kH, kRows, dy.data(), kD, gate_up.data(), kH,
            dw_down.data());
  }
};

void expert_ffn_forward(benchmark::State& state) {
  ExpertProblem p(state.range(0));
  p.forward();
  for (auto _ : state) p.forward();
  count_flops(state, p.forward_flops());
}

void expert_ffn_forward_backward(benchmark::State& state) {
  ExpertProblem p(state.range(0));
  const auto ours = [&] {
    p.forward();
    p.backward();
  };
  compare(state, 3 * p.forward_flops(), ours, [&] { p.dense(); });
}

void grouped(benchmark::State& state) {
  ExpertProblem p(state.range(0));
  const int64_t form = state.range(1);
  const auto run = [&] {
    if (form == 0) {
      grouped_gemm(p.experts, p.offsets.data(), p.kInner, p.kHidden, p.x.data(), p.w_up.data(),
                   p.gate_up.data());
    } else if (form == 1) {
      grouped_gemm_input_grad(p.experts, p.offsets.data(), p.kInner, p.kHidden, p.gate_up.data(),
                              p.w_up.data(), p.dx.data());
    } else {
      grouped_gemm_weight_grad(p.experts, p.offsets.data(), p.kInner, p.kHidden, p.gate_up.data(),
                               p.x.data(), p.dw_up.data());
    }
  };
  run();
  for (auto _ : state) run();
  state.SetLabel(form == 0 ? "forward" : form == 1 ? "input gradient" : "weight gradient");
  count_flops(state, p.forward_flops() / 3);
}

struct AttentionProblem {
  AttentionShape shape;
  Floats q, k, v, out, lse, dout, dq, dk, dv;

  AttentionProblem(int64_t length, int64_t dim)
      : shape{.batch = 8192 / length,
              .length = length,
              .key_length = length,
              .heads = 8,
              .kv_heads = 4,
              .dim = dim,
              .q_stride = 8 * dim,
              .k_stride = 4 * dim,
              .v_stride = 4 * dim,
              .scale = 1 / std::sqrt(static_cast<float>(dim))},
        q(random_floats(8192 * 8 * dim, 1)),
        k(random_floats(8192 * 4 * dim, 2)),
        v(random_floats(8192 * 4 * dim, 3)),
        out(q.size()),
        lse(8192 * 8),
        dout(random_floats(8192 * 8 * dim, 4)),
        dq(q.size()),
        dk(k.size()),
        dv(v.size()) {}

  /// Of the products that causality leaves: half of two products of length x length x dim.
  double forward_flops() const {
    return 2.0 * shape.batch * shape.heads * shape.length * shape.length * shape.dim;
  }
  void forward() { attention(shape, q.data(), k.data(), v.data(), out.data(), lse.data()); }
  void backward() {
    attention_backward(shape, q.data(), k.data(), v.data(), out.data(), lse.data(), dout.data(),
                       dq.data(), dk.data(), dv.data());
  }
};

void attention_forward(benchmark::State& state) {
  AttentionProblem p(state.range(0), state.range(1));
  for (auto _ : state) p.forward();
  count_flops(state, p.forward_flops());
}

void attention_back(benchmark::State& state) {
  AttentionProblem p(state.range(0), state.range(1));
  p.forward();
  for (auto _ : state) p.backward();
  count_flops(state, 2.5 * p.forward_flops());
}

/// Row-wise kernels at 4096 x 512; bytes are those that must move at least once.
template <class Body>
void row_wise(benchmark::State& state, int64_t floats_moved, const Body& body) {
  for (auto _ : state) body();
  count_bytes(state, static_cast<double>(floats_moved) * sizeof(float));
}

constexpr int64_t kRows = 4096, kWidth = 512, kCount = kRows * kWidth;

void softmax(benchmark::State& state) {
  const Floats x = random_floats(kCount, 1);
  Floats y(kCount);
  row_wise(state, 2 * kCount, [&] { softmax_rows(x.data(), kRows, kWidth, y.data()); });
}

void rms_norm_both(benchmark::State& state) {
  const Floats x = random_floats(kCount, 1), weight = random_floats(kWidth, 2);
  Floats y(kCount), inverse(kRows), dx(kCount), dweight(kWidth);
  row_wise(state, 5 * kCount, [&] {
    rms_norm(x.data(), weight.data(), 1e-5f, kRows, kWidth, y.data(), inverse.data());
    rms_norm_backward(x.data(), weight.data(), inverse.data(), y.data(), kRows, kWidth, dx.data(),
                      dweight.data());
  });
}

void silu_mul_both(benchmark::State& state) {
  const Floats gate_up = random_floats(2 * kCount, 1);
  Floats y(kCount), grad(2 * kCount);
  row_wise(state, 8 * kCount, [&] {
    silu_mul(gate_up.data(), kRows, kWidth, y.data());
    silu_mul_backward(gate_up.data(), y.data(), kRows, kWidth, grad.data());
  });
}

void cross_entropy_rows(benchmark::State& state) {
  constexpr int64_t kVocabulary = 16384, kTokens = 512;
  const Floats logits = random_floats(kTokens * kVocabulary, 1);
  Floats x = logits, loss(kTokens);
  const std::vector<int64_t> targets(kTokens, 5);
  row_wise(state, 2 * kTokens * kVocabulary,
           [&] { cross_entropy(x.data(), targets.data(), kTokens, kVocabulary, 1, loss.data()); });
}

void adamw_step(benchmark::State& state) {
  const int64_t n = 16 << 20;
  Floats parameter = random_floats(n, 1), m(n), v(n);
  const Floats grad = random_floats(n, 2);
  row_wise(state, 7 * n,
           [&] { adamw({.lr = 1e-3f}, n, parameter.data(), grad.data(), m.data(), v.data()); });
}

void squares(benchmark::State& state) {
  const int64_t n = 16 << 20;
  const Floats x = random_floats(n, 1);
  row_wise(state, n, [&] { benchmark::DoNotOptimize(sum_of_squares(x.data(), n)); });
}

void copy(benchmark::State& state) {
  const int64_t n = 16 << 20;
  const Floats x = random_floats(n, 1);
  Floats y(n);
  row_wise(state, 2 * n, [&] {
    parallel_for(n, 1 << 16, [&](int64_t begin, int64_t end) {
      std::copy(x.begin() + begin, x.begin() + end, y.begin() + begin);
    });
  });
}

void top_k_rows(benchmark::State& state) {
  const int64_t n = state.range(0), k = state.range(1);
  const Floats scores = random_floats(4096 * n, 1);
  std::vector<int32_t> indices(4096 * k);
  Floats values(4096 * k);
  for (auto _ : state) top_k(scores.data(), 4096, n, k, indices.data(), values.data());
  state.counters["rows/s"] =
      benchmark::Counter(4096, benchmark::Counter::kIsIterationInvariantRate);
}

/// Sort 4096 x 8 pairs by expert, gather their rows, combine them again.
struct DispatchProblem {
  static constexpr int64_t kTokens = 4096, kActive = 8, kPairs = kTokens * kActive, kHidden = 512;
  int64_t experts;
  std::vector<int32_t> expert;
  std::vector<int64_t> expert_offsets, order, token_offsets, token_of_slot, slot_of_pair;
  Floats x, rows, weight, y, drows, dweight;

  explicit DispatchProblem(int64_t e)
      : experts(e),
        expert(kPairs),
        expert_offsets(e + 1),
        order(kPairs),
        token_offsets(kTokens + 1),
        token_of_slot(kPairs),
        slot_of_pair(kPairs),
        x(random_floats(kTokens * kHidden, 1)),
        rows(kPairs * kHidden),
        weight(random_floats(kPairs, 2)),
        y(kTokens * kHidden),
        drows(kPairs * kHidden),
        dweight(kPairs) {
    Random random(3);
    for (int32_t& id : expert) id = static_cast<int32_t>(random.below(e));
    for (int64_t t = 0; t <= kTokens; ++t) token_offsets[t] = t * kActive;
    sort();
    for (int64_t slot = 0; slot < kPairs; ++slot) {
      token_of_slot[slot] = order[slot] / kActive;
      slot_of_pair[order[slot]] = slot;
    }
  }

  void sort() {
    sort_by_expert(expert.data(), kPairs, experts, expert_offsets.data(), order.data());
  }
  void gather() { gather_rows(x.data(), token_of_slot.data(), kPairs, kHidden, rows.data()); }
  void combine() {
    combine_rows(rows.data(), token_offsets.data(), slot_of_pair.data(), weight.data(), kTokens,
                 kHidden, y.data());
  }
  void combine_backward() {
    combine_rows_backward(y.data(), rows.data(), token_offsets.data(), slot_of_pair.data(),
                          weight.data(), kTokens, kHidden, drows.data(), dweight.data());
  }
};

void dispatch_sort(benchmark::State& state) {
  DispatchProblem p(state.range(0));
  for (auto _ : state) p.sort();
  state.counters["pairs/s"] =
      benchmark::Counter(p.kPairs, benchmark::Counter::kIsIterationInvariantRate);
}

void dispatch_gather(benchmark::State& state) {
  DispatchProblem p(state.range(0));
  row_wise(state, 2 * p.kPairs * p.kHidden, [&] { p.gather(); });
}

void dispatch_combine(benchmark::State& state) {
  DispatchProblem p(state.range(0));
  row_wise(state, (p.kPairs + p.kTokens) * p.kHidden, [&] { p.combine(); });
}

void dispatch_combine_backward(benchmark::State& state) {
  DispatchProblem p(state.range(0));
  row_wise(state, (2 * p.kPairs + p.kTokens) * p.kHidden, [&] { p.combine_backward(); });
}

BENCHMARK(gemm_vs_sgemm)->Apply(gemm_shapes);
BENCHMARK(gemm_vs_static_matmul)->Apply(gemm_shapes);
BENCHMARK(gemm_random_rows)->Arg(0)->Arg(1)->UseRealTime();
BENCHMARK(gemm_bf16_rate)
    ->ArgsProduct({{0, 1, 2}, {4096}, {512}, {512}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(grouped)
    ->ArgsProduct({{8, 64, 512}, {0, 1, 2}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(expert_ffn_forward)
    ->Arg(8)
    ->Arg(16)
    ->Arg(64)
    ->Arg(256)
    ->Arg(512)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(expert_ffn_forward_backward)
    ->Arg(8)
    ->Arg(16)
    ->Arg(64)
    ->Arg(256)
    ->Arg(512)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(attention_forward)
    ->ArgsProduct({{256, 512, 1024}, {32, 64, 128}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(attention_back)
    ->ArgsProduct({{256, 512, 1024}, {32, 64, 128}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(copy)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(softmax)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(rms_norm_both)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(silu_mul_both)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(cross_entropy_rows)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(adamw_step)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(squares)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(top_k_rows)
    ->Args({64, 8})
    ->Args({512, 8})
    ->Args({4096, 8})
    ->Args({4096, 64})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(dispatch_sort)->Arg(64)->Arg(512)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(dispatch_gather)->Arg(64)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(dispatch_combine)->Arg(64)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(dispatch_combine_backward)->Arg(64)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace cadre::kernels

BENCHMARK_MAIN();
