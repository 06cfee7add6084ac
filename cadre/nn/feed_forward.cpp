#include "cadre/nn/feed_forward.h"

#include <array>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/kernels/elementwise.h"
#include "cadre/kernels/expert_ffn.h"
#include "cadre/nn/tensor_check.h"

namespace cadre {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor activate(const Tensor& gate_up) {
  const int64_t inner = gate_up.size(-1) / 2;
  Tensor y = empty_rows(gate_up, inner);
  kernels::silu_mul(gate_up.data_ptr<float>(), gate_up.numel() / (2 * inner), inner,
                    y.data_ptr<float>());
  return y;
}

Tensor activate_backward(const Tensor& gate_up, const Tensor& dy) {
  const int64_t inner = gate_up.size(-1) / 2;
  Tensor dgate_up = torch::empty_like(gate_up);
  kernels::silu_mul_backward(gate_up.data_ptr<float>(), dy.data_ptr<float>(),
                             gate_up.numel() / (2 * inner), inner, dgate_up.data_ptr<float>());
  return dgate_up;
}

struct SiluMulFunction : torch::autograd::Function<SiluMulFunction> {
  static Tensor forward(AutogradContext* context, const Tensor& gate_up) {
    context->save_for_backward({gate_up});
    return activate(gate_up);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    return {activate_backward(context->get_saved_variables()[0], grads[0].contiguous())};
  }
};

struct GeluFunction : torch::autograd::Function<GeluFunction> {
  static Tensor forward(AutogradContext* context, const Tensor& x) {
    context->save_for_backward({x});
    Tensor y = torch::empty_like(x);
    kernels::gelu(x.data_ptr<float>(), x.numel(), y.data_ptr<float>());
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const Tensor x = context->get_saved_variables()[0], dy = grads[0].contiguous();
    Tensor dx = torch::empty_like(x);
    kernels::gelu_backward(x.data_ptr<float>(), dy.data_ptr<float>(), x.numel(),
                           dx.data_ptr<float>());
    return {dx};
  }
};

/// One expert that takes every row: the experts' kernel keeps a tile's products and activation in
/// cache.
struct SwiGluFunction : torch::autograd::Function<SwiGluFunction> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& w_gate,
                        const Tensor& w_up, const Tensor& w_down) {
    Tensor gate_up = empty_rows(x, 2 * w_gate.size(0));
    const Tensor y = run(x, w_gate, w_up, w_down, gate_up.data_ptr<float>());
    context->save_for_backward({x, w_gate, w_up, w_down, gate_up});
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &x = saved[0], &w_gate = saved[1], &w_up = saved[2], &w_down = saved[3];
    const auto [shape, offsets] = as_expert(x, w_gate);
    const Tensor dy = grads[0].contiguous();
    Tensor dx = torch::empty_like(x), dw_gate = torch::empty_like(w_gate),
           dw_up = torch::empty_like(w_up), dw_down = torch::empty_like(w_down);
    kernels::expert_ffn_backward(
        shape, offsets.data(), x.data_ptr<float>(), w_gate.data_ptr<float>(),
        w_up.data_ptr<float>(), w_down.data_ptr<float>(), saved[4].data_ptr<float>(),
        dy.data_ptr<float>(), dx.data_ptr<float>(), dw_gate.data_ptr<float>(),
        dw_up.data_ptr<float>(), dw_down.data_ptr<float>());
    return {dx, dw_gate, dw_up, dw_down};
  }

  /// gate_up may be null: nothing is kept for backward.
  static Tensor run(const Tensor& x, const Tensor& w_gate, const Tensor& w_up, const Tensor& w_down,
                    float* gate_up) {
    const auto [shape, offsets] = as_expert(x, w_gate);
    Tensor y = torch::empty_like(x);
    kernels::expert_ffn(shape, offsets.data(), x.data_ptr<float>(), w_gate.data_ptr<float>(),
                        w_up.data_ptr<float>(), w_down.data_ptr<float>(), gate_up,
                        y.data_ptr<float>());
    return y;
  }

 private:
  static std::pair<kernels::ExpertFfnShape, std::array<int64_t, 2>> as_expert(
      const Tensor& x, const Tensor& w_gate) {
    const int64_t inner = w_gate.size(0), width = w_gate.size(1);
    return {{.experts = 1, .hidden = width, .inner = inner}, {0, x.numel() / width}};
  }
};

}  // namespace

Tensor silu_mul(const Tensor& gate_up) {
  check_fp32(gate_up, "silu_mul's gate_up");
  if (gate_up.dim() < 1 || gate_up.size(-1) < 2 || gate_up.size(-1) % 2 != 0) {
    throw UsageError("silu_mul: gate_up {} does not hold two halves [..., 2H]", describe(gate_up));
  }
  return SiluMulFunction::apply(gate_up.contiguous());
}

Tensor gelu(const Tensor& x) { return GeluFunction::apply(dense_fp32(x, "gelu's x")); }

Tensor swi_glu(const Tensor& x, const Tensor& w_gate, const Tensor& w_up, const Tensor& w_down) {
  join_team();
  for (const Tensor& tensor : {x, w_gate, w_up, w_down}) check_fp32(tensor, "swi_glu's input");
  const bool fits = w_gate.dim() == 2 && w_up.sizes() == w_gate.sizes() && w_down.dim() == 2 &&
                    w_down.size(0) == w_gate.size(1) && w_down.size(1) == w_gate.size(0) &&
                    x.dim() >= 1 && x.size(-1) == w_gate.size(1);
  if (!fits) {
    throw UsageError(
        "swi_glu: x {}, w_gate {}, w_up {}, w_down {} do not fit; expected [..., D], [H, D], [H, "
        "D], [D, H]",
        describe(x), describe(w_gate), describe(w_up), describe(w_down));
  }
  const Tensor dense_x = x.contiguous(), gate = w_gate.contiguous(), up = w_up.contiguous(),
               down = w_down.contiguous();
  if (!needs_gradient(x, w_gate, w_up, w_down)) {
    return SwiGluFunction::run(dense_x, gate, up, down, nullptr);
  }
  return SwiGluFunction::apply(dense_x, gate, up, down);
}

SwiGlu::SwiGlu(int64_t hidden, int64_t inner, double init_std) {
  gate_proj = register_module(
      "gate_proj", Linear(LinearOptions{.in = hidden, .out = inner, .init_std = init_std}));
  up_proj = register_module(
      "up_proj", Linear(LinearOptions{.in = hidden, .out = inner, .init_std = init_std}));
  down_proj = register_module(
      "down_proj", Linear(LinearOptions{.in = inner, .out = hidden, .init_std = init_std}));
}

Tensor SwiGlu::forward(const Tensor& hidden, LayerContext&) { return forward(hidden); }

Tensor SwiGlu::forward(const Tensor& x) {
  return swi_glu(x, gate_proj->weight, up_proj->weight, down_proj->weight);
}

GeluFeedForward::GeluFeedForward(int64_t hidden, int64_t inner, double init_std) {
  using Bias = LinearOptions::Bias;
  up_proj = register_module(
      "up_proj",
      Linear(LinearOptions{.in = hidden, .out = inner, .bias = Bias::kZero, .init_std = init_std}));
  down_proj = register_module(
      "down_proj",
      Linear(LinearOptions{.in = inner, .out = hidden, .bias = Bias::kZero, .init_std = init_std}));
}

Tensor GeluFeedForward::forward(const Tensor& hidden, LayerContext&) {
  return down_proj->forward(cadre::gelu(up_proj->forward(hidden)));
}

}  // namespace cadre
