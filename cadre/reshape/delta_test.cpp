#include "cadre/reshape/delta.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/formats/safetensors.h"
#include "cadre/formats/test_folder.h"
#include "cadre/reshape/run.h"

namespace cadre::reshape {
namespace {

using Tensors = std::map<std::string, std::vector<float>>;

Tensors random_tensors(uint64_t seed) {
  Random random(seed);
  Tensors tensors = {{"a.weight", std::vector<float>(70000)},
                     {"b.weight", std::vector<float>(300)}};
  for (auto& [name, values] : tensors) {
    for (float& v : values) v = random.normal();
  }
  return tensors;
}

void write_checkpoint(const std::filesystem::path& folder, const Tensors& tensors) {
  std::filesystem::create_directories(folder);
  write_file(folder / "config.json", R"({"model_type": "llama", "hidden_size": 100})");
  std::vector<TensorSpec> specs;
  for (const auto& [name, values] : tensors) {
    specs.push_back({name, DType::kF32, {static_cast<int64_t>(values.size()) / 100, 100}});
  }
  ShardedWriter writer(folder, specs);
  for (const auto& [name, values] : tensors) writer.write(name, std::as_bytes(std::span(values)));
  writer.commit();
}

Tensors read_checkpoint(const std::filesystem::path& folder) {
  const CheckpointPtr checkpoint = open_checkpoint(folder);
  Tensors tensors;
  for (const auto& tensor : checkpoint->schema().tensors()) {
    tensors[tensor.info.name] = read_values(*checkpoint, tensor);
  }
  return tensors;
}

struct DeltaTest : testing::Test {
  DeltaTest() {
    write_checkpoint(folder / "base", base);
    write_checkpoint(folder / "tuned", tuned);
  }
  DeltaHeader extract(const std::string& name, const TernaryOptions& options = {}) {
    return extract_delta(folder / name, open_checkpoint(folder / "base").get(),
                         *open_checkpoint(folder / "tuned"), options);
  }
  std::vector<WeightedDelta> deltas(const std::vector<std::pair<std::string, double>>& names) {
    std::vector<WeightedDelta> list;
    for (const auto& [name, weight] : names) {
      list.push_back({std::make_shared<DeltaReader>(folder / name), weight});
    }
    return list;
  }
  Tensors apply(const std::string& base_name,
                const std::vector<std::pair<std::string, double>>& names) {
    const std::vector<CheckpointPtr> inputs = {open_checkpoint(folder / base_name)};
    run(apply_deltas(inputs[0], deltas(names)), inputs, folder / "out");
    return read_checkpoint(folder / "out");
  }

  TestFolder folder;
  const Tensors base = random_tensors(1), tuned = random_tensors(2);
};

TEST_F(DeltaTest, StreamingEqualsInMemory) {
  const DeltaHeader header = extract("d", {.density = 0.1, .alpha = 2});
  std::vector<float> flat;
  for (const auto& [name, values] : tuned) {
    for (size_t i = 0; i < values.size(); ++i) flat.push_back(values[i] - base.at(name)[i]);
  }
  const TernaryVector expected = ternarize(flat, {.density = 0.1, .alpha = 2});
  const TernaryVector found = DeltaReader(folder / "d").ternary();
  EXPECT_EQ(found.plus, expected.plus);
  EXPECT_EQ(found.minus, expected.minus);
  EXPECT_EQ(header.scale, expected.scale);

  Tensors sum = base;
  std::vector<float> delta(flat.size());
  expand(expected.plus.data(), expected.minus.data(), expected.scale, delta);
  auto next = delta.begin();
  for (auto& [name, values] : sum) {
    for (float& v : values) v += *next++;
  }
  EXPECT_EQ(apply("base", {{"d", 1}}), sum);
}

TEST_F(DeltaTest, ADeltaAddedAndTakenAwayLeavesTheBase) {
  extract("d");
  const Tensors both = apply("base", {{"d", 1}, {"d", -1}});
  for (const auto& [name, values] : base) {
    for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(both.at(name)[i], values[i], 1e-6);
  }
}

TEST_F(DeltaTest, AgainstNothingIsTheModelItself) {
  const DeltaHeader header =
      extract_delta(folder / "d", nullptr, *open_checkpoint(folder / "tuned"), {.density = 1});
  EXPECT_EQ(header.base, "");
  EXPECT_EQ(DeltaReader(folder / "d").kept(), 70300);
}

TEST_F(DeltaTest, RefusesAnotherBase) {
  extract("d");
  EXPECT_THAT(
      [&] {
        apply("tuned", {{"d", 1}});
      },
      testing::ThrowsMessage<UsageError>(testing::HasSubstr("another base")));
  Tensors fewer = tuned;
  fewer.erase("b.weight");
  write_checkpoint(folder / "tuned", fewer);
  EXPECT_THAT([&] { extract("d"); },
              testing::ThrowsMessage<UsageError>(testing::HasSubstr("b.weight")));
}

TEST_F(DeltaTest, CombinesBySumAndBySign) {
  extract("a", {.density = 0.5});
  write_checkpoint(folder / "tuned", random_tensors(3));
  extract("b", {.density = 0.5});
  const auto both = deltas({{"a", 1}, {"b", 0.5}});
  // Density 1 keeps every entry that is not zero: its sign must be that of the float sum.
  for (const DeltaMerge merge : {DeltaMerge::kSum, DeltaMerge::kTies}) {
    combine_deltas(folder / "c", both, merge, {.density = 1});
    std::vector<float> sum(70300), found(70300);
    for (const auto& item : both) item.delta->add_to(0, static_cast<float>(item.weight), sum);
    DeltaReader(folder / "c").add_to(0, 1, found);
    for (size_t i = 0; i < sum.size(); ++i) EXPECT_EQ(sum[i] > 0, found[i] > 0) << i;
  }
  // One delta with itself is itself, but for the scale.
  combine_deltas(folder / "c", deltas({{"a", 1}, {"a", 1}}), DeltaMerge::kTies, {.density = 0.5});
  EXPECT_EQ(DeltaReader(folder / "c").ternary().plus, DeltaReader(folder / "a").ternary().plus);
}

}  // namespace
}  // namespace cadre::reshape
