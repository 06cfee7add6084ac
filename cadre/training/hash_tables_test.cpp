#include "cadre/training/hash_tables.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "cadre/routing/hash_router.h"
#include "cadre/training/test_kit.h"

namespace cadre {
namespace {

TEST(HashTables, ShareTheTrainingTextEquallyInEveryLayer) {
  const TinyWorld world;
  const auto data = world.batches(4, 32);
  ModelConfig config = tiny_olmoe();
  config.router = {.kind = "hash"};
  LanguageModel model(config, 1);
  balance_hash_tables(model, *data);
  for (const auto& [index, layer] : model.expert_layers()) {
    const auto& table = dynamic_cast<const HashRouter&>(*layer->gate).table;
    std::vector<int64_t> load(config.experts);
    for (const DomainTokens& domain : data->domains()) {
      for (int64_t t = 0; t < domain.train->size(); ++t) {
        ++load[table[(*domain.train)[t]].item<int64_t>()];
      }
    }
    // Two of the sixteen letters each; the dealt-out table of a fresh model is far from it.
    const auto [least, most] = std::minmax_element(load.begin(), load.end());
    EXPECT_LT(*most, 1.5 * static_cast<double>(*least));
  }
}

TEST(HashTables, OtherRoutersStayAsTheyAre) {
  const TinyWorld world;
  LanguageModel model(tiny_olmoe(), 1);
  const auto before = model.named_weights();
  balance_hash_tables(model, *world.batches(4, 32));
  const auto after = model.named_weights();
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_TRUE(torch::equal(before[i].second, after[i].second));
  }
}

}  // namespace
}  // namespace cadre
