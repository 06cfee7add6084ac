#pragma once

/// A small classifier of rows with routed experts in it, and its training: what recipes on the
/// digits share.

#include <torch/torch.h>

#include <functional>
#include <memory>
#include <vector>

#include "cadre/data/labelled.h"
#include "cadre/nn/norm.h"
#include "recipes/harness/small_moe.h"

namespace cadre::recipes {

/// Called once a block, with the width that the router reads.
using MakeRouter = std::function<std::shared_ptr<Router>(int64_t width)>;

struct DigitsNetOptions {
  int64_t width = 64;
  int64_t blocks = 2;
  int64_t experts = 8;  ///< of a block
  int64_t inner = 32;   ///< hidden units of one, ReLU
  std::vector<RoutingObjective> objectives = {};
};

/// x = W r + b; blocks x += experts(LN(x)); logits from LN(x).
class DigitsNet : public torch::nn::Module {
 public:
  DigitsNet(int64_t inputs, int64_t classes, const DigitsNetOptions& options,
            const MakeRouter& make_router);

  /// rows [N, inputs]; returns logits [N, classes]. What routers should know beside the rows comes
  /// in `how`.
  torch::Tensor forward(const torch::Tensor& rows, RouteInput how = {});

  std::vector<std::shared_ptr<SmallMoe>> blocks;
  torch::Tensor aux;  ///< the sum over blocks

 private:
  torch::nn::Linear in_, out_;
  std::vector<std::shared_ptr<LayerNormImpl>> norms_;
};

struct DigitsTraining {
  int64_t epochs = 40, smoke_epochs = 4;
  int64_t batch = 64;
  double lr = 1e-3;
};

/// Cross entropy + aux over shuffled batches of full size; `each_step` sees the net after its
/// forward pass. Returns the loss over steps.
Curve train_digits(const ArmRun& run, const DigitsTraining& training, const LabelledRows& rows,
                   DigitsNet& net, const std::function<void(int64_t step)>& each_step = {});

/// Percent of the rows.
double accuracy(const torch::Tensor& logits, const torch::Tensor& y);

}  // namespace cadre::recipes
