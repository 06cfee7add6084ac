/// The routings that the run wing must reproduce (cadre/engine/router_kinds_test.cpp reads the same
/// files). CADRE_WRITE_GOLDEN=1 writes them anew.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "cadre/formats/file.h"
#include "cadre/formats/json.h"
#include "cadre/routing/router_test_kit.h"
#include "cadre/routing/routers.h"

namespace cadre {
namespace {

using nlohmann::json;

constexpr int64_t kTokens = 12;
constexpr RouterShape kShape = {
    .hidden = 5, .experts = 6, .experts_per_token = 2, .vocabulary = 40, .layers = 2};

/// Names of files and what they configure: every causal kind as it comes, and what else it can do.
std::map<std::string, json> cases() {
  std::map<std::string, json> cases = {
      {"top_k_sigmoid_groups",
       {{"kind", "top_k"},
        {"k", 3},
        {"squash", "sigmoid"},
        {"scale", 2.5},
        {"groups", 3},
        {"groups_used", 2},
        {"bias_update", 0.001}}},
      {"top_k_raw", {{"kind", "top_k"}, {"weights", "raw"}, {"k", 6}}},
      {"top_p_normalized", {{"kind", "top_p"}, {"p", 0.8}, {"weights", "normalized"}}},
      {"null_experts_all_slots",
       {{"kind", "null_experts"}, {"nulls", 4}, {"k", 5}, {"weights", "all_slots"}}},
      {"noisy_top_k_learned", {{"kind", "noisy_top_k"}, {"noise_form", "learned"}, {"k", 3}}},
      {"recurrent_tanh",
       {{"kind", "recurrent"}, {"cell", "tanh"}, {"width", 4}, {"weights", "raw"}, {"k", 3}}},
      {"recurrent_gru", {{"kind", "recurrent"}, {"width", 7}, {"k", 2}}},
      {"smoe_dropout_k", {{"kind", "smoe_dropout"}, {"k", 3}, {"gate_std", 1.0}}}};
  for (const RouterKind& kind : router_kinds()) {
    if (kind.name == "recurrent") continue;  // of width 128: a megabyte of numbers
    if (kind.causal) cases[std::string(kind.name)] = {{"kind", kind.name}};
  }
  return cases;
}

std::vector<float> numbers_of(const torch::Tensor& tensor) {
  const auto flat = tensor.detach().to(torch::kFloat32).contiguous();
  return {flat.data_ptr<float>(), flat.data_ptr<float>() + flat.numel()};
}

torch::Tensor tensor_of(const json& numbers, at::IntArrayRef sizes) {
  return torch::tensor(numbers.get<std::vector<float>>()).view(sizes);
}

json rows_of(const Routing& routing) {
  json experts = json::array(), weights = json::array();
  for (const auto& row : testing::rows(routing)) {
    json ids = json::array(), shares = json::array();
    for (const testing::Pair& pair : row) {
      ids.push_back(pair.expert);
      shares.push_back(pair.weight);
    }
    experts.push_back(ids);
    weights.push_back(shares);
  }
  return {{"experts", experts}, {"weights", weights}};
}

/// What learning left in a router: N(0, 1) where it keeps numbers. Tables of ids stay.
json learned_tensors(const RouterConfig& config, const Router& router, int64_t index) {
  json tensors = json::object();
  const torch::NoGradGuard no_grad;
  for (auto& [name, tensor] : checkpoint_tensors(router, config, kShape, index)) {
    const bool is_table = tensor.dim() == 1 && tensor.size(0) == kShape.vocabulary;
    const auto seed = 20 + static_cast<uint64_t>(index) + tensors.size();
    if (!is_table) tensor.copy_(testing::random_tensor(tensor.sizes(), seed));
    tensors[name] = numbers_of(tensor);
  }
  return tensors;
}

/// Routes token by token states through all layers.
json route_all(const Routers& routers, const json& hidden, const json& ids) {
  json layers = json::array();
  torch::Tensor state;
  for (size_t i = 0; i < routers.size(); ++i) {
    const RouteInput input = {.hidden = tensor_of(hidden[i], {kTokens, kShape.hidden}),
                              .token_ids = torch::tensor(ids.get<std::vector<int64_t>>()),
                              .state = state,
                              .layer = static_cast<int64_t>(i)};
    const Routing routing = routers[i]->route(input);
    state = routing.state;
    layers.push_back(rows_of(routing));
  }
  return layers;
}

json make_golden(const RouterConfig& config) {
  torch::manual_seed(5);
  const Routers routers = make_routers(config, kShape);
  json file = {{"router", to_json(config)},
               {"shape",
                {{"hidden", kShape.hidden},
                 {"experts", kShape.experts},
                 {"experts_per_token", kShape.experts_per_token},
                 {"vocabulary", kShape.vocabulary},
                 {"layers", kShape.layers},
                 {"tokens", kTokens}}}};
  for (int64_t i = 0; i < kShape.layers; ++i) {
    file["tensors"].push_back(learned_tensors(config, *routers[static_cast<size_t>(i)], i));
    file["hidden"].push_back(numbers_of(
        testing::random_tensor({kTokens, kShape.hidden}, 60 + static_cast<uint64_t>(i))));
  }
  for (int64_t t = 0; t < kTokens; ++t) file["token_ids"].push_back(t * 7 % kShape.vocabulary);
  file["routing"] = route_all(routers, file["hidden"], file["token_ids"]);
  return file;
}

std::filesystem::path path_of(const std::string& name) {
  return std::filesystem::path(CADRE_SOURCE_DIR) / "tests/golden/routing" / (name + ".json");
}

TEST(Golden, RoutingsAreAsWritten) {
  for (const auto& [name, router] : cases()) {
    const RouterConfig config = parse_router_config(router, name);
    const auto path = path_of(name);
    if (std::getenv("CADRE_WRITE_GOLDEN")) write_file(path, make_golden(config).dump() + "\n");
    ASSERT_TRUE(std::filesystem::exists(path)) << path << ": run with CADRE_WRITE_GOLDEN=1";
    const json golden = parse_json(read_file(path), path.string());
    const Routers routers = make_routers(parse_router_config(golden["router"], name), kShape);
    for (size_t i = 0; i < routers.size(); ++i) {
      const torch::NoGradGuard no_grad;
      const auto index = static_cast<int64_t>(i);
      for (auto& [key, tensor] : checkpoint_tensors(*routers[i], config, kShape, index)) {
        tensor.copy_(tensor_of(golden["tensors"][i][key], tensor.sizes()));
      }
    }
    const json now = route_all(routers, golden["hidden"], golden["token_ids"]);
    for (size_t i = 0; i < routers.size(); ++i) {
      const json& expected = golden["routing"][i];
      EXPECT_EQ(now[i]["experts"], expected["experts"]) << name << ", layer " << i;
      for (size_t t = 0; t < expected["weights"].size(); ++t) {
        for (size_t j = 0; j < expected["weights"][t].size(); ++j) {
          EXPECT_NEAR(now[i]["weights"][t].at(j).get<float>(),
                      expected["weights"][t][j].get<float>(), 1e-5)
              << name;
        }
      }
    }
  }
}

}  // namespace
}  // namespace cadre
