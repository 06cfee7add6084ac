#include "cadre/reshape/merge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "cadre/base/error.h"
#include "cadre/formats/json.h"
#include "cadre/formats/test_folder.h"
#include "cadre/reshape/merge_methods.h"
#include "cadre/reshape/plan_file.h"
#include "cadre/reshape/test_checkpoints.h"
#include "cadre/reshape/yaml.h"

namespace cadre::reshape {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class Merge : public ::testing::Test {
 protected:
  fs::path at(const std::string& name) const { return folder_.path() / name; }

  /// Models by their names in the document, which become paths.
  void merge(json document, const std::string& out) {
    const auto place = [&](json& object, const char* key) {
      if (object.contains(key)) object[key] = at(object[key].get<std::string>()).string();
    };
    place(document, "base_model");
    const auto place_models = [&](json& list) {
      for (json& model : list) {
        place(model, "model");
        place(model, "fisher");
      }
    };
    if (document.contains("models")) place_models(document["models"]);
    if (document.contains("slices"))
      for (json& slice : document["slices"]) place_models(slice["sources"]);
    reshape({.steps = {plan_step("merge", {}, {{"config", document}}, "test")}}, at(out));
  }

  std::string complaint(const json& document) {
    try {
      merge(document, "bad");
    } catch (const UsageError& error) {
      return error.what();
    }
    return "none";
  }

  void dense(const std::string& name, DType type, uint64_t seed, int64_t layers = 2) {
    write_checkpoint(at(name), dense_model(type, seed, layers), dense_config(layers));
  }

  TestFolder folder_;
};

double largest_difference(const std::vector<float>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

json models(std::initializer_list<const char*> names, const json& parameters) {
  json list = json::array();
  for (const char* name : names) list.push_back({{"model", name}, {"parameters", parameters}});
  return list;
}

TEST_F(Merge, EveryMethodGivesWhatAPlainProgramGives) {
  const std::string path = CADRE_SOURCE_DIR "/tests/reference/merge_reference.json";
  const json reference = parse_json(read_file(path), path);
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  const auto shape = reference["shape"].get<std::vector<int64_t>>();
  for (const auto& [model, values] : reference["models"].items())
    write_checkpoint(at(model), {{{name, DType::kF32, shape}, values.get<std::vector<float>>()}});
  std::set<std::string> seen;
  for (const json& c : reference["cases"]) {
    merge(c["document"], "out");
    EXPECT_LE(
        largest_difference(values_in(at("out"), name), c["expected"].get<std::vector<double>>()),
        1e-6)
        << c["document"].dump();
    seen.insert(c["document"]["merge_method"]);
  }
  // The others draw at random, which no other program does the same way.
  for (const MergeMethod& method : merge_methods()) {
    const std::string_view known = method.name;
    const bool random = known.starts_with("dare") || known.starts_with("della");
    EXPECT_EQ(seen.contains(method.name), !random) << method.name;
  }
}

TEST_F(Merge, IdenticalInputsGiveTheInput) {
  dense("a", DType::kBF16, 1);
  const auto expected = bytes_in(at("a"));
  fs::copy(at("a"), at("b"), fs::copy_options::recursive);
  fs::copy(at("a"), at("c"), fs::copy_options::recursive);
  for (const MergeMethod& method : merge_methods()) {
    const std::string name = method.name;
    if (name == "fisher") continue;  // needs information of the models
    json document = {{"merge_method", name}};
    json parameters;
    for (const MergeParameter& parameter : method.parameters)
      if (parameter.fallback.is_null())
        parameters[parameter.name] = std::string(parameter.name) == "t" ? 0.3 : 0.7;
    document["parameters"] = parameters.is_null() ? json::object() : parameters;
    const bool one = method.max_models == 1;
    document["models"] = one ? models({"a"}, json::object()) : models({"a", "b"}, json::object());
    if (method.base == MergeBase::kRequired) document["base_model"] = "c";
    merge(document, "out");
    EXPECT_EQ(bytes_in(at("out")), expected) << name;
  }
}

TEST_F(Merge, IdenticalFloatsGiveTheInputBitForBit) {
  dense("a", DType::kF32, 1);
  for (const char* name : {"b", "c"}) fs::copy(at("a"), at(name), fs::copy_options::recursive);
  json list = models({"a", "b", "c"}, json::object());
  double weight = 0.1;
  for (json& model : list) model["parameters"]["weight"] = weight += 0.13;
  merge({{"merge_method", "linear"}, {"models", list}}, "out");
  EXPECT_EQ(bytes_in(at("out")), bytes_in(at("a")));
}

TEST_F(Merge, EndsOfScalesAreTheModels) {
  dense("a", DType::kF32, 1);
  dense("b", DType::kF32, 2);
  json list = models({"a", "b"}, json::object());
  list[0]["parameters"]["weight"] = 1.0;
  list[1]["parameters"]["weight"] = 0.0;
  for (const char* method : {"linear", "nuslerp"}) {
    merge({{"merge_method", method}, {"models", list}}, "out");
    EXPECT_EQ(bytes_in(at("out")), bytes_in(at("a"))) << method;
  }
  for (const int t : {0, 1}) {
    merge({{"merge_method", "slerp"},
           {"base_model", "a"},
           {"models", models({"b"}, json::object())},
           {"parameters", {{"t", t}}}},
          "out");
    EXPECT_EQ(bytes_in(at("out")), bytes_in(at(t == 0 ? "a" : "b")));
  }
}

TEST_F(Merge, OrderOfModelsIsIrrelevant) {
  for (const uint64_t seed : {1, 2, 3, 4})
    dense(std::string(1, static_cast<char>('a' + seed - 1)), DType::kBF16, seed);
  for (const char* method : {"linear", "ties", "task_arithmetic", "sce", "ram", "karcher"}) {
    json document = {{"merge_method", method}, {"models", models({"a", "b", "c"}, json::object())}};
    if (merge_method_named(method).base == MergeBase::kRequired) document["base_model"] = "d";
    const auto names = merge_method_named(method).parameter_names();
    if (std::find(names.begin(), names.end(), "weight") != names.end())
      document["parameters"] = {{"weight", 0.5}};
    merge(document, "out");
    const auto expected = bytes_in(at("out"));
    document["models"] = models({"c", "a", "b"}, json::object());
    merge(document, "out");
    // Sums in float64 may round a float32 norm either way; a 16-bit matrix they don't.
    for (const auto& [name, bytes] : bytes_in(at("out"))) {
      if (name.find("norm") != std::string::npos) continue;
      EXPECT_EQ(bytes, expected.at(name)) << method;
    }
  }
}

TEST_F(Merge, TiesOfOneModelAtFullDensityIsTheBaseAndLambdaTimesTheChange) {
  dense("a", DType::kF32, 1);
  dense("b", DType::kF32, 2);
  merge({{"merge_method", "ties"},
         {"base_model", "b"},
         {"models", models({"a"}, {{"weight", 0.7}})},
         {"parameters", {{"lambda", 0.5}, {"density", 1.0}}}},
        "out");
  const std::string name = "model.layers.1.mlp.down_proj.weight";
  const auto a = values_in(at("a"), name), b = values_in(at("b"), name);
  std::vector<double> expected;
  for (size_t i = 0; i < a.size(); ++i) expected.push_back(b[i] + 0.5 * (double{a[i]} - b[i]));
  EXPECT_LE(largest_difference(values_in(at("out"), name), expected), 1e-6);
}

/// Means over many seeds of what random methods add to a base of zeros.
class RandomMerge : public Merge {
 protected:
  std::vector<double> mean(const std::string& method, const json& parameters, int seeds) {
    std::vector<double> sum;
    const json document = {{"merge_method", method},
                           {"base_model", "base"},
                           {"models", {{{"model", "a"}}}},
                           {"parameters", parameters}};
    const std::vector<CheckpointPtr> inputs = {open_checkpoint(at("a")),
                                               open_checkpoint(at("base"))};
    for (int seed = 0; seed < seeds; ++seed) {
      json seeded = document;
      seeded["parameters"]["seed"] = seed;
      const CheckpointPtr out =
          planned_checkpoint(plan_merge(parse_merge_config(seeded, "test"), inputs), inputs);
      const auto values = read_values(*out, out->schema().require("w"));
      sum.resize(values.size());
      for (size_t i = 0; i < values.size(); ++i) sum[i] += values[i];
    }
    for (double& value : sum) value /= seeds;
    return sum;
  }
  void SetUp() override {
    write_checkpoint(at("a"), {{{"w", DType::kF32, {2, 5}}, values_}});
    write_checkpoint(at("base"), {{{"w", DType::kF32, {2, 5}}, std::vector<float>(10)}});
  }
  const std::vector<float> values_ = {1, -2, 3, -4, 5, 1, 1, -1, 2, 2};
};

TEST_F(RandomMerge, DareByDensityKeepsTheMean) {
  const json parameters = {{"weight", 1.0}, {"density", 0.4}, {"rescale_norm", "density"}};
  const auto means = mean("dare_linear", parameters, 10000);
  // The standard error of a mean is |x| sqrt((1 - p) / p / 10^4) = 0.0122 |x|.
  for (size_t i = 0; i < values_.size(); ++i)
    EXPECT_NEAR(means[i], values_[i], 5 * 0.0123 * std::abs(values_[i]));
}

TEST_F(RandomMerge, DellaKeepsTheLargerMoreOften) {
  const json parameters = {{"weight", 1.0}, {"density", 0.5}, {"epsilon", 0.4}, {"rescale", false}};
  const auto means = mean("della_linear", parameters, 4000);
  // Ranks of a row's five values run from 0.1 to 0.9.
  for (size_t i = 0; i < 5; ++i) {
    const double chance = 0.1 + 0.2 * static_cast<double>(i);
    EXPECT_NEAR(means[i] / values_[i], chance, 5 * 0.5 / std::sqrt(4000));
  }
}

TEST_F(RandomMerge, DrawsByNormKeepTheNorm) {
  const json parameters = {{"weight", 1.0}, {"density", 0.5}};
  for (int seed = 0; seed < 20; ++seed) {
    json seeded = parameters;
    seeded["seed"] = seed;
    merge({{"merge_method", "dare_linear"},
           {"base_model", "base"},
           {"models", {{{"model", "a"}}}},
           {"parameters", seeded}},
          "out");
    double norm = 0;
    for (const float value : values_in(at("out"), "w")) norm += std::abs(value);
    if (norm > 0) {
      EXPECT_NEAR(norm, 22, 1e-4);
    }
  }
}

TEST_F(Merge, GradientsAndFiltersChooseByLayerAndName) {
  dense("a", DType::kF32, 1, 3);
  dense("b", DType::kF32, 2, 3);
  json list = models({"a", "b"}, json::object());
  list[0]["parameters"]["weight"] =
      json::array({{{"filter", "mlp"}, {"value", {1.0, 0.0}}}, {{"value", 0.25}}});
  list[1]["parameters"]["weight"] =
      json::array({{{"filter", "mlp"}, {"value", {0.0, 1.0}}}, {{"value", 0.75}}});
  merge({{"merge_method", "linear"}, {"models", list}}, "out");
  const auto check = [&](const std::string& name, double share) {
    const auto a = values_in(at("a"), name), b = values_in(at("b"), name);
    std::vector<double> expected;
    for (size_t i = 0; i < a.size(); ++i) expected.push_back((1 - share) * a[i] + share * b[i]);
    EXPECT_LE(largest_difference(values_in(at("out"), name), expected), 1e-6) << name;
  };
  check("model.layers.0.mlp.up_proj.weight", 0);
  check("model.layers.1.mlp.up_proj.weight", 0.5);
  check("model.layers.2.mlp.up_proj.weight", 1);
  check("model.layers.1.self_attn.q_proj.weight", 0.75);
  check("model.embed_tokens.weight", 0.75);
}

TEST_F(Merge, SlicesStackLayersOfSeveralModels) {
  dense("a", DType::kBF16, 1, 3);
  dense("b", DType::kBF16, 2, 3);
  const json document = parse_yaml(R"(
merge_method: passthrough
slices:
  - sources: [{model: a, layer_range: [0, 2]}]
  - sources: [{model: b, layer_range: [1, 3]}]
)",
                                   "test");
  merge(document, "out");
  auto a = bytes_in(at("a")), b = bytes_in(at("b")), out = bytes_in(at("out"));
  EXPECT_EQ(json::parse(read_file(at("out") / "config.json"))["num_hidden_layers"], 4);
  const auto up = [](int layer) {
    return "model.layers." + std::to_string(layer) + ".mlp.up_proj.weight";
  };
  EXPECT_EQ(out[up(1)], a[up(1)]);
  EXPECT_EQ(out[up(2)], b[up(1)]);
  EXPECT_EQ(out[up(3)], b[up(2)]);
  EXPECT_EQ(out["model.embed_tokens.weight"], a["model.embed_tokens.weight"]);
  EXPECT_EQ(out["lm_head.weight"], b["lm_head.weight"]);
  EXPECT_EQ(out.size(), 3 + 4 * 9);
}

TEST_F(Merge, SaysWhatIsWrongInOneLine) {
  dense("a", DType::kBF16, 1);
  dense("b", DType::kBF16, 2);
  dense("deep", DType::kBF16, 3, 3);
  auto tensors = dense_model(DType::kBF16, 4);
  tensors[0] = random_tensor("model.embed_tokens.weight", DType::kBF16, {51, 24}, 4);
  write_checkpoint(at("vocabulary"), tensors, dense_config());
  tensors = dense_model(DType::kBF16, 4);
  tensors.erase(tensors.begin() + 4);
  write_checkpoint(at("missing"), tensors, dense_config());

  const auto two = [](const char* other) {
    return json{{"merge_method", "linear"}, {"models", models({"a", other}, {{"weight", 1}})}};
  };
  EXPECT_THAT(complaint(two("vocabulary")), HasSubstr("model.embed_tokens.weight"));
  EXPECT_THAT(complaint(two("missing")), HasSubstr("is missing"));
  EXPECT_THAT(complaint(two("deep")), HasSubstr("has 3 layers"));
  EXPECT_THAT(complaint(two("nowhere")), HasSubstr("no such file"));

  json document = two("b");
  document["merge_methd"] = "linear";
  EXPECT_THAT(complaint(document), HasSubstr("did you mean merge_method?"));
  document = two("b");
  document["merge_method"] = "tie";
  EXPECT_THAT(complaint(document), HasSubstr("did you mean ties?"));
  document = two("b");
  document["models"][0]["parameters"]["wieght"] = 1;
  EXPECT_THAT(complaint(document), HasSubstr("did you mean weight?"));
  document = two("b");
  document["merge_method"] = "ties";
  EXPECT_THAT(complaint(document), HasSubstr("base_model"));
  document = {{"merge_method", "linear"}, {"models", models({"a", "b"}, json::object())}};
  EXPECT_THAT(complaint(document), HasSubstr("needs parameter \"weight\""));
  document = two("b");
  document["models"][1]["parameters"]["weight"] = -1;
  EXPECT_THAT(complaint(document), HasSubstr("sum to zero"));
  EXPECT_FALSE(fs::exists(at("bad")));
}

}  // namespace
}  // namespace cadre::reshape
