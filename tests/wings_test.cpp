// A model trained in the learn wing gives the same logits in the run wing.

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "cadre/engine/session.h"
#include "cadre/training/checkpoint.h"
#include "cadre/training/test_kit.h"

namespace cadre {
namespace {

constexpr int64_t kLength = 40;

/// One model in both wings, its logits and the experts that each token got.
class Wings : public testing::TestWithParam<ModelConfig> {
 protected:
  /// What a wing gives for the same tokens.
  struct Answer {
    torch::Tensor logits;                                       ///< [T, V]
    std::map<int64_t, std::vector<std::set<int64_t>>> experts;  ///< by layer, of each token
  };

  /// Saves and opens the model; `adapt` changes its weights before.
  void build(const std::function<void(const std::string&, torch::Tensor&)>& adapt) {
    LanguageModel model(GetParam(), 5);
    // Norms away from 1 and matrices away from tiny, as training leaves them.
    torch::manual_seed(1);
    for (auto& [name, weight] : model.named_weights()) {
      if (name.ends_with("gate.table")) continue;  // ids of experts
      weight.add_(torch::randn_like(weight), weight.dim() == 1 ? 0.2 : 0.15);
      adapt(name, weight);
    }
    save_checkpoint(folder_ / "model", model, byte_tokenizer());
    learn_ = load_checkpoint(folder_ / "model");
    run_ = engine::Model::open(folder_ / "model",
                               {.threads = 2, .quantize_to = kernels::BlockType::kF32});
    for (TokenId i = 0; i < kLength; ++i) tokens_.push_back(i * 37 % kByteVocabulary);
  }

  Answer learned() {
    const auto ids = torch::tensor(std::vector<int64_t>(tokens_.begin(), tokens_.end()));
    std::vector<KeyValueCache> caches(GetParam().layers);  // as for generation
    Answer answer{.logits = learn_->logits(ids.view({1, kLength}), &caches).squeeze(0)};
    for (const auto& [index, layer] : learn_->expert_layers()) {
      const Routing& routing = layer->last_routing();
      const int64_t* offset = routing.offsets.data_ptr<int64_t>();
      const int32_t* expert = routing.expert.data_ptr<int32_t>();
      for (int64_t t = 0; t < kLength; ++t) {
        answer.experts[index].emplace_back(expert + offset[t], expert + offset[t + 1]);
      }
    }
    return answer;
  }

  Answer ran() {
    Answer answer;
    run_->on_route = [&](int64_t layer, int64_t position, const engine::Session*,
                         std::span<const int32_t> experts, std::span<const float>) {
      answer.experts[layer].resize(kLength);
      auto& chosen = answer.experts[layer][static_cast<size_t>(position)];
      for (const int32_t expert : experts) {
        if (expert >= 0) chosen.insert(expert);
      }
    };
    engine::Session session(run_);
    const engine::Model::Slice slice = {&session, tokens_, engine::Model::Slice::Want::kAll};
    answer.logits = torch::tensor(run_->forward({&slice, 1})).view({kLength, -1});
    run_->on_route = nullptr;
    return answer;
  }

  /// Tokens before the first that was given other experts in some layer.
  static int64_t routed_alike(const Answer& a, const Answer& b) {
    int64_t alike = kLength;
    for (const auto& [layer, experts] : a.experts) {
      const auto& others = b.experts.at(layer);
      const auto differ = std::mismatch(experts.begin(), experts.end(), others.begin());
      alike = std::min<int64_t>(alike, differ.first - experts.begin());
    }
    return alike;
  }

  const TestFolder folder_;
  std::unique_ptr<LanguageModel> learn_;
  std::shared_ptr<engine::Model> run_;
  std::vector<TokenId> tokens_;
};

/// Keys and values are BF16 in the run wing's cache, fp32 in the learn wing. That moves logits a
/// little, and turns a router's near tie over now and then: from that token on they differ more.
TEST_P(Wings, GiveTheSameLogitsWhileRoutesAgree) {
  build([](const std::string&, torch::Tensor&) {});
  EXPECT_EQ(run_->tokenizer().vocabulary_size(), kByteVocabulary);
  const Answer ours = ran(), theirs = learned();
  const int64_t alike = routed_alike(ours, theirs);
  ASSERT_GE(alike, kLength / 4);
  const double spread = theirs.logits.std().item<double>();
  const auto error = (ours.logits - theirs.logits).abs().narrow(0, 0, alike);
  // The cache alone brings the hash router, whose routes cannot differ, to 0.0204.
  const double most = GetParam().router.is_standard() ? 0.02 : 0.025;
  EXPECT_LT(error.max().item<double>(), most * spread) << alike << " tokens";
  EXPECT_LT(error.mean().item<double>(), 0.003 * spread) << alike << " tokens";
}

/// With values of zero the cache holds nothing that could be rounded: every token gets the same
/// experts, and what is left are other orders of fp32 sums.
TEST_P(Wings, AgreeToRoundingWithoutTheCache) {
  build([](const std::string& name, torch::Tensor& weight) {
    if (name.ends_with("v_proj.weight")) weight.zero_();
  });
  const Answer ours = ran(), theirs = learned();
  EXPECT_EQ(routed_alike(ours, theirs), kLength);
  const double spread = theirs.logits.std().item<double>();
  EXPECT_LT((ours.logits - theirs.logits).abs().max().item<double>(), 1e-4 * spread);
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
