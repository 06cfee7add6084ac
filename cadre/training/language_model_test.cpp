#include "cadre/training/language_model.h"

#include <gtest/gtest.h>

#include "cadre/nn/test_gradients.h"
#include "cadre/objectives/consistency.h"
#include "cadre/training/test_kit.h"

namespace cadre {
namespace {

torch::Tensor random_ids(int64_t batch, int64_t length, uint64_t seed = 1) {
  torch::manual_seed(seed);
  return torch::randint(kByteVocabulary, {batch, length}, torch::kInt64);
}

class EveryArchitecture : public testing::TestWithParam<ModelConfig> {};

TEST_P(EveryArchitecture, HoldsTheTensorsOfItsCheckpoint) {
  LanguageModel model(GetParam(), 1);
  const NamedTensors weights = model.named_weights();
  const auto expected = expected_tensors(GetParam());
  ASSERT_EQ(weights.size(), expected.size());
  int64_t elements = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    EXPECT_EQ(weights[i].first, expected[i].name);
    EXPECT_EQ(weights[i].second.sizes().vec(), expected[i].shape) << expected[i].name;
    EXPECT_TRUE(weights[i].second.is_contiguous());
    elements += weights[i].second.numel();
  }
  int64_t parameters = 0;
  for (const auto& parameter : model.decoder()->parameters()) parameters += parameter.numel();
  EXPECT_EQ(elements, parameters) << "named_weights() must leave no parameter out";
  EXPECT_EQ(count_parameters(GetParam()).total, parameters);
}

TEST_P(EveryArchitecture, WeightsAreAFunctionOfTheSeed) {
  const torch::Tensor ids = random_ids(2, 8);
  EXPECT_TRUE(
      LanguageModel(GetParam(), 3).logits(ids).equal(LanguageModel(GetParam(), 3).logits(ids)));
  EXPECT_FALSE(
      LanguageModel(GetParam(), 3).logits(ids).equal(LanguageModel(GetParam(), 4).logits(ids)));
}

TEST_P(EveryArchitecture, CachesContinueWhereTheyStand) {
  LanguageModel model(GetParam(), 1);
  const torch::Tensor ids = random_ids(2, 12);
  const torch::Tensor whole = model.logits(ids);
  std::vector<KeyValueCache> caches(GetParam().layers);
  const torch::Tensor prefix = model.logits(ids.slice(1, 0, 7), &caches);
  EXPECT_TRUE(prefix.allclose(whole.slice(1, 0, 7), 1e-4, 1e-5));
  for (int64_t t = 7; t < 12; ++t) {
    const torch::Tensor next = model.next_logits(ids.slice(1, t, t + 1), &caches);
    EXPECT_TRUE(next.allclose(whole.select(1, t), 1e-4, 1e-5)) << t;
  }
}

TEST_P(EveryArchitecture, EvaluationAgreesWithLossAndLogits) {
  LanguageModel model(GetParam(), 1);
  const torch::Tensor inputs = random_ids(2, 8), targets = random_ids(2, 8, 2);
  const torch::Tensor losses = model.evaluate(inputs, targets);
  const torch::Tensor expected =
      -torch::log_softmax(model.logits(inputs), -1).gather(2, targets.unsqueeze(2)).squeeze(2);
  EXPECT_TRUE(losses.allclose(expected, 1e-4, 1e-5));
  const LossParts parts = model.loss(inputs, targets, 0, 1);
  EXPECT_NEAR(parts.cross_entropy, losses.mean().item<double>(), 1e-4);
}

TEST_P(EveryArchitecture, RecomputingGivesTheSameGradients) {
  const torch::Tensor inputs = random_ids(2, 8), targets = random_ids(2, 8, 2);
  LanguageModel keep(GetParam(), 1, Activations::kKeep);
  LanguageModel recompute(GetParam(), 1, Activations::kRecompute);
  keep.loss(inputs, targets, 0, 1).total.backward();
  recompute.loss(inputs, targets, 0, 1).total.backward();
  const auto expected = keep.decoder()->named_parameters();
  for (const auto& item : recompute.decoder()->named_parameters()) {
    ASSERT_TRUE(item.value().grad().defined()) << item.key();
    EXPECT_TRUE(item.value().grad().equal(expected[item.key()].grad())) << item.key();
  }
}

INSTANTIATE_TEST_SUITE_P(All, EveryArchitecture,
                         testing::Values(tiny_llama(), tiny_olmoe(), tiny_deepseek()),
                         [](const auto& info) {
                           return std::string(name_of(info.param.architecture));
                         });

class EveryRouter : public testing::TestWithParam<RouterKind> {
 protected:
  ModelConfig config_ = [] {
    ModelConfig config = tiny_deepseek();
    config.router.kind = std::string(GetParam().name);
    return config;
  }();
};

TEST_P(EveryRouter, HoldsTheTensorsOfItsCheckpoint) {
  LanguageModel model(config_, 1);
  const NamedTensors weights = model.named_weights();
  const auto expected = expected_tensors(config_);
  ASSERT_EQ(weights.size(), expected.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    EXPECT_EQ(weights[i].first, expected[i].name);
    EXPECT_EQ(weights[i].second.sizes().vec(), expected[i].shape) << expected[i].name;
  }
}

TEST_P(EveryRouter, LearnsWithFiniteGradients) {
  LanguageModel model(config_, 1);
  for (const int64_t step : {0, 5, 9}) {
    const LossParts parts = model.loss(random_ids(2, 12), random_ids(2, 12, 2), step, 10);
    parts.total.backward();
    EXPECT_TRUE(std::isfinite(parts.total.item<double>()));
  }
  for (const auto& item : model.decoder()->named_parameters()) {
    if (item.value().grad().defined()) {
      EXPECT_TRUE(item.value().grad().isfinite().all().item<bool>()) << item.key();
    }
  }
}

TEST_P(EveryRouter, RecomputingGivesTheSameGradients) {
  const torch::Tensor inputs = random_ids(2, 8), targets = random_ids(2, 8, 2);
  LanguageModel keep(config_, 1, Activations::kKeep);
  LanguageModel recompute(config_, 1, Activations::kRecompute);
  keep.loss(inputs, targets, 0, 1).total.backward();
  recompute.loss(inputs, targets, 0, 1).total.backward();
  const auto expected = keep.decoder()->named_parameters();
  for (const auto& item : recompute.decoder()->named_parameters()) {
    const auto& grad = expected[item.key()].grad();
    ASSERT_EQ(item.value().grad().defined(), grad.defined()) << item.key();
    if (grad.defined()) {
      EXPECT_TRUE(item.value().grad().equal(grad)) << item.key();
    }
  }
}

TEST_P(EveryRouter, DecodesTokenByTokenWhenItMay) {
  const torch::Tensor ids = random_ids(1, 6);
  std::vector<KeyValueCache> caches(config_.layers);
  if (!GetParam().causal) {
    LanguageModel ahead(config_, 1);
    EXPECT_NE(message_of<UsageError>([&] { ahead.logits(ids, &caches); }), "");
    config_.router.options["fallback"] = "top_k";
  }
  LanguageModel model(config_, 1);
  const torch::Tensor whole = model.logits(ids, &caches);
  std::vector<KeyValueCache> steps(config_.layers);
  for (int64_t t = 0; t < 6; ++t) {
    const torch::Tensor next = model.next_logits(ids.slice(1, t, t + 1), &steps);
    if (!GetParam().batch_invariant && GetParam().causal) continue;  // draws by place in the batch
    EXPECT_TRUE(next.allclose(whole.select(1, t), 1e-4, 1e-5)) << t;
  }
}

INSTANTIATE_TEST_SUITE_P(All, EveryRouter,
                         testing::ValuesIn(router_kinds().begin(), router_kinds().end()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(LanguageModel, BalanceHasTheFormOfTheRoutersPaper) {
  ModelConfig config = tiny_deepseek();
  config.z_loss_coefficient = 0;
  config.balance_coefficient = 1;
  config.router = {.kind = "smoe_dropout"};
  EXPECT_TRUE(
      LanguageModel(config, 1).loss(random_ids(2, 8), random_ids(2, 8, 2), 0, 1).aux.empty());
  config.router = {.kind = "top_p", .options = {{"p", 1.0}}};
  const LossParts parts =
      LanguageModel(config, 1).loss(random_ids(2, 8), random_ids(2, 8, 2), 0, 1);
  ASSERT_EQ(parts.aux.size(), 2U);
  EXPECT_NEAR(parts.aux[0].value.item<double>(), 8, 1e-3) << "all 8 experts: mean k times 1";
}

TEST(LanguageModel, FurtherObjectivesComeByName) {
  ModelConfig config = tiny_deepseek();
  config.objectives = {{"router_entropy", 0.5}};
  const LossParts parts =
      LanguageModel(config, 1).loss(random_ids(2, 8), random_ids(2, 8, 2), 0, 1);
  EXPECT_EQ(parts.aux.size(), 6U);
  config.objectives = {{"router_entopy", 0.5}};
  EXPECT_NE(message_of<UsageError>([&] { LanguageModel(config, 1); }), "");
}

TEST(LanguageModel, TotalIsCrossEntropyPlusAuxiliaryLosses) {
  LanguageModel model(tiny_deepseek(), 1);
  const LossParts parts = model.loss(random_ids(2, 8), random_ids(2, 8, 2), 0, 1);
  EXPECT_EQ(parts.aux.size(), 4U) << "balance and z-loss of two expert layers";
  double sum = parts.cross_entropy;
  for (const AuxLoss& aux : parts.aux) {
    EXPECT_FALSE(aux.value.requires_grad());
    sum += aux.value.item<double>();
  }
  EXPECT_NEAR(parts.total.item<double>(), sum, 1e-5);
  EXPECT_TRUE(parts.total.requires_grad());
}

TEST(LanguageModel, CoefficientsOfZeroAddNothing) {
  ModelConfig config = tiny_deepseek();
  config.balance_coefficient = config.z_loss_coefficient = 0;
  const LossParts parts =
      LanguageModel(config, 1).loss(random_ids(2, 8), random_ids(2, 8, 2), 0, 1);
  EXPECT_TRUE(parts.aux.empty());
}

TEST(LanguageModel, ExpertWeightsAreViews) {
  LanguageModel model(tiny_olmoe(), 1);
  for (auto& [name, weight] : model.named_weights()) {
    if (name == "model.layers.1.mlp.experts.3.up_proj.weight") weight.fill_(7);
  }
  EXPECT_TRUE(model.expert_layers()[1].second->up_proj[3].eq(7).all().item<bool>());
}

TEST(LanguageModel, LeavesDenseLayersOutOfExpertLayers) {
  LanguageModel model(tiny_deepseek(), 1);
  ASSERT_EQ(model.expert_layers().size(), 2U);
  EXPECT_EQ(model.expert_layers()[0].first, 1);
}

TEST(LanguageModel, TiedEmbeddingsShareTheMatrix) {
  ModelConfig config = tiny_llama();
  config.tied_embeddings = true;
  LanguageModel model(config, 1);
  EXPECT_EQ(model.named_weights().size(), expected_tensors(config).size());
  EXPECT_TRUE(model.decoder()->output_weight().is_same(model.decoder()->embed_tokens->weight));
}

TEST(LanguageModel, BadInputIsNamed) {
  ModelConfig config = tiny_olmoe();
  config.experts_per_token = 9;
  EXPECT_NE(message_of<UsageError>([&] { LanguageModel(config, 1); }), "");
  LanguageModel model(tiny_llama(), 1);
  EXPECT_NE(message_of<UsageError>([&] {
              model.logits(torch::full({1, 2}, kByteVocabulary));
            }),
            "");
  EXPECT_NE(message_of<UsageError>([&] { model.logits(random_ids(1, 65)); }), "");
}

TEST(ConsistentLoss, GradientsAreThoseOfTwoDraws) {
  ModelConfig config = tiny_deepseek();
  config.router.kind = "noisy_top_k";
  config.balance_coefficient = config.z_loss_coefficient = 0;
  LanguageModel model(config, 1);
  const torch::Tensor inputs = random_ids(2, 8), targets = random_ids(2, 8, 2);
  const auto gradients = [&](const torch::Tensor& loss) {
    for (auto& parameter : model.decoder()->parameters()) parameter.mutable_grad().reset();
    loss.backward();
    std::vector<torch::Tensor> all;
    for (auto& parameter : model.decoder()->parameters()) {
      all.push_back(parameter.grad().defined() ? parameter.grad().clone()
                                               : torch::zeros_like(parameter));
    }
    return all;
  };
  const auto logits_of = [&](int64_t draw) {
    model.decoder()->train();
    LayerContext context;
    context.step = 3;
    context.seed = 1;
    context.draw = draw;
    context.token_ids = inputs;
    return model.decoder()->logits(model.decoder()->forward(context));
  };
  const auto a = logits_of(0), b = logits_of(1);
  EXPECT_GT((a - b).abs().max().item<double>(), 0) << "the passes draw anew";
  const auto expected = consistency_loss(a, b, targets, {.coefficient = 40});
  const LossParts parts = model.consistent_loss(inputs, targets, 3, 10, 40);
  EXPECT_NEAR(parts.total.item<double>(), expected.item<double>(), 1e-4);
  EXPECT_NEAR(parts.total.item<double>(),
              2 * parts.cross_entropy + parts.aux[0].value.item<double>(), 1e-4);
  const auto ours = gradients(parts.total), theirs = gradients(expected);
  for (size_t i = 0; i < ours.size(); ++i) expect_close(ours[i], theirs[i], 1e-5);
}

}  // namespace
}  // namespace cadre
