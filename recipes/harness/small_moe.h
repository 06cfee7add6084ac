#pragma once

/// Small nets that recipes train in seconds: one expert layer on rows, and its training loop.

#include <torch/torch.h>

#include <functional>
#include <memory>
#include <vector>

#include "cadre/experts/expert_mlp.h"
#include "cadre/nn/linear.h"
#include "cadre/objectives/routing_objective.h"
#include "cadre/routing/router.h"
#include "cadre/training/optimizer.h"
#include "recipes/harness/recipe.h"

namespace cadre::recipes {

/// Two layers with bias, as a single expert of cadre::ExpertMlp.
class Mlp : public torch::nn::Module {
 public:
  Mlp(int64_t in, int64_t inner, int64_t out, Activation activation = Activation::kGelu);
  torch::Tensor forward(const torch::Tensor& x);

 private:
  Linear up_{nullptr}, down_{nullptr};
  Activation activation_;
};

struct SmallMoeOptions {
  ExpertMlpOptions experts;
  int64_t shared_inner = 0;  ///< of a dense network that always works beside them; 0 = none
  std::vector<RoutingObjective> objectives = {};
};

/// A router, MLP experts and perhaps a shared MLP: y_t = shared(x_t) + sum over pairs.
class SmallMoe : public torch::nn::Module {
 public:
  SmallMoe(const SmallMoeOptions& options, std::shared_ptr<Router> router);

  /// x [T, in]; returns [T, out]. What the router reads, when it is not x, and its step, mode,
  /// state and knobs come in `input`; objectives are evaluated while is_training().
  torch::Tensor forward(const torch::Tensor& x, RouteInput input = {});
  /// The experts' part alone, by a given routing.
  torch::Tensor routed(const torch::Tensor& x, const Routing& routing);

  std::shared_ptr<Router> router;
  std::shared_ptr<ExpertMlp> experts;
  std::shared_ptr<Mlp> shared;  ///< null = none
  Routing routing;              ///< of the last forward pass
  torch::Tensor aux;            ///< its objectives times their coefficients; a scalar

 private:
  std::vector<RoutingObjective> objectives_;
};

struct FitOptions {
  int64_t steps = 2000;
  double lr = 3e-3;  ///< falls along a cosine to final_lr
  double final_lr = 1e-5;
  /// Plain Adam by default.
  AdamWOptions adam = {.beta2 = 0.999, .weight_decay = 0, .clip_norm = 0};
  int64_t curve_points = 40;
};

/// Trains the module in training mode, loss(step) being a scalar, behind the run's progress bar.
/// Leaves it in evaluation mode. Returns the mean loss of each part of the steps over step. Throws
/// Error when a gradient is not finite.
Curve fit(const ArmRun& run, torch::nn::Module& module, const FitOptions& options,
          const std::function<torch::Tensor(int64_t step)>& loss);

/// Mean squared error over the variance of y [N, out], each output's variance around its mean.
double normalized_error(const torch::Tensor& prediction, const torch::Tensor& y);

}  // namespace cadre::recipes
