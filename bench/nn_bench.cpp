// What a layer costs beside its matrix products: forward + backward of cadre's layers as a share of
// the same products done by dense gemm, measured in the same run.

#include <benchmark/benchmark.h>
#include <torch/torch.h>

#include <chrono>
#include <functional>

#include "cadre/kernels/gemm.h"
#include "cadre/nn/transformer.h"
#include "cadre/objectives/cross_entropy.h"

namespace {

using cadre::kernels::gemm;
using cadre::kernels::Op;
using torch::Tensor;
using Clock = std::chrono::steady_clock;

double seconds(const std::function<void()>& work) {
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// The three products of a linear layer's training step: y = x W^T, dx = dy W, dW = dy^T x.
class LinearProducts {
 public:
  LinearProducts(int64_t rows, int64_t in, int64_t out)
      : rows_(rows),
        in_(in),
        out_(out),
        x_(torch::randn({rows, in})),
        w_(torch::randn({out, in})),
        dy_(torch::randn({rows, out})),
        y_(torch::empty({rows, out})),
        dx_(torch::empty({rows, in})),
        dw_(torch::empty({out, in})) {}

  void run() {
    gemm(Op::kNone, Op::kTranspose, rows_, out_, in_, 1, data(x_), in_, data(w_), in_, 0, data(y_),
         out_);
    gemm(Op::kNone, Op::kNone, rows_, in_, out_, 1, data(dy_), out_, data(w_), in_, 0, data(dx_),
         in_);
    gemm(Op::kTranspose, Op::kNone, out_, in_, rows_, 1, data(dy_), out_, data(x_), in_, 0,
         data(dw_), in_);
  }

  double flops() const { return 6.0 * static_cast<double>(rows_ * in_ * out_); }

 private:
  static float* data(Tensor& x) { return x.data_ptr<float>(); }

  int64_t rows_, in_, out_;
  Tensor x_, w_, dy_, y_, dx_, dw_;
};

/// Times `layer` and the products it is made of turn by turn, so that both see the same machine.
void compare(benchmark::State& state, std::vector<LinearProducts> products,
             const std::function<void()>& layer) {
  double layer_time = 0, products_time = 0, flops = 0;
  const auto run_products = [&] {
    for (LinearProducts& product : products) product.run();
  };
  layer();
  run_products();
  for (auto _ : state) {
    const double elapsed = seconds(layer);
    state.SetIterationTime(elapsed);
    layer_time += elapsed;
    products_time += seconds(run_products);
    for (const LinearProducts& product : products) flops += product.flops();
  }
  state.counters["GFLOP/s"] = flops / layer_time * 1e-9;
  state.counters["gemm_GFLOP/s"] = flops / products_time * 1e-9;
  state.counters["share_of_gemm"] = products_time / layer_time;
}

void drop_gradients(const std::vector<Tensor>& parameters) {
  for (const Tensor& x : parameters) x.mutable_grad() = Tensor();
}

void linear(benchmark::State& state) {
  const int64_t rows = state.range(0), in = state.range(1), out = state.range(2);
  const Tensor x = torch::randn({rows, in}).requires_grad_();
  const Tensor w = torch::randn({out, in}).requires_grad_();
  const Tensor dy = torch::randn({rows, out});
  compare(state, {LinearProducts(rows, in, out)}, [&] {
    drop_gradients({x, w});
    cadre::linear(x, w).backward(dy);
  });
}

void swi_glu(benchmark::State& state) {
  const int64_t rows = state.range(0), hidden = state.range(1), inner = state.range(2);
  cadre::SwiGlu layer(hidden, inner);
  const Tensor x = torch::randn({rows, hidden}).requires_grad_();
  const Tensor dy = torch::randn({rows, hidden});
  std::vector<Tensor> leaves = layer.parameters();
  leaves.push_back(x);
  compare(state,
          {LinearProducts(rows, hidden, inner), LinearProducts(rows, hidden, inner),
           LinearProducts(rows, inner, hidden)},
          [&] {
            drop_gradients(leaves);
            layer.forward(x).backward(dy);
          });
}

/// Attention's own products are not counted: what is missing to 1 is attention, norms and all else.
void decoder_layer(benchmark::State& state) {
  const int64_t batch = state.range(0), length = state.range(1), hidden = state.range(2),
                inner = state.range(3), heads = hidden / 64, rows = batch * length;
  cadre::TransformerBlock block(
      cadre::AttentionOptions{
          .hidden = hidden, .heads = heads, .qk_norm = cadre::AttentionOptions::QkNorm::kFullWidth},
      std::make_shared<const cadre::RotaryTable>(length, 64),
      std::make_shared<cadre::SwiGlu>(hidden, inner));
  const Tensor x = torch::randn({batch, length, hidden}).requires_grad_();
  const Tensor dy = torch::randn({batch, length, hidden});
  const Tensor positions =
      torch::arange(length, torch::kInt64).expand({batch, length}).contiguous();
  std::vector<Tensor> leaves = block->parameters();
  leaves.push_back(x);
  std::vector<LinearProducts> products(4, LinearProducts(rows, hidden, hidden));
  for (int i = 0; i < 2; ++i) products.emplace_back(rows, hidden, inner);
  products.emplace_back(rows, inner, hidden);
  compare(state, products, [&] {
    drop_gradients(leaves);
    cadre::LayerContext context;
    block->forward(x, positions, context).backward(dy);
  });
}

void cross_entropy(benchmark::State& state) {
  const int64_t rows = state.range(0), hidden = state.range(1), vocabulary = state.range(2);
  const Tensor x = torch::randn({rows, hidden}).requires_grad_();
  const Tensor w = torch::randn({vocabulary, hidden}).requires_grad_();
  const Tensor targets = torch::randint(vocabulary, {rows}, torch::kInt64);
  compare(state, {LinearProducts(rows, hidden, vocabulary)}, [&] {
    drop_gradients({x, w});
    cadre::chunked_cross_entropy(x, w, targets, state.range(3)).backward();
  });
}

BENCHMARK(linear)->Args({1024, 512, 1408})->Args({4096, 256, 256})->UseManualTime();
BENCHMARK(swi_glu)->Args({4096, 256, 704})->Args({1024, 512, 1408})->UseManualTime();
BENCHMARK(decoder_layer)->Args({8, 256, 256, 704})->Args({4, 256, 512, 1408})->UseManualTime();
BENCHMARK(cross_entropy)
    ->Args({2048, 256, 4096, 256})
    ->Args({2048, 256, 4096, 1024})
    ->Args({2048, 256, 4096, 2048})
    ->UseManualTime();

}  // namespace

BENCHMARK_MAIN();
