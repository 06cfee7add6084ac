// A predictor trained in the learn wing forecasts the same in the run wing.

#include <gtest/gtest.h>

#include "cadre/engine/path_predictor.h"
#include "cadre/training/path_trainer.h"
#include "cadre/training/test_kit.h"

namespace cadre {
namespace {

RoutedText few_routes() {
  RoutedText text = {.layers = 2, .experts = 5, .used = 1};
  for (int i = 0; i < 4; ++i) {
    RoutedSequence sequence;
    for (int t = 0; t < 30; ++t) {
      sequence.tokens.push_back((i * 7 + t * t) % 20);
      for (int layer = 0; layer < 2; ++layer)
        sequence.chosen.push_back(static_cast<int16_t>((t + layer) % 5));
    }
    text.sequences.push_back(std::move(sequence));
  }
  return text;
}

TEST(PathPredictor, ForecastsTheSameInBothWings) {
  const TestFolder folder;
  PathTrainer trainer(
      few_routes(),
      {.network = {.hidden = 8, .blocks = 2, .heads = 2, .head_width = 4, .intermediate = 12},
       .steps = 6,
       .batch = 2,
       .length = 8,
       .window = 40});
  trainer.train([](int64_t, double) { return true; });
  trainer.save(folder / "path.safetensors");
  engine::PathModel model(folder / "path.safetensors", 2, 5);
  EXPECT_EQ(model.used(), 1);
  for (const int64_t prompt : {0, 1, 40}) {
    std::vector<int32_t> before;
    for (int32_t i = 0; i < prompt; ++i) before.push_back(i * 3 % 20);
    model.begin_sequence(0, before);
    const std::vector<int32_t> tokens = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9};
    const auto ids = [](const std::vector<int32_t>& of) {
      return torch::tensor(std::vector<int64_t>(of.begin(), of.end()), torch::kInt64).unsqueeze(0);
    };
    const torch::NoGradGuard no_grad;
    const torch::Tensor expected =
        trainer.network().logits(ids(before), ids(tokens), PathNetwork::Mode::kForecast);
    for (size_t t = 0; t < tokens.size(); ++t) {
      const std::vector<float> forecast = model.forecast(0, tokens[t]);
      const auto row = expected[0][static_cast<int64_t>(t)].reshape({-1}).contiguous();
      for (int64_t i = 0; i < row.numel(); ++i)
        EXPECT_NEAR(forecast[i], row.data_ptr<float>()[i], 1e-4) << prompt << ' ' << t << ' ' << i;
    }
  }
}

}  // namespace
}  // namespace cadre
