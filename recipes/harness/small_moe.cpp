#include "recipes/harness/small_moe.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "cadre/nn/parameters.h"

namespace cadre::recipes {
namespace {

std::shared_ptr<LinearImpl> linear_with_bias(int64_t in, int64_t out) {
  // The standard deviation of LibTorch's uniform weights within +-1 / sqrt(in).
  const double std = 1 / std::sqrt(3.0 * static_cast<double>(in));
  return std::make_shared<LinearImpl>(
      LinearOptions{.in = in, .out = out, .bias = LinearOptions::Bias::kZero, .init_std = std});
}

}  // namespace

Mlp::Mlp(int64_t in, int64_t inner, int64_t out, Activation activation)
    : up_(register_module("up", linear_with_bias(in, inner))),
      down_(register_module("down", linear_with_bias(inner, out))),
      activation_(activation) {}

torch::Tensor Mlp::forward(const torch::Tensor& x) {
  return down_->forward(activate(up_->forward(x), activation_));
}

SmallMoe::SmallMoe(const SmallMoeOptions& options, std::shared_ptr<Router> chosen)
    : router(register_module("router", std::move(chosen))),
      experts(register_module("experts", std::make_shared<ExpertMlp>(options.experts))),
      objectives_(options.objectives) {
  if (options.shared_inner > 0) {
    const auto [in, inner, out, count, activation] = options.experts;
    shared =
        register_module("shared", std::make_shared<Mlp>(in, options.shared_inner, out, activation));
  }
}

torch::Tensor SmallMoe::routed(const torch::Tensor& x, const Routing& given) {
  return experts->forward(x, given);
}

torch::Tensor SmallMoe::forward(const torch::Tensor& x, RouteInput input) {
  if (!input.hidden.defined()) input.hidden = x;
  input.mode = is_training() ? RouteMode::kTrain : RouteMode::kEval;
  routing = router->route(input);
  aux = torch::zeros({});
  for (const RoutingObjective& objective : objectives_) {
    if (is_training()) aux = aux + objective.evaluate(routing, input) * objective.coefficient;
  }
  const auto y = routed(x, routing);
  return shared ? y + shared->forward(x) : y;
}

Curve fit(const ArmRun& run, torch::nn::Module& module, const FitOptions& options,
          const std::function<torch::Tensor(int64_t step)>& loss) {
  NamedTensors parameters;
  for (auto& item : unique_parameters(module)) {
    if (item.second.requires_grad()) parameters.push_back(std::move(item));
  }
  AdamW adam(parameters, options.adam);
  const CosineSchedule schedule{.lr = options.lr,
                                .warmup_steps = 0,
                                .total_steps = options.steps,
                                .final_share = options.final_lr / options.lr};
  const int64_t part = std::max<int64_t>(1, options.steps / options.curve_points);
  Curve curve;
  double sum = 0;
  module.train();
  run.steps(options.steps, [&](int64_t step) {
    const auto value = loss(step);
    value.backward();
    adam.step(schedule.at(step));
    sum += value.item<double>();
    if ((step + 1) % part != 0) return;
    curve.x.push_back(static_cast<double>(step + 1));
    curve.y.push_back(std::exchange(sum, 0) / static_cast<double>(part));
  });
  module.eval();
  return curve;
}

double normalized_error(const torch::Tensor& prediction, const torch::Tensor& y) {
  const auto error = (prediction - y).square().mean();
  const auto variance = (y - y.mean(0, true)).square().mean();
  return (error / variance).item<double>();
}

}  // namespace cadre::recipes
