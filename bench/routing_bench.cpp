// What routing costs. `layer`: routing, dispatch and combine of 8192 tokens to 64 experts, top-8,
// as a share of the experts' products (hidden 512, inner 256), forward and in a training step.
// `route/KIND/E`: one token's cost with every router that chooses by token, 8 experts each, from 8
// to 4096 experts: in all, the logits' product alone, and the rest of it; CPU time on one thread,
// which does not depend on what else runs. A cost that grows like log E is 4 times as high with
// 4096 experts as with 8.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <ctime>
#include <map>
#include <string>
#include <vector>

#include "cadre/base/memory.h"
#include "cadre/base/parallel.h"
#include "cadre/base/timer.h"
#include "cadre/experts/dispatch.h"
#include "cadre/kernels/dispatch.h"
#include "cadre/kernels/gemm.h"
#include "cadre/kernels/grouped_gemm.h"
#include "cadre/routing/routers.h"
#include "cadre/routing/top_k_router.h"

namespace cadre {
namespace {

constexpr int64_t kHidden = 512, kActive = 8;

double median(std::vector<double> times) {
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

// --- A layer's share ---------------------------------------------------------------------------

constexpr int64_t kTokens = 8192, kExperts = 64, kInner = 256;

/// Routing, movement and products of one expert layer, forward and backward.
class Layer {
 public:
  Layer() : router_(kHidden, kExperts, {.k = kActive, .weights = Weights::kNormalized}) {
    route();
    move_in();
  }

  void route() {
    const torch::NoGradGuard no_grad;
    routing_ = router_.route({.hidden = hidden_});
  }
  void route_and_back() {
    for (auto& parameter : router_.parameters()) parameter.mutable_grad().reset();
    hidden_.mutable_grad().reset();
    router_.route({.hidden = hidden_}).weight.sum().backward();
  }

  /// Sorts the pairs and gathers their rows.
  void move_in() {
    slots_ = dispatch(routing_.offsets, routing_.expert, kExperts);
    kernels::gather_rows(data(hidden_), slots_.token_of_slot.data_ptr<int64_t>(), kPairs, kHidden,
                         data(rows_));
  }
  void move_out() { combine(data(routing_.weight)); }
  void move_back() {
    kernels::combine_rows_backward(data(tokens_), data(rows_), offsets(), slot_of_pair(),
                                   data(routing_.weight), kTokens, kHidden, data(drows_),
                                   data(dweight_));
    combine(nullptr);
  }

  /// Gate, up and down product.
  void multiply() {
    for (int repeat = 0; repeat < 2; ++repeat) {
      kernels::grouped_gemm(kExperts, starts(), kInner, kHidden, data(rows_), data(w_in_),
                            data(inner_));
    }
    kernels::grouped_gemm(kExperts, starts(), kHidden, kInner, data(inner_), data(w_out_),
                          data(drows_));
  }
  /// Their gradients by input and by weight.
  void multiply_back() {
    for (int repeat = 0; repeat < 2; ++repeat) {
      kernels::grouped_gemm_input_grad(kExperts, starts(), kInner, kHidden, data(inner_),
                                       data(w_in_), data(drows_));
      kernels::grouped_gemm_weight_grad(kExperts, starts(), kInner, kHidden, data(inner_),
                                        data(rows_), data(w_in_));
    }
    kernels::grouped_gemm_input_grad(kExperts, starts(), kHidden, kInner, data(rows_), data(w_out_),
                                     data(inner_));
    kernels::grouped_gemm_weight_grad(kExperts, starts(), kHidden, kInner, data(rows_),
                                      data(inner_), data(w_out_));
  }

 private:
  static constexpr int64_t kPairs = kTokens * kActive;

  static float* data(const torch::Tensor& tensor) { return tensor.data_ptr<float>(); }
  const int64_t* starts() const { return slots_.expert_offsets.data_ptr<int64_t>(); }
  const int64_t* offsets() const { return routing_.offsets.data_ptr<int64_t>(); }
  const int64_t* slot_of_pair() const { return slots_.slot_of_pair.data_ptr<int64_t>(); }
  void combine(const float* weight) {
    kernels::combine_rows(data(rows_), offsets(), slot_of_pair(), weight, kTokens, kHidden,
                          data(tokens_));
  }

  TopKRouter router_;
  Routing routing_;
  Dispatch slots_;
  torch::Tensor hidden_ = torch::randn({kTokens, kHidden}).requires_grad_();
  torch::Tensor tokens_ = torch::randn({kTokens, kHidden});
  torch::Tensor rows_ = torch::randn({kPairs, kHidden}), drows_ = torch::randn({kPairs, kHidden});
  torch::Tensor inner_ = torch::randn({kPairs, kInner}), dweight_ = torch::empty({kPairs});
  // Small, for products run over and over on their own results.
  torch::Tensor w_in_ = torch::randn({kExperts, kInner, kHidden}) * 1e-2;
  torch::Tensor w_out_ = torch::randn({kExperts, kHidden, kInner}) * 1e-2;
};

/// Median milliseconds of each part, run in turn so that all see the same machine.
void layer(benchmark::State& state) {
  Layer layer;
  struct Part {
    const char* name;
    void (Layer::*run)();
    std::vector<double> ms = {};
  };
  std::vector<Part> parts = {{"route_ms", &Layer::route},
                             {"dispatch_ms", &Layer::move_in},
                             {"products_ms", &Layer::multiply},
                             {"combine_ms", &Layer::move_out},
                             {"train_products_ms", &Layer::multiply_back},
                             {"train_movement_ms", &Layer::move_back},
                             {"train_route_ms", &Layer::route_and_back}};
  for (auto _ : state) {
    for (Part& part : parts) {
      const Stopwatch watch;
      (layer.*part.run)();
      part.ms.push_back(1e3 * watch.seconds());
    }
  }
  std::map<std::string, double> ms;
  for (const Part& part : parts) state.counters[part.name] = ms[part.name] = median(part.ms);
  const double moved = ms["dispatch_ms"] + ms["combine_ms"];
  state.counters["share"] = (ms["route_ms"] + moved) / ms["products_ms"];
  state.counters["train_share"] = (ms["train_route_ms"] + moved + ms["train_movement_ms"]) /
                                  (ms["products_ms"] + ms["train_products_ms"]);
}
BENCHMARK(layer)->Iterations(15)->Unit(benchmark::kMillisecond);

// --- A token's cost ----------------------------------------------------------------------------

constexpr int64_t kRouted = 1024;  ///< tokens: with 4096 experts 16 MiB of logits

struct Variant {
  const char* name;
  RouterConfig config;
  int64_t product_width = kHidden;  ///< of the logits' product, 0 = there is none
  RouteMode mode = RouteMode::kEval;
};

std::vector<Variant> variants() {
  const int64_t k = kActive;
  return {
      {"top_k", {"top_k", {{"k", k}}}},
      {"sigmoid_bias", {"top_k", {{"k", k}, {"squash", "sigmoid"}, {"bias_update", 0.001}}}},
      // Half as many: of 8 experts no more are left.
      {"groups", {"top_k", {{"k", k / 2}, {"groups", int64_t{4}}, {"groups_used", int64_t{2}}}}},
      {"top_p", {"top_p", {}}},
      {"null_experts", {"null_experts", {{"k", k}, {"nulls", k}}}},
      {"smoe_dropout", {"smoe_dropout", {{"k", k}, {"k_min", k}}}},
      {"noisy_eval", {"noisy_top_k", {{"k", k}}}},
      {"noisy_train", {"noisy_top_k", {{"k", k}}}, kHidden, RouteMode::kTrain},
      {"recurrent", {"recurrent", {{"k", k}}}, 128},
      {"stochastic", {"stochastic", {}}, 0},
      {"hash", {"hash", {}}, 0},
  };
}

/// The p at which tokens get kActive experts on average.
double fair_p(Router& router, RouteInput input) {
  double low = 0, high = 1;
  for (int step = 0; step < 20; ++step) {
    input.knobs.p = (low + high) / 2;
    const bool more = router.route(input).pairs() > kActive * kRouted;
    (more ? high : low) = *input.knobs.p;
  }
  return high;
}

template <class Body>
double cpu_ns_per_token(Body&& body) {
  const std::clock_t start = std::clock();
  body();
  return 1e9 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC / kRouted;
}

void route(benchmark::State& state, const Variant& variant) {
  const torch::NoGradGuard no_grad;
  const int threads = num_threads();
  set_num_threads(1);
  const int64_t experts = state.range(0), width = variant.product_width;
  const auto router = make_routers(variant.config, {.hidden = kHidden,
                                                    .experts = experts,
                                                    .experts_per_token = kActive,
                                                    .vocabulary = 1000,
                                                    .layers = 1})[0];
  RouteInput input = {.hidden = torch::randn({kRouted, kHidden}),
                      .token_ids = torch::randint(0, 1000, {kRouted}),
                      .total_steps = 1,
                      .mode = variant.mode};
  if (variant.config.kind == "top_p") input.knobs.p = fair_p(*router, input);
  if (variant.config.kind == "stochastic") input.knobs.k = kActive;
  const auto x = torch::randn({kRouted, kHidden}), w = torch::randn({experts, kHidden});
  const auto logits = torch::empty({kRouted, experts});
  std::vector<double> all, product;
  for (auto _ : state) {
    all.push_back(cpu_ns_per_token([&] { benchmark::DoNotOptimize(router->route(input)); }));
    product.push_back(cpu_ns_per_token([&] {
      if (width == 0) return;
      kernels::gemm(kernels::Op::kNone, kernels::Op::kTranspose, kRouted, experts, width, 1,
                    x.data_ptr<float>(), width, w.data_ptr<float>(), width, 0,
                    logits.data_ptr<float>(), experts);
    }));
  }
  state.counters["ns"] = median(all);
  state.counters["product_ns"] = median(product);
  state.counters["beyond_ns"] = median(all) - median(product);
  set_num_threads(threads);
}

}  // namespace
}  // namespace cadre

int main(int argc, char** argv) {
  cadre::keep_freed_memory();
  for (const auto& variant : cadre::variants()) {
    benchmark::RegisterBenchmark((std::string("route/") + variant.name).c_str(), cadre::route,
                                 variant)
        ->Arg(8)
        ->Arg(64)
        ->Arg(512)
        ->Arg(4096)
        ->Iterations(25)
        ->Unit(benchmark::kMicrosecond);
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
