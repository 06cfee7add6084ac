// The expert layer's forward and backward pass, beside the products of a dense feed-forward layer
// of the same work. 4096 tokens, hidden 512, experts of inner 256, top-8, fp32. "ratio" is the
// dense products' time / our time, measured alternately in the same run.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <vector>

#include "cadre/base/memory.h"
#include "cadre/experts/expert_layer.h"
#include "cadre/kernels/dispatch.h"
#include "cadre/kernels/gemm.h"

namespace cadre {
namespace {

constexpr int64_t kTokens = 4096, kHidden = 512, kInner = 256, kActive = 8;
/// Gate, up and down product, each forward, by input and by weight.
constexpr double kFlops = 9 * 2.0 * kTokens * kActive * kHidden * kInner;

using Clock = std::chrono::steady_clock;

template <class Body>
double seconds(Body&& body) {
  const auto start = Clock::now();
  body();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> times) {
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

/// The median time of a few calls, the first not counted.
template <class Body>
double typical_seconds(Body&& body) {
  body();
  std::vector<double> times(9);
  for (double& time : times) time = seconds(body);
  return median(times);
}

/// The nine products of a dense SwiGLU with as many active parameters.
class DenseProducts {
 public:
  void operator()() {
    for (int product = 0; product < 3; ++product) {
      multiply(kernels::Op::kNone, kernels::Op::kTranspose, kTokens, kWidth, kHidden, x_, w_, h_);
      multiply(kernels::Op::kNone, kernels::Op::kNone, kTokens, kHidden, kWidth, h_, w_, x_);
      multiply(kernels::Op::kTranspose, kernels::Op::kNone, kWidth, kHidden, kTokens, h_, x_, w_);
    }
  }

 private:
  static constexpr int64_t kWidth = kInner * kActive;

  static void multiply(kernels::Op op_a, kernels::Op op_b, int64_t m, int64_t n, int64_t k,
                       const torch::Tensor& a, const torch::Tensor& b, const torch::Tensor& c) {
    kernels::gemm(op_a, op_b, m, n, k, 1e-3F, a.data_ptr<float>(), a.size(1), b.data_ptr<float>(),
                  b.size(1), 0, c.data_ptr<float>(), n);
  }

  torch::Tensor x_ = torch::randn({kTokens, kHidden}), w_ = torch::randn({kWidth, kHidden}),
                h_ = torch::randn({kTokens, kWidth});
};

class Step {
 public:
  explicit Step(int64_t experts)
      : layer_({.hidden = kHidden,
                .inner = kInner,
                .experts = experts,
                .router = {.k = kActive},
                .objectives = {balance_expert(0.01), z_loss(0.001)}}) {}

  void operator()() {
    for (auto& parameter : layer_.parameters()) parameter.mutable_grad().reset();
    hidden_.mutable_grad().reset();
    LayerContext context;
    const auto y = layer_.forward(hidden_, context);
    torch::autograd::backward({y, context.aux[0].value, context.aux[1].value}, {dy_, {}, {}});
  }

  ExpertLayer& layer() { return layer_; }
  const torch::Tensor& hidden() const { return hidden_; }

 private:
  ExpertLayer layer_;
  torch::Tensor hidden_ = torch::randn({1, kTokens, kHidden}).requires_grad_();
  torch::Tensor dy_ = torch::randn({1, kTokens, kHidden});
};

void BM_ExpertLayer(benchmark::State& state) {
  Step step(state.range(0));
  DenseProducts dense;
  step();
  dense();
  std::vector<double> ours, others;
  for (auto _ : state) {
    ours.push_back(seconds(step));
    state.SetIterationTime(ours.back());
    others.push_back(seconds(dense));
  }
  state.counters["GFLOP/s"] = kFlops / median(ours) * 1e-9;
  state.counters["dense_GFLOP/s"] = kFlops / median(others) * 1e-9;
  state.counters["ratio"] = median(others) / median(ours);
}
BENCHMARK(BM_ExpertLayer)
    ->RangeMultiplier(2)
    ->Range(8, 512)
    ->UseManualTime()
    ->Iterations(9)
    ->Unit(benchmark::kMillisecond);

double routing_seconds(Step& step) {
  const RouteInput input{.hidden = step.hidden().view({kTokens, kHidden})};
  return typical_seconds([&] {
    const Routing routing = step.layer().gate->route(input);
    (routing.weight.sum() + expert_balance(routing, input) + router_z_loss(routing)).backward();
  });
}

double movement_seconds(Step& step) {
  const Routing routing = step.layer().last_routing();
  const int64_t pairs = routing.pairs(), experts = routing.experts;
  std::vector<int64_t> expert_offsets(experts + 1), order(pairs);
  const auto x = torch::randn({kTokens, kHidden}), slots = torch::randn({pairs, kHidden});
  const auto dweight = torch::empty({pairs});
  const int64_t* offsets = routing.offsets.data_ptr<int64_t>();
  const float* weight = routing.weight.data_ptr<float>();
  float *tokens_data = x.data_ptr<float>(), *slots_data = slots.data_ptr<float>();
  std::vector<int64_t> rows(pairs), slot_of_pair(pairs);
  return typical_seconds([&] {
    kernels::sort_by_expert(routing.expert.data_ptr<int32_t>(), pairs, experts,
                            expert_offsets.data(), order.data());
    for (int64_t slot = 0; slot < pairs; ++slot) {
      slot_of_pair[order[slot]] = slot;
      rows[slot] = order[slot] / kActive;
    }
    kernels::gather_rows(tokens_data, rows.data(), pairs, kHidden, slots_data);
    kernels::combine_rows(slots_data, offsets, slot_of_pair.data(), weight, kTokens, kHidden,
                          tokens_data);
    kernels::combine_rows_backward(tokens_data, slots_data, offsets, slot_of_pair.data(), weight,
                                   kTokens, kHidden, slots_data, dweight.data_ptr<float>());
    kernels::combine_rows(slots_data, offsets, slot_of_pair.data(), nullptr, kTokens, kHidden,
                          tokens_data);
  });
}

/// What is not the experts themselves, as shares of the whole step.
void BM_Overheads(benchmark::State& state) {
  Step step(state.range(0));
  const double routing = routing_seconds(step), whole = typical_seconds(step);
  const double movement = movement_seconds(step);
  for (auto _ : state) step();
  state.counters["routing_ms"] = routing * 1e3;
  state.counters["dispatch_combine_ms"] = movement * 1e3;
  state.counters["routing_share"] = routing / whole;
  state.counters["dispatch_combine_share"] = movement / whole;
}
BENCHMARK(BM_Overheads)->Arg(64)->Iterations(3)->Unit(benchmark::kMillisecond);

void BM_Route(benchmark::State& state) {
  const torch::NoGradGuard no_grad;
  TopKRouter router(kHidden, state.range(0), {.k = kActive});
  const RouteInput input{.hidden = torch::randn({kTokens, kHidden})};
  for (auto _ : state) benchmark::DoNotOptimize(router.route(input));
  const auto logits = torch::randn({kTokens, state.range(0)});
  const double product = typical_seconds([&] {
    kernels::gemm(kernels::Op::kNone, kernels::Op::kTranspose, kTokens, state.range(0), kHidden, 1,
                  input.hidden.data_ptr<float>(), kHidden, router.weight.data_ptr<float>(), kHidden,
                  0, logits.data_ptr<float>(), state.range(0));
  });
  state.counters["product_us"] = product * 1e6;
}
BENCHMARK(BM_Route)->Arg(64)->Arg(256)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace cadre

int main(int argc, char** argv) {
  cadre::keep_freed_memory();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
