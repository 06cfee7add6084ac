#include "cadre/reshape/lora.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/formats/safetensors.h"
#include "cadre/formats/test_folder.h"
#include "cadre/reshape/run.h"

namespace cadre::reshape {
namespace {

constexpr const char* kQuery = "model.layers.0.self_attn.q_proj";
constexpr const char* kUp = "model.layers.0.mlp.up_proj";
using Tensors = std::map<std::string, std::vector<float>>;

std::vector<float> normals(int64_t size, uint64_t seed) {
  Random random(seed);
  std::vector<float> values(size);
  for (float& v : values) v = random.normal();
  return values;
}

/// Two matrices [12, 8], a norm [8].
Tensors random_tensors(uint64_t seed) {
  return {{"model.norm.weight", normals(8, seed)},
          {std::string(kQuery) + ".weight", normals(96, seed + 1)},
          {std::string(kUp) + ".weight", normals(96, seed + 2)}};
}

std::vector<int64_t> shape_of(const std::vector<float>& values) {
  return values.size() == 8 ? std::vector<int64_t>{8} : std::vector<int64_t>{12, 8};
}

void write_checkpoint(const std::filesystem::path& folder, const Tensors& tensors) {
  std::filesystem::create_directories(folder);
  write_file(folder / "config.json", R"({"model_type": "llama", "hidden_size": 8})");
  std::vector<TensorSpec> specs;
  for (const auto& [name, values] : tensors) specs.push_back({name, DType::kF32, shape_of(values)});
  ShardedWriter writer(folder, specs);
  for (const auto& [name, values] : tensors) writer.write(name, std::as_bytes(std::span(values)));
  writer.commit();
}

Tensors merged(const std::filesystem::path& base, const LoraAdapter& adapter, double weight = 1) {
  const TestFolder folder;
  const std::vector<CheckpointPtr> inputs = {open_checkpoint(base)};
  run(merge_lora(inputs[0], adapter, weight), inputs, folder / "out");
  const CheckpointPtr out = open_checkpoint(folder / "out");
  Tensors tensors;
  for (const auto& t : out->schema().tensors()) tensors[t.info.name] = read_values(*out, t);
  return tensors;
}

LoraModule random_module(int64_t rank, double scale, uint64_t seed) {
  return {.out = 12,
          .in = 8,
          .rank = rank,
          .a = normals(rank * 8, seed),
          .b = normals(rank * 12, seed + 1),
          .scale = scale};
}

std::vector<double> product(const LoraModule& m) {
  std::vector<double> w(static_cast<size_t>(m.out * m.in));
  for (int64_t i = 0; i < m.out; ++i)
    for (int64_t j = 0; j < m.in; ++j)
      for (int64_t r = 0; r < m.rank; ++r)
        w[i * m.in + j] += m.scale * m.b[i * m.rank + r] * m.a[r * m.in + j];
  return w;
}

void expect_near(const Tensors& a, const Tensors& b, double tolerance) {
  for (const auto& [name, values] : a) {
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_NEAR(values[i], b.at(name)[i], tolerance) << name;
    }
  }
}

struct LoraTest : testing::Test {
  LoraTest() {
    write_checkpoint(folder / "base", base);
    write_checkpoint(folder / "tuned", tuned);
  }
  LoraAdapter extract(int64_t rank) {
    return extract_lora(*open_checkpoint(folder / "base"), *open_checkpoint(folder / "tuned"),
                        {.rank = rank});
  }
  TestFolder folder;
  const Tensors base = random_tensors(1);
  const Tensors tuned = [] {
    Tensors tensors = random_tensors(20);
    tensors["model.norm.weight"] = random_tensors(1)["model.norm.weight"];
    return tensors;
  }();
};

TEST_F(LoraTest, FullRankGivesTheTunedModel) {
  const LoraAdapter adapter = extract(100);
  EXPECT_EQ(adapter.modules.size(), 2u);
  EXPECT_EQ(adapter.modules.at(kQuery).rank, 8);
  expect_near(merged(folder / "base", adapter), tuned, 1e-5);
}

TEST_F(LoraTest, AddedAndTakenAwayLeavesTheBase) {
  const LoraAdapter adapter = extract(3);
  write_checkpoint(folder / "merged", merged(folder / "base", adapter));
  expect_near(merged(folder / "merged", adapter, -1), base, 1e-5);
}

TEST_F(LoraTest, FilesKeepMatricesAndScales) {
  LoraAdapter adapter;
  adapter.modules[kQuery] = random_module(2, 0.5, 1);
  adapter.modules[kUp] = random_module(3, 2, 5);
  write_lora(folder / "adapter", adapter);
  const LoraAdapter read = read_lora(folder / "adapter");
  ASSERT_EQ(read.modules.size(), 2u);
  for (const auto& [name, module] : adapter.modules) {
    EXPECT_EQ(read.modules.at(name).a, module.a);
    EXPECT_EQ(read.modules.at(name).b, module.b);
    EXPECT_DOUBLE_EQ(read.modules.at(name).scale, module.scale);
  }
  EXPECT_EQ(read.config["target_modules"], nlohmann::json({"q_proj", "up_proj"}));
}

TEST_F(LoraTest, RslorasScaleDividesByTheRoot) {
  LoraAdapter adapter;
  adapter.modules[kQuery] = random_module(4, 1, 1);
  write_lora(folder / "adapter", adapter);
  write_file(folder / "adapter" / "adapter_config.json",
             R"({"peft_type": "LORA", "r": 4, "lora_alpha": 6, "use_rslora": true})");
  EXPECT_DOUBLE_EQ(read_lora(folder / "adapter").modules.at(kQuery).scale, 3);
  write_file(folder / "adapter" / "adapter_config.json", R"({"use_dora": true})");
  EXPECT_THAT([&] { read_lora(folder / "adapter"); },
              testing::ThrowsMessage<UsageError>(testing::HasSubstr("use_dora")));
}

TEST_F(LoraTest, CombinesExactly) {
  LoraAdapter x, y;
  x.modules[kQuery] = random_module(2, 0.5, 1);
  y.modules[kQuery] = random_module(3, 2, 5);
  y.modules[kUp] = random_module(1, 1, 9);
  std::vector<double> expected = product(x.modules[kQuery]);
  const auto other = product(y.modules[kQuery]);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] = 0.7 * expected[i] - 0.3 * other[i];
  for (const int64_t rank : {0, 5}) {
    const LoraAdapter sum = combine_lora({{&x, 0.7}, {&y, -0.3}}, rank);
    const auto found = product(sum.modules.at(kQuery));
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-4);
    EXPECT_EQ(sum.modules.at(kUp).rank, 1);
  }
}

TEST_F(LoraTest, CompressesToTheBestOfTheRank) {
  LoraAdapter x, y;
  x.modules[kQuery] = random_module(2, 1, 1);
  y.modules[kQuery] = random_module(2, 1, 5);
  const LoraAdapter sum = combine_lora({{&x}, {&y}}, 3), exact = combine_lora({{&x}, {&y}});
  EXPECT_EQ(sum.modules.at(kQuery).rank, 3);
  // Against the same by decomposing the whole matrix.
  Tensors moved = base;
  const auto whole = product(exact.modules.at(kQuery));
  auto& weight = moved[std::string(kQuery) + ".weight"];
  for (size_t i = 0; i < whole.size(); ++i) weight[i] += static_cast<float>(whole[i]);
  write_checkpoint(folder / "tuned", moved);
  const auto best = product(extract(3).modules.at(kQuery));
  const auto found = product(sum.modules.at(kQuery));
  for (size_t i = 0; i < best.size(); ++i) EXPECT_NEAR(found[i], best[i], 1e-3);
}

TEST_F(LoraTest, RefusesWhatDoesNotFit) {
  LoraAdapter adapter;
  adapter.modules["model.layers.7.self_attn.q_proj"] = random_module(2, 1, 1);
  EXPECT_THROW(merged(folder / "base", adapter), UsageError);
  adapter.modules.clear();
  adapter.modules[kQuery] = {.out = 3, .in = 8, .rank = 1, .a = normals(8, 1), .b = normals(3, 1)};
  EXPECT_THROW(merged(folder / "base", adapter), UsageError);
  write_checkpoint(folder / "tuned", base);
  EXPECT_THROW(extract(2), UsageError);
  EXPECT_THROW(read_lora(folder / "missing"), IoError);
}

}  // namespace
}  // namespace cadre::reshape
