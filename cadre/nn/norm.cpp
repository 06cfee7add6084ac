#include "cadre/nn/norm.h"

#include "cadre/base/error.h"
#include "cadre/kernels/elementwise.h"
#include "cadre/nn/tensor_check.h"

namespace cadre {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

int64_t rows_of(const Tensor& x) { return x.numel() / x.size(-1); }

Tensor per_row(const Tensor& x) { return torch::empty({rows_of(x)}, x.options()); }

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight,
                        double eps) {
    Tensor y = torch::empty_like(x), inverse_rms = per_row(x);
    kernels::rms_norm(x.data_ptr<float>(), weight.data_ptr<float>(), static_cast<float>(eps),
                      rows_of(x), x.size(-1), y.data_ptr<float>(), inverse_rms.data_ptr<float>());
    context->save_for_backward({x, weight, inverse_rms});
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &inverse_rms = saved[2];
    const Tensor dy = grads[0].contiguous();
    Tensor dx = torch::empty_like(x), dw = torch::empty_like(weight);
    kernels::rms_norm_backward(x.data_ptr<float>(), weight.data_ptr<float>(),
                               inverse_rms.data_ptr<float>(), dy.data_ptr<float>(), rows_of(x),
                               x.size(-1), dx.data_ptr<float>(), dw.data_ptr<float>());
    return {dx, dw, Tensor()};
  }
};

struct LayerNormFunction : torch::autograd::Function<LayerNormFunction> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight,
                        const Tensor& bias, double eps) {
    Tensor y = torch::empty_like(x), mean = per_row(x), inverse_std = per_row(x);
    kernels::layer_norm(x.data_ptr<float>(), weight.data_ptr<float>(), bias.data_ptr<float>(),
                        static_cast<float>(eps), rows_of(x), x.size(-1), y.data_ptr<float>(),
                        mean.data_ptr<float>(), inverse_std.data_ptr<float>());
    context->save_for_backward({x, weight, mean, inverse_std});
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &mean = saved[2], &inverse_std = saved[3];
    const Tensor dy = grads[0].contiguous();
    Tensor dx = torch::empty_like(x), dw = torch::empty_like(weight),
           dbias = torch::empty_like(weight);
    kernels::layer_norm_backward(x.data_ptr<float>(), weight.data_ptr<float>(),
                                 mean.data_ptr<float>(), inverse_std.data_ptr<float>(),
                                 dy.data_ptr<float>(), rows_of(x), x.size(-1), dx.data_ptr<float>(),
                                 dw.data_ptr<float>(), dbias.data_ptr<float>());
    return {dx, dw, dbias, Tensor()};
  }
};

void check_shapes(const Tensor& x, const Tensor& parameter, const char* name) {
  check_fp32(x, fmt::format("{}'s x", name));
  check_fp32(parameter, fmt::format("{}'s parameter", name));
  if (parameter.dim() != 1 || parameter.size(0) < 1 || x.dim() < 1 ||
      x.size(-1) != parameter.size(0)) {
    throw UsageError("{}: x {} does not fit the parameter {}; expected [..., D] and [D]", name,
                     describe(x), describe(parameter));
  }
}

Tensor filled(int64_t hidden, double value) {
  if (hidden < 1) throw UsageError("a norm needs a width of at least 1, got {}", hidden);
  return torch::full({hidden}, value);
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  check_shapes(x, weight, "rms_norm");
  return RmsNormFunction::apply(x.contiguous(), weight.contiguous(), eps);
}

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  check_shapes(x, weight, "layer_norm");
  check_shapes(x, bias, "layer_norm");
  return LayerNormFunction::apply(x.contiguous(), weight.contiguous(), bias.contiguous(), eps);
}

RmsNormImpl::RmsNormImpl(int64_t hidden, double eps) : eps_(eps) {
  weight = register_parameter("weight", filled(hidden, 1));
}

Tensor RmsNormImpl::forward(const Tensor& x) { return cadre::rms_norm(x, weight, eps_); }

LayerNormImpl::LayerNormImpl(int64_t hidden, double eps) : eps_(eps) {
  weight = register_parameter("weight", filled(hidden, 1));
  bias = register_parameter("bias", filled(hidden, 0));
}

Tensor LayerNormImpl::forward(const Tensor& x) { return cadre::layer_norm(x, weight, bias, eps_); }

}  // namespace cadre
