#include "cadre/engine/router_kinds.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "cadre/base/error.h"
#include "cadre/engine/router.h"
#include "cadre/engine/router_state.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"
#include "cadre/formats/router_kinds.h"

namespace cadre::engine {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

/// A golden file of the learn wing (cadre/routing/golden_test.cpp).
class Golden {
 public:
  explicit Golden(const std::filesystem::path& path)
      : file_(parse_json(read_file(path), path.string())) {
    const json& shape = file_["shape"];
    spec_ = {.vocabulary = shape["vocabulary"],
             .hidden = shape["hidden"],
             .layers = shape["layers"],
             .experts = shape["experts"],
             .experts_used = shape["experts_per_token"]};
    tokens_ = shape["tokens"];
    read_router({{"cadre", {{"router", file_["router"]}}}}, path.string(), spec_);
  }

  std::string kind() const { return spec_.router_config.kind; }

  /// Routes all tokens of all layers and compares.
  void check() {
    states_.assign(static_cast<size_t>(tokens_ * spec_.router.state_width), 0);
    for (int64_t layer = 0; layer < spec_.layers; ++layer) check_layer(static_cast<size_t>(layer));
  }

 private:
  std::vector<float> tensor(size_t layer, const std::string& name) const {
    const json& tensors = file_["tensors"][layer];
    return tensors.contains(name) ? tensors[name].get<std::vector<float>>() : std::vector<float>();
  }

  /// W x + b, in the plainest way; no b = zeros.
  static std::vector<float> product(const std::vector<float>& matrix, const float* x,
                                    size_t columns, const std::vector<float>& bias) {
    std::vector<float> y(matrix.size() / columns);
    for (size_t row = 0; row < y.size(); ++row) {
      for (size_t i = 0; i < columns; ++i) y[row] += matrix[row * columns + i] * x[i];
      if (!bias.empty()) y[row] += bias[row];
    }
    return y;
  }

  /// What the router's matrix reads: the hidden state, or the recurrent state after this layer.
  std::vector<float> seen_by(size_t layer, int64_t token) {
    const auto hidden = file_["hidden"][layer].get<std::vector<float>>();
    const auto width = static_cast<size_t>(spec_.hidden);
    std::vector<float> x(hidden.begin() + token * spec_.hidden,
                         hidden.begin() + (token + 1) * spec_.hidden);
    if (spec_.router.scorer != Scorer::kRecurrent) return x;
    const auto p = static_cast<size_t>(spec_.router.state_width);
    float* state = states_.data() + static_cast<size_t>(token) * p;
    const auto read = product(tensor(layer, "proj"), x.data(), width, {});
    auto in = product(tensor(0, "cell.weight_ih"), read.data(), p, tensor(0, "cell.bias_ih"));
    auto from = product(tensor(0, "cell.weight_hh"), state, p, tensor(0, "cell.bias_hh"));
    if (in.size() == 3 * p) {
      gru_step(in.data(), from.data(), static_cast<int64_t>(p), state);
    } else {
      tanh_step(in.data(), from.data(), static_cast<int64_t>(p), state);
    }
    return {state, state + p};
  }

  /// Experts of a token, best first, and their weights.
  std::pair<std::vector<int32_t>, std::vector<float>> choose(size_t layer, int64_t token) {
    if (spec_.router.scorer == Scorer::kTable) return {{entry_of(layer, token)}, {1.0F}};
    const Router router(spec_.router, spec_.experts, tensor(layer, "e_score_correction_bias"));
    const int64_t k = spec_.router.slots > 0 ? spec_.router.slots : spec_.experts_used;
    auto matrix = tensor(layer, "weight");
    const auto nulls = tensor(layer, "null_weight");
    matrix.insert(matrix.end(), nulls.begin(), nulls.end());
    const auto x = seen_by(layer, token);
    auto logits = product(matrix, x.data(), x.size(), tensor(layer, "bias"));
    EXPECT_EQ(static_cast<int64_t>(logits.size()), router.columns());
    std::vector<int32_t> experts(static_cast<size_t>(k));
    std::vector<float> weights(static_cast<size_t>(k));
    router.choose({.k = k}, logits.data(), experts.data(), weights.data());
    std::erase(experts, -1);
    weights.resize(experts.size());
    return {experts, weights};
  }

  int32_t entry_of(size_t layer, int64_t token) const {
    if (kind() == "stochastic") return drawn_expert(static_cast<int64_t>(layer), spec_.experts);
    const int64_t id = file_["token_ids"][static_cast<size_t>(token)];
    return static_cast<int32_t>(tensor(layer, "table").at(static_cast<size_t>(id)));
  }

  void check_layer(size_t layer) {
    for (int64_t t = 0; t < tokens_; ++t) {
      const auto [experts, weights] = choose(layer, t);
      const auto at = static_cast<size_t>(t);
      const json& expected = file_["routing"][layer];
      EXPECT_EQ(json(experts), expected["experts"][at]) << "token " << t << ", layer " << layer;
      for (size_t j = 0; j < experts.size(); ++j) {
        EXPECT_NEAR(weights[j], expected["weights"][at].at(j).get<float>(), 2e-6)
            << "token " << t << ", layer " << layer;
      }
    }
  }

  json file_;
  ModelSpec spec_;
  int64_t tokens_ = 0;
  std::vector<float> states_;  ///< [tokens, p]
};

std::string refusal(const json& router) {
  ModelSpec spec = {.vocabulary = 40, .hidden = 8, .layers = 2, .experts = 4, .experts_used = 2};
  try {
    read_router({{"cadre", {{"router", router}}}}, "c.json", spec);
  } catch (const FormatError& error) {
    return error.what();
  }
  return "";
}

TEST(RouterKinds, GiveTheRoutingsOfTheLearnWing) {
  std::set<std::string> seen;
  const auto folder = std::filesystem::path(CADRE_SOURCE_DIR) / "tests/golden/routing";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    SCOPED_TRACE(entry.path().string());
    Golden golden(entry.path());
    golden.check();
    seen.insert(golden.kind());
  }
  for (const RouterKind& kind : router_kinds()) {
    if (kind.causal) {
      EXPECT_TRUE(seen.contains(std::string(kind.name))) << kind.name;
    }
  }
}

TEST(RouterKinds, WhatLooksAheadNeedsAFallback) {
  for (const RouterKind& kind : router_kinds()) {
    if (kind.causal) continue;
    EXPECT_THAT(refusal({{"kind", kind.name}}), HasSubstr("fallback")) << kind.name;
    EXPECT_EQ(refusal({{"kind", kind.name}, {"fallback", "top_k"}}), "") << kind.name;
  }
}

TEST(RouterKinds, RefusesInOneLine) {
  EXPECT_EQ(refusal({{"kind", "top_p"}, {"p", 2}}),
            "c.json: \"cadre\": \"router\": router top_p: p is 2, must be above 0 and at most 1");
  EXPECT_THAT(refusal({{"kind", "top_k"}, {"k", 5}}), HasSubstr("k is 5, must be from 1 to 4"));
  EXPECT_THAT(refusal({{"kind", "top_q"}}), HasSubstr("did you mean top_k?"));
  EXPECT_THAT(refusal({{"kind", "top_k"}, {"capacity_factor", 1.5}}),
              HasSubstr("capacity_factor to 0"));
  EXPECT_THAT(refusal({{"kind", "recurrent"}, {"memory", "residual"}}),
              HasSubstr("memory residual does not run here"));
  EXPECT_THAT(refusal({{"kind", "stochastic"}, {"eval_scope", "token"}}),
              HasSubstr("set eval_scope to sequence"));
  ModelSpec dense = {.hidden = 8, .layers = 2};
  EXPECT_THROW(read_router({{"cadre", {{"router", {{"kind", "top_p"}}}}}}, "c.json", dense),
               FormatError);
  ModelSpec plain;
  read_router({{"hidden_size", 3}}, "c.json", plain);
  EXPECT_TRUE(plain.router_config.is_standard());
}

TEST(Router, ATokenMayHaveNoExpert) {
  const Router router({.normalize = true, .nulls = 2}, 2, {});
  std::vector<float> logits = {0, 0, 5, 5};
  std::vector<int32_t> experts(2);
  std::vector<float> weights(2);
  router.choose({.k = 2, .top_p = 0.5F}, logits.data(), experts.data(), weights.data());
  EXPECT_THAT(experts, ::testing::ElementsAre(-1, -1));
  EXPECT_THAT(weights, ::testing::ElementsAre(0, 0));
}

TEST(Router, ABiasOfTheNullsMovesTheirShare) {
  const Router router({.normalize = true, .nulls = 2}, 2, {});
  const auto count = [&](float bias) {
    std::vector<float> logits = {0, 1, 0.5F, 0.25F};
    std::vector<int32_t> experts(2);
    std::vector<float> weights(2);
    router.choose({.k = 2, .null_bias = bias}, logits.data(), experts.data(), weights.data());
    std::erase(experts, -1);
    return experts.size();
  };
  EXPECT_EQ(count(0), 1U);
  EXPECT_EQ(count(-2), 2U);
  EXPECT_EQ(count(2), 0U);
}

TEST(Router, PrefixTakesThePOfTheCall) {
  const Router router({.selection = Selection::kPrefix, .p = 0.4F}, 4, {});
  const auto count = [&](RouteChoice choice) {
    std::vector<float> logits(4, 0);
    std::vector<int32_t> experts(static_cast<size_t>(choice.k));
    std::vector<float> weights(static_cast<size_t>(choice.k));
    router.choose(choice, logits.data(), experts.data(), weights.data());
    std::erase(experts, -1);
    return experts.size();
  };
  EXPECT_EQ(count({.k = 4}), 2U);
  EXPECT_EQ(count({.k = 4, .top_p = 0.6F}), 3U);
  EXPECT_EQ(count({.k = 1, .top_p = 0.6F}), 1U) << "at most k";
}

}  // namespace
}  // namespace cadre::engine
