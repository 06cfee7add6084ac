#include "cadre/training/routes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "cadre/training/test_kit.h"

namespace cadre {
namespace {

using testing::HasSubstr;

TokenBatch batch_of(int64_t first, int64_t count) {
  torch::manual_seed(first);
  const torch::Tensor ids = torch::randint(first, first + count, {4, 32}, torch::kInt64);
  return {ids, ids, torch::zeros({4}, torch::kInt64)};
}

TEST(Routes, SharesSumToOneAndCountEveryPair) {
  LanguageModel model(tiny_deepseek(), 1);
  const RoutesReport report =
      collect_routes(model, {"a", "b"}, {{batch_of(0, 20), batch_of(0, 20)}, {batch_of(100, 20)}});
  EXPECT_EQ(report.tokens, 3 * 4 * 32);
  EXPECT_EQ(report.experts, 8);
  EXPECT_EQ(report.experts_per_token, 2);
  ASSERT_EQ(report.layers.size(), 2U);
  EXPECT_EQ(report.layers[0].layer, 1) << "layer 0 is dense";
  for (const LayerRoutes& layer : report.layers) {
    ASSERT_EQ(layer.share.size(), 2U);
    for (const auto& row : layer.share) {
      EXPECT_EQ(row.size(), 8U);
      EXPECT_NEAR(std::accumulate(row.begin(), row.end(), 0.0), 1, 1e-9);
    }
    for (const double entropy : layer.entropy) {
      EXPECT_GT(entropy, 0);
      EXPECT_LE(entropy, std::log(8.0) + 1e-6);
    }
    EXPECT_GT(layer.specialization, 0);
    EXPECT_LE(layer.specialization, 1);
  }
}

TEST(Routes, AgreesWithTheRouting) {
  LanguageModel model(tiny_olmoe(), 1);
  const TokenBatch batch = batch_of(0, 200);
  const RoutesReport report = collect_routes(model, {"a"}, {{batch}});
  const torch::Tensor expert = model.expert_layers()[1].second->last_routing().expert;
  const double share = expert.eq(5).to(torch::kFloat64).mean().item<double>();
  EXPECT_NEAR(report.layers[1].share[0][5], share, 1e-12);
  EXPECT_EQ(report.layers[1].specialization, 0) << "one domain has nobody to differ from";
}

TEST(Routes, EqualDomainsDoNotDiffer) {
  LanguageModel model(tiny_deepseek(), 1);
  const TokenBatch batch = batch_of(0, 20);
  const RoutesReport report = collect_routes(model, {"a", "b"}, {{batch}, {batch}});
  EXPECT_EQ(report.layers[0].specialization, 0);
}

TEST(Routes, CountsExpertsByDomainAndTokenClass) {
  ModelConfig config = tiny_deepseek();
  config.router = {.kind = "top_p", .options = {{"p", 0.6}}};
  LanguageModel model(config, 1);
  TokenClasses classes{.names = {"low", "high"}, .of_token = std::vector<int32_t>(257, 1)};
  std::fill_n(classes.of_token.begin(), 100, 0);
  const RoutesReport report =
      collect_routes(model, {"a", "b"}, {{batch_of(0, 50)}, {batch_of(100, 50)}}, classes);
  EXPECT_EQ(report.class_tokens, (std::vector<int64_t>{128, 128}));
  for (const LayerRoutes& layer : report.layers) {
    EXPECT_EQ(layer.mean_k, layer.class_k) << "here a domain is a class";
    for (const double k : layer.mean_k) EXPECT_GE(k, 1);
  }
}

TEST(Routes, AModelRoutesAsItselfAndNotAsAnother) {
  LanguageModel model(tiny_deepseek(), 1), other(tiny_deepseek(), 2), dense(tiny_llama(), 1);
  const std::vector<std::vector<TokenBatch>> batches = {{batch_of(0, 200)}};
  for (const LayerDifference& same : compare_routes(model, model, batches)) {
    EXPECT_EQ(same.overlap, 1);
    EXPECT_EQ(same.load_distance, 0);
  }
  const auto differences = compare_routes(model, other, batches);
  ASSERT_EQ(differences.size(), 2U);
  EXPECT_EQ(differences[0].layer, 1);
  EXPECT_LT(differences[0].overlap, 1);
  EXPECT_GT(differences[0].load_distance, 0);
  EXPECT_EQ(differences[0].mean_k, 2);
  EXPECT_THAT(message_of<UsageError>([&] { compare_routes(model, dense, batches); }),
              HasSubstr("cannot be compared"));
}

TEST(TokenClasses, GoByTheFirstCharacter) {
  const TokenClasses classes = classify_tokens(byte_tokenizer(), 300);
  ASSERT_EQ(classes.of_token.size(), 300U);
  const auto name_of_text = [&](std::string_view text) {
    return classes.names[static_cast<size_t>(class_of_text(text))];
  };
  EXPECT_EQ(name_of_text(" the"), "word start");
  EXPECT_EQ(name_of_text("ing"), "word part");
  EXPECT_EQ(name_of_text(" \xC3\xBC"), "word start");
  EXPECT_EQ(name_of_text("42"), "digit");
  EXPECT_EQ(name_of_text(" ("), "punctuation");
  EXPECT_EQ(name_of_text("\n\n"), "space");
  EXPECT_EQ(name_of_text(""), "other");
  EXPECT_EQ(name_of_text("\x80"), "other");
}

TEST(Routes, BadInputIsNamed) {
  LanguageModel dense(tiny_llama(), 1), model(tiny_deepseek(), 1);
  EXPECT_THAT(message_of<UsageError>([&] { collect_routes(dense, {"a"}, {{batch_of(0, 9)}}); }),
              HasSubstr("no expert layers"));
  EXPECT_THAT(message_of<UsageError>([&] { collect_routes(model, {"a"}, {{}}); }),
              HasSubstr("domain 'a' has no tokens"));
  EXPECT_THAT(message_of<UsageError>([&] {
                collect_routes(model, {"a", "b"}, {{}});
              }),
              HasSubstr("2 domain names"));
}

}  // namespace
}  // namespace cadre
