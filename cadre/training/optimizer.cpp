#include "cadre/training/optimizer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "cadre/base/error.h"
#include "cadre/kernels/optimizer.h"

namespace cadre {
namespace {

void check_options(const AdamWOptions& o) {
  const auto check = [](const char* name, double value, double low, double high) {
    if (!(value >= low && value < high)) {
      throw UsageError("{} is {}, must be from {} to below {}", name, value, low, high);
    }
  };
  constexpr double kAny = std::numeric_limits<double>::infinity();
  check("beta1", o.beta1, 0, 1);
  check("beta2", o.beta2, 0, 1);
  check("eps", o.eps, 1e-30, kAny);
  check("weight_decay", o.weight_decay, 0, kAny);
  check("clip_norm", o.clip_norm, 0, kAny);
}

}  // namespace

AdamW::AdamW(NamedTensors parameters, const AdamWOptions& options)
    : parameters_(std::move(parameters)), options_(options) {
  check_options(options_);
  for (const auto& [name, parameter] : parameters_) {
    if (!parameter.is_contiguous() || parameter.scalar_type() != torch::kFloat32) {
      throw Error("parameter {} is not a dense fp32 tensor", name);
    }
    exp_avg_.push_back(torch::zeros_like(parameter, torch::TensorOptions().requires_grad(false)));
    exp_avg_sq_.push_back(torch::zeros_like(exp_avg_.back()));
  }
}

double AdamW::gradient_norm(double grad_scale) const {
  double sum = 0;
  for (const auto& [name, parameter] : parameters_) {
    const torch::Tensor& grad = parameter.grad();
    if (!grad.defined()) continue;
    const torch::Tensor dense = grad.contiguous();
    const double squares = kernels::sum_of_squares(dense.data_ptr<float>(), dense.numel());
    if (!std::isfinite(squares)) throw Error("the gradient of {} is not finite", name);
    sum += squares;
  }
  return std::sqrt(sum) * grad_scale;
}

double AdamW::step(double lr, double grad_scale) {
  const double norm = gradient_norm(grad_scale);
  const double clip =
      options_.clip_norm > 0 && norm > options_.clip_norm ? options_.clip_norm / norm : 1.0;
  ++steps_;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    torch::Tensor& parameter = parameters_[i].second;
    if (!parameter.grad().defined()) continue;
    const torch::Tensor grad = parameter.grad().contiguous();
    const kernels::AdamWStep step = {
        .lr = static_cast<float>(lr),
        .beta1 = static_cast<float>(options_.beta1),
        .beta2 = static_cast<float>(options_.beta2),
        .eps = static_cast<float>(options_.eps),
        .weight_decay = parameter.dim() >= 2 ? static_cast<float>(options_.weight_decay) : 0.0F,
        .grad_scale = static_cast<float>(grad_scale * clip),
        .step = steps_};
    kernels::adamw(step, parameter.numel(), parameter.data_ptr<float>(), grad.data_ptr<float>(),
                   exp_avg_[i].data_ptr<float>(), exp_avg_sq_[i].data_ptr<float>());
    // Undefined rather than zero: the next backward pass then hands its buffer over without a copy.
    parameter.mutable_grad() = torch::Tensor();
  }
  return norm;
}

NamedTensors AdamW::state() const {
  NamedTensors state;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    state.emplace_back("exp_avg." + parameters_[i].first, exp_avg_[i]);
    state.emplace_back("exp_avg_sq." + parameters_[i].first, exp_avg_sq_[i]);
  }
  return state;
}

double CosineSchedule::at(int64_t step) const {
  if (step < warmup_steps) {
    return lr * static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  }
  const int64_t span = std::max<int64_t>(1, total_steps - warmup_steps);
  const double done =
      std::min(1.0, static_cast<double>(step - warmup_steps) / static_cast<double>(span));
  const double cosine = 0.5 * (1 + std::cos(std::numbers::pi * done));
  return lr * (final_share + (1 - final_share) * cosine);
}

}  // namespace cadre
