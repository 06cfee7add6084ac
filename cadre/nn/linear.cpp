#include "cadre/nn/linear.h"

#include <functional>
#include <numeric>

#include "cadre/base/error.h"
#include "cadre/kernels/gemm.h"
#include "cadre/nn/tensor_check.h"

namespace cadre {
namespace {

using kernels::gemm;
using kernels::Op;
using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

int64_t rows_of(const Tensor& x) {
  return std::accumulate(x.sizes().begin(), x.sizes().end() - 1, int64_t{1}, std::multiplies<>());
}

void multiply(const Tensor& x, const Tensor& weight, float beta, Tensor& y) {
  const int64_t in = weight.size(1), out = weight.size(0);
  gemm(Op::kNone, Op::kTranspose, rows_of(x), out, in, 1, x.data_ptr<float>(), in,
       weight.data_ptr<float>(), in, beta, y.data_ptr<float>(), out);
}

/// dx (+)= dy W; beta 0 overwrites.
void input_gradient(const Tensor& dy, const Tensor& weight, float beta, Tensor& dx) {
  const int64_t in = weight.size(1), out = weight.size(0);
  gemm(Op::kNone, Op::kNone, rows_of(dy), in, out, 1, dy.data_ptr<float>(), out,
       weight.data_ptr<float>(), in, beta, dx.data_ptr<float>(), in);
}

Tensor weight_gradient(const Tensor& dy, const Tensor& x, const Tensor& weight) {
  const int64_t in = weight.size(1), out = weight.size(0);
  Tensor dw = torch::empty_like(weight);
  gemm(Op::kTranspose, Op::kNone, out, in, rows_of(dy), 1, dy.data_ptr<float>(), out,
       x.data_ptr<float>(), in, 0, dw.data_ptr<float>(), in);
  return dw;
}

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight,
                        const c10::optional<Tensor>& bias) {
    context->save_for_backward({x, weight});
    context->saved_data["has_bias"] = bias.has_value();
    Tensor y = empty_rows(x, weight.size(0));
    if (bias) y.copy_(*bias);
    multiply(x, weight, bias ? 1 : 0, y);
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1];
    const Tensor dy = grads[0].contiguous();
    Tensor dx, dw, dbias;
    if (context->needs_input_grad(0)) {
      dx = torch::empty_like(x);
      input_gradient(dy, weight, 0, dx);
    }
    if (context->needs_input_grad(1)) dw = weight_gradient(dy, x, weight);
    if (context->saved_data["has_bias"].toBool()) dbias = dy.view({-1, weight.size(0)}).sum(0);
    return {dx, dw, dbias};
  }
};

struct LinearsFunction : torch::autograd::Function<LinearsFunction> {
  static variable_list forward(AutogradContext* context, const Tensor& x, at::TensorList weights) {
    variable_list saved = {x};
    variable_list outputs;
    for (const Tensor& weight : weights) {
      saved.push_back(weight);
      outputs.push_back(empty_rows(x, weight.size(0)));
      multiply(x, weight, 0, outputs.back());
    }
    context->save_for_backward(saved);
    context->set_materialize_grads(false);
    return outputs;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const Tensor& x = saved[0];
    variable_list results(saved.size());
    for (size_t i = 0; i < grads.size(); ++i) {
      if (!grads[i].defined()) continue;
      const Tensor &weight = saved[i + 1], dy = grads[i].contiguous();
      if (context->needs_input_grad(0)) {
        const bool first = !results[0].defined();
        if (first) results[0] = torch::empty_like(x);
        input_gradient(dy, weight, first ? 0 : 1, results[0]);
      }
      if (context->needs_input_grad(i + 1)) results[i + 1] = weight_gradient(dy, x, weight);
    }
    return results;
  }
};

void prepare(const Tensor& x, const Tensor& weight) {
  join_team();
  check_fp32(x, "linear's x");
  check_fp32(weight, "linear's weight");
  if (weight.dim() != 2 || x.dim() < 1 || x.size(-1) != weight.size(1)) {
    throw UsageError("linear: x {} does not fit weight {}; expected [..., in] and [out, in]",
                     describe(x), describe(weight));
  }
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  prepare(x, weight);
  if (!bias.defined()) {
    return LinearFunction::apply(x.contiguous(), weight.contiguous(), c10::optional<Tensor>());
  }
  if (bias.dim() != 1 || bias.size(0) != weight.size(0)) {
    throw UsageError("linear: bias {} does not fit weight {}", describe(bias), describe(weight));
  }
  return LinearFunction::apply(x.contiguous(), weight.contiguous(),
                               c10::optional<Tensor>(dense_fp32(bias, "linear's bias")));
}

std::vector<Tensor> linears(const Tensor& x, const std::vector<Tensor>& weights) {
  std::vector<Tensor> dense;
  for (const Tensor& weight : weights) {
    prepare(x, weight);
    dense.push_back(weight.contiguous());
  }
  return LinearsFunction::apply(x.contiguous(), at::TensorList(dense));
}

LinearImpl::LinearImpl(const LinearOptions& options) {
  if (options.in < 1 || options.out < 1) {
    throw UsageError("a linear layer needs at least one input and one output, got {} and {}",
                     options.in, options.out);
  }
  weight = register_parameter("weight",
                              torch::empty({options.out, options.in}).normal_(0, options.init_std));
  if (options.bias == LinearOptions::Bias::kZero) {
    bias = register_parameter("bias", torch::zeros({options.out}));
  }
}

Tensor LinearImpl::forward(const Tensor& x) { return cadre::linear(x, weight, bias); }

}  // namespace cadre
