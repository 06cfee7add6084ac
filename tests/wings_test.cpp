// A model trained in the learn wing gives the same logits in the run wing.

#include <gtest/gtest.h>

#include "cadre/engine/session.h"
#include "cadre/training/checkpoint.h"
#include "cadre/training/test_kit.h"

namespace cadre {
namespace {

class Wings : public testing::TestWithParam<ModelConfig> {};

TEST_P(Wings, GiveTheSameLogits) {
  const TestFolder folder;
  LanguageModel model(GetParam(), 5);
  {
    // Norms away from 1 and matrices away from tiny, as training leaves them.
    torch::manual_seed(1);
    for (auto& [name, weight] : model.named_weights()) {
      if (name.ends_with("gate.table")) continue;  // ids of experts
      weight.add_(torch::randn_like(weight), weight.dim() == 1 ? 0.2 : 0.15);
    }
  }
  save_checkpoint(folder / "model", model, byte_tokenizer());
  const auto loaded = load_checkpoint(folder / "model");
  const auto opened = engine::Model::open(folder / "model",
                                          {.threads = 2, .quantize_to = kernels::BlockType::kF32});
  EXPECT_EQ(opened->tokenizer().vocabulary_size(), kByteVocabulary);

  std::vector<TokenId> tokens;
  for (TokenId i = 0; i < 40; ++i) tokens.push_back(i * 37 % kByteVocabulary);
  engine::Session session(opened);
  const engine::Model::Slice slice = {&session, tokens, engine::Model::Slice::Want::kAll};
  const std::vector<float> ours = opened->forward({&slice, 1});

  const auto ids = torch::tensor(std::vector<int64_t>(tokens.begin(), tokens.end())).view({1, 40});
  std::vector<KeyValueCache> caches(GetParam().layers);  // as for generation
  const auto theirs = loaded->logits(ids, &caches).view({-1}).contiguous();
  const auto run = torch::from_blob(const_cast<float*>(ours.data()), {theirs.numel()});
  // Keys and values are BF16 in the run wing's cache, fp32 in the learn wing. That turns over a
  // router's near tie now and then: routing itself is compared in the golden files.
  const double spread = theirs.std().item<double>();
  const bool standard = GetParam().router.is_standard();
  if (standard) {
    EXPECT_LT((run - theirs).abs().max().item<double>(), 0.02 * spread);
  }
  EXPECT_LT((run - theirs).abs().mean().item<double>(), (standard ? 0.003 : 0.012) * spread);
}

/// tiny_deepseek with each router; those that look ahead by their fallback.
std::vector<ModelConfig> models_of_all_routers() {
  std::vector<ModelConfig> models;
  for (const RouterKind& kind : router_kinds()) {
    ModelConfig config = tiny_deepseek();
    config.router.kind = std::string(kind.name);
    if (!kind.causal) config.router.options["fallback"] = "top_k";
    models.push_back(config);
  }
  return models;
}

INSTANTIATE_TEST_SUITE_P(Routers, Wings, testing::ValuesIn(models_of_all_routers()),
                         [](const auto& info) { return info.param.router.kind; });

INSTANTIATE_TEST_SUITE_P(Models, Wings,
                         testing::Values(tiny_llama(), tiny_olmoe(), tiny_deepseek()),
                         [](const auto& info) {
                           return std::string(name_of(info.param.architecture));
                         });

}  // namespace
}  // namespace cadre
