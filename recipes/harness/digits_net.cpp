#include "recipes/harness/digits_net.h"

#include <fmt/format.h>

namespace cadre::recipes {

DigitsNet::DigitsNet(int64_t inputs, int64_t classes, const DigitsNetOptions& options,
                     const MakeRouter& make_router)
    : in_(register_module("in", torch::nn::Linear(inputs, options.width))),
      out_(register_module("out", torch::nn::Linear(options.width, classes))) {
  for (int64_t i = 0; i < options.blocks; ++i) {
    const SmallMoeOptions block = {.experts = {.in = options.width,
                                               .inner = options.inner,
                                               .out = options.width,
                                               .experts = options.experts,
                                               .activation = Activation::kRelu},
                                   .objectives = options.objectives};
    blocks.push_back(register_module(
        fmt::format("block{}", i), std::make_shared<SmallMoe>(block, make_router(options.width))));
  }
  for (int64_t i = 0; i <= options.blocks; ++i) {
    norms_.push_back(
        register_module(fmt::format("norm{}", i), std::make_shared<LayerNormImpl>(options.width)));
  }
}

torch::Tensor DigitsNet::forward(const torch::Tensor& rows, RouteInput how) {
  auto x = in_->forward(rows);
  aux = torch::zeros({});
  for (size_t i = 0; i < blocks.size(); ++i) {
    how.layer = static_cast<int64_t>(i);
    x = x + blocks[i]->forward(norms_[i]->forward(x), how);
    aux = aux + blocks[i]->aux;
  }
  return out_->forward(norms_.back()->forward(x));
}

Curve train_digits(const ArmRun& run, const DigitsTraining& training, const LabelledRows& rows,
                   DigitsNet& net, const std::function<void(int64_t step)>& each_step) {
  const int64_t batches = rows.size() / training.batch;
  const int64_t steps = batches * (run.smoke() ? training.smoke_epochs : training.epochs);
  torch::Tensor order;
  return fit(run, net, {.steps = steps, .lr = training.lr}, [&](int64_t step) {
    if (step % batches == 0) order = shuffled(rows.size(), run.seed, step / batches);
    const auto batch = rows.at(order.narrow(0, step % batches * training.batch, training.batch));
    const auto logits =
        net.forward(batch.x, {.step = step, .total_steps = steps, .seed = run.seed});
    if (each_step) each_step(step);
    return torch::nn::functional::cross_entropy(logits, batch.y) + net.aux;
  });
}

double accuracy(const torch::Tensor& logits, const torch::Tensor& y) {
  return 100 * (logits.argmax(1) == y).to(torch::kFloat64).mean().item<double>();
}

}  // namespace cadre::recipes
