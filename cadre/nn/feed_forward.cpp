#include "cadre/nn/feed_forward.h"

#include "cadre/base/error.h"
#include "cadre/kernels/elementwise.h"
#include "cadre/kernels/gemm.h"
#include "cadre/nn/tensor_check.h"

namespace cadre {
namespace {

using kernels::gemm;
using kernels::Op;
using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor empty_rows(const Tensor& x, int64_t width) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = width;
  return torch::empty(sizes, x.options());
}

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

/// Keeps x and gate_up [rows, 2H] (both products side by side, so that one pass activates them) and
/// computes silu(gate) * up again in backward: a pass over memory is cheaper than keeping [rows,
/// H].
struct SwiGluFunction : torch::autograd::Function<SwiGluFunction> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& w_gate,
                        const Tensor& w_up, const Tensor& w_down) {
    const int64_t inner = w_gate.size(0), width = w_gate.size(1), rows = x.numel() / width;
    Tensor gate_up = empty_rows(x, 2 * inner), y = empty_rows(x, width);
    for (const Tensor* weight : {&w_gate, &w_up}) {
      const int64_t column = weight == &w_gate ? 0 : inner;
      gemm(Op::kNone, Op::kTranspose, rows, inner, width, 1, x.data_ptr<float>(), width,
           weight->data_ptr<float>(), width, 0, gate_up.data_ptr<float>() + column, 2 * inner);
    }
    const Tensor active = activate(gate_up);
    gemm(Op::kNone, Op::kTranspose, rows, width, inner, 1, active.data_ptr<float>(), inner,
         w_down.data_ptr<float>(), inner, 0, y.data_ptr<float>(), width);
    context->save_for_backward({x, w_gate, w_up, w_down, gate_up});
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &x = saved[0], &w_down = saved[3], &gate_up = saved[4];
    const int64_t width = w_down.size(0), inner = w_down.size(1), rows = x.numel() / width;
    const Tensor dy = grads[0].contiguous();
    const Tensor dgate_up = activate_backward(gate_up, active_gradient(dy, w_down, gate_up));

    Tensor dx = torch::empty_like(x), dw_down = torch::empty_like(w_down);
    const Tensor active = activate(gate_up);
    gemm(Op::kTranspose, Op::kNone, width, inner, rows, 1, dy.data_ptr<float>(), width,
         active.data_ptr<float>(), inner, 0, dw_down.data_ptr<float>(), inner);
    Tensor dw[2];
    for (int64_t i : {0, 1}) {
      const Tensor& weight = saved[1 + i];
      const float* dproduct = dgate_up.data_ptr<float>() + i * inner;
      dw[i] = torch::empty_like(weight);
      gemm(Op::kTranspose, Op::kNone, inner, width, rows, 1, dproduct, 2 * inner,
           x.data_ptr<float>(), width, 0, dw[i].data_ptr<float>(), width);
      gemm(Op::kNone, Op::kNone, rows, width, inner, 1, dproduct, 2 * inner,
           weight.data_ptr<float>(), width, static_cast<float>(i), dx.data_ptr<float>(), width);
    }
    return {dx, dw[0], dw[1], dw_down};
  }

 private:
  static Tensor active_gradient(const Tensor& dy, const Tensor& w_down, const Tensor& gate_up) {
    const int64_t width = w_down.size(0), inner = w_down.size(1);
    Tensor dactive = empty_rows(gate_up, inner);
    gemm(Op::kNone, Op::kNone, dy.numel() / width, inner, width, 1, dy.data_ptr<float>(), width,
         w_down.data_ptr<float>(), inner, 0, dactive.data_ptr<float>(), inner);
    return dactive;
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
  return SwiGluFunction::apply(x.contiguous(), w_gate.contiguous(), w_up.contiguous(),
                               w_down.contiguous());
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
