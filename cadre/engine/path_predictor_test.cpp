#include "cadre/engine/path_predictor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <string>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/engine/predictor.h"
#include "cadre/formats/safetensors.h"
#include "cadre/formats/test_folder.h"
#include "cadre/kernels/position_bucket.h"

namespace cadre::engine {
namespace {

constexpr int64_t kVocabulary = 20, kWidth = 8, kHeads = 2, kInner = 12, kHidden = 16;
constexpr int64_t kBuckets = 8, kMaxDistance = 32, kLayers = 2, kExperts = 3, kBlocks = 2;

using Rows = std::vector<std::vector<double>>;

/// Random weights in a file, and the network in plain double loops over whole sequences.
class PlainT5 {
 public:
  explicit PlainT5(const std::filesystem::path& file) {
    add("shared.weight", {kVocabulary, kWidth});
    for (const std::string side : {"encoder", "decoder"}) {
      for (int64_t i = 0; i < kBlocks; ++i) add_block(side, i);
      add(side + ".block.0.layer.0.SelfAttention.relative_attention_bias.weight",
          {kBuckets, kHeads});
      add(side + ".final_layer_norm.weight", {kWidth});
    }
    add("head.weight", {kLayers * kExperts, kWidth});
    write(file);
  }

  Rows run(const std::vector<int32_t>& prompt, const std::vector<int32_t>& tokens) const {
    Rows x = embed(prompt);
    for (int64_t i = 0; i < kBlocks; ++i) {
      const std::string stem = "encoder.block." + std::to_string(i);
      const Rows normed = norm(x, stem + ".layer.0.layer_norm.weight");
      x = sum(x, attend(normed, normed, stem + ".layer.0.SelfAttention", "encoder"));
      x = sum(x, feed_forward(norm(x, stem + ".layer.1.layer_norm.weight"), stem + ".layer.1"));
    }
    const Rows encoded = norm(x, "encoder.final_layer_norm.weight");
    Rows y = embed(tokens);
    for (int64_t i = 0; i < kBlocks; ++i) {
      const std::string stem = "decoder.block." + std::to_string(i);
      const Rows normed = norm(y, stem + ".layer.0.layer_norm.weight");
      y = sum(y, attend(normed, normed, stem + ".layer.0.SelfAttention", "decoder"));
      y = sum(y, attend(norm(y, stem + ".layer.1.layer_norm.weight"), encoded,
                        stem + ".layer.1.EncDecAttention", ""));
      y = sum(y, feed_forward(norm(y, stem + ".layer.2.layer_norm.weight"), stem + ".layer.2"));
    }
    return times(norm(y, "decoder.final_layer_norm.weight"), "head.weight");
  }

 private:
  struct Tensor {
    std::vector<int64_t> shape;
    std::vector<float> values;
  };

  void add(const std::string& name, const std::vector<int64_t>& shape) {
    Random random(3, {std::hash<std::string>()(name)});
    Tensor tensor = {.shape = shape, .values = {}};
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    for (int64_t i = 0; i < count; ++i)
      tensor.values.push_back(0.6F * random.normal() + (shape.size() == 1 ? 1.0F : 0.0F));
    tensors_[name] = std::move(tensor);
  }
  void add_block(const std::string& side, int64_t i) {
    const std::string stem = side + ".block." + std::to_string(i) + ".layer.";
    int64_t part = 0;
    for (const std::string kind : {"SelfAttention", "EncDecAttention"}) {
      if (side == "encoder" && kind == "EncDecAttention") continue;
      for (const std::string name : {"q", "k", "v"})
        add(stem + std::to_string(part) + "." + kind + "." + name + ".weight", {kInner, kWidth});
      add(stem + std::to_string(part) + "." + kind + ".o.weight", {kWidth, kInner});
      add(stem + std::to_string(part++) + ".layer_norm.weight", {kWidth});
    }
    add(stem + std::to_string(part) + ".DenseReluDense.wi.weight", {kHidden, kWidth});
    add(stem + std::to_string(part) + ".DenseReluDense.wo.weight", {kWidth, kHidden});
    add(stem + std::to_string(part) + ".layer_norm.weight", {kWidth});
  }
  void write(const std::filesystem::path& file) const {
    std::vector<TensorSpec> specs;
    for (const auto& [name, tensor] : tensors_) specs.push_back({name, DType::kF32, tensor.shape});
    SafetensorsWriter writer(file, specs,
                             {{"layers", std::to_string(kLayers)},
                              {"experts", std::to_string(kExperts)},
                              {"used", "1"},
                              {"heads", std::to_string(kHeads)},
                              {"max_distance", std::to_string(kMaxDistance)}});
    for (const auto& [name, tensor] : tensors_)
      writer.write(name, std::as_bytes(std::span(tensor.values)));
    writer.commit();
  }

  Rows embed(const std::vector<int32_t>& tokens) const {
    Rows rows;
    const auto& table = tensors_.at("shared.weight").values;
    for (const int32_t token : tokens)
      rows.emplace_back(table.begin() + token * kWidth, table.begin() + (token + 1) * kWidth);
    return rows;
  }
  static Rows sum(Rows a, const Rows& b) {
    for (size_t i = 0; i < a.size(); ++i)
      for (size_t j = 0; j < a[i].size(); ++j) a[i][j] += b[i][j];
    return a;
  }
  Rows norm(Rows x, const std::string& name) const {
    for (auto& row : x) {
      double squares = 0;
      for (const double value : row) squares += value * value;
      for (size_t j = 0; j < row.size(); ++j)
        row[j] *= tensors_.at(name).values[j] / std::sqrt(squares / row.size() + 1e-6);
    }
    return x;
  }
  Rows times(const Rows& x, const std::string& name) const {
    const Tensor& w = tensors_.at(name);
    Rows y(x.size(), std::vector<double>(w.shape[0], 0));
    for (size_t i = 0; i < x.size(); ++i)
      for (int64_t r = 0; r < w.shape[0]; ++r)
        for (int64_t c = 0; c < w.shape[1]; ++c) y[i][r] += w.values[r * w.shape[1] + c] * x[i][c];
    return y;
  }
  Rows feed_forward(const Rows& x, const std::string& stem) const {
    Rows hidden = times(x, stem + ".DenseReluDense.wi.weight");
    for (auto& row : hidden)
      for (double& value : row) value = std::max(0.0, value);
    return times(hidden, stem + ".DenseReluDense.wo.weight");
  }
  /// `bias` is "encoder" (both ways), "decoder" (causal) or "" (none).
  Rows attend(const Rows& x, const Rows& memory, const std::string& stem,
              const std::string& bias) const {
    const Rows q = times(x, stem + ".q.weight"), k = times(memory, stem + ".k.weight"),
               v = times(memory, stem + ".v.weight");
    const int64_t width = kInner / kHeads;
    Rows out(x.size(), std::vector<double>(kInner, 0));
    for (int64_t i = 0; i < static_cast<int64_t>(x.size()); ++i)
      for (int64_t head = 0; head < kHeads; ++head) {
        std::vector<double> scores;
        double total = 0;
        for (int64_t j = 0; j < static_cast<int64_t>(memory.size()); ++j) {
          double score = 0;
          for (int64_t c = head * width; c < (head + 1) * width; ++c) score += q[i][c] * k[j][c];
          if (!bias.empty()) {
            const std::string name =
                bias + ".block.0.layer.0.SelfAttention.relative_attention_bias.weight";
            const int64_t bucket =
                kernels::position_bucket(j - i, kBuckets, kMaxDistance, bias == "encoder");
            score += tensors_.at(name).values[bucket * kHeads + head];
          }
          scores.push_back(bias == "decoder" && j > i ? 0 : std::exp(score));
          total += scores.back();
        }
        for (size_t j = 0; j < scores.size(); ++j)
          for (int64_t c = head * width; c < (head + 1) * width; ++c)
            out[i][c] += scores[j] / total * v[j][c];
      }
    return times(out, stem + ".o.weight");
  }

  std::map<std::string, Tensor> tensors_;
};

TEST(PathModel, StepByStepEqualsThePlainNetwork) {
  const TestFolder folder;
  const PlainT5 plain(folder / "path.safetensors");
  PathModel model(folder / "path.safetensors", kLayers, kExperts);
  const std::vector<int32_t> prompt = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2};
  const std::vector<int32_t> tokens = {2, 7, 1, 8, 2, 8, 1, 8, 2, 8, 4, 5, 9};
  const Rows expected = plain.run(prompt, tokens);
  model.begin_sequence(7, prompt);
  model.begin_sequence(8, std::vector<int32_t>{1, 2});
  for (size_t t = 0; t < tokens.size(); ++t) {
    const std::vector<float> logits = model.forecast(7, tokens[t]);
    model.forecast(8, 3);
    ASSERT_EQ(logits.size(), static_cast<size_t>(kLayers * kExperts));
    for (size_t i = 0; i < logits.size(); ++i)
      EXPECT_NEAR(logits[i], expected[t][i], 1e-3) << t << ' ' << i;
  }
}

TEST(PathModel, GuessesLayersToComeNearestFirst) {
  const TestFolder folder;
  const PlainT5 plain(folder / "path.safetensors");
  const ExpertGrid grid = {.layers = kLayers, .experts = kExperts};
  const auto predictor =
      make_predictor("path", {.grid = grid, .file = folder / "path.safetensors"});
  const std::vector<int32_t> sequence = {1}, token = {5};
  const auto expected = predictor->begin_pass(sequence, token);
  EXPECT_EQ(expected.size(), static_cast<size_t>(kLayers * 2)) << "2 K of each layer";
  std::vector<Guess> guesses;
  predictor->observe(-1, nullptr, 1, {});
  predictor->guess(2, guesses);
  ASSERT_EQ(guesses.size(), 4U);
  for (size_t i = 0; i < guesses.size(); ++i) {
    EXPECT_EQ(grid.layer_of(guesses[i].id), static_cast<int64_t>(i / 2));
    EXPECT_TRUE(std::find(expected.begin(), expected.end(), guesses[i].id) != expected.end());
  }
  predictor->observe(kLayers - 1, nullptr, 1, {});
  predictor->guess(2, guesses);
  EXPECT_TRUE(guesses.empty()) << "the next token is not known yet";
}

TEST(PathModel, UnknownSequencesAndTokensAreHarmless) {
  const TestFolder folder;
  const PlainT5 plain(folder / "path.safetensors");
  PathModel model(folder / "path.safetensors", kLayers, kExperts);
  for (int i = 0; i < 600; ++i)
    for (const float logit : model.forecast(1, i * 1000 - 7)) ASSERT_TRUE(std::isfinite(logit));
}

TEST(PathModel, AFileOfAnotherModelIsRefused) {
  const TestFolder folder;
  const PlainT5 plain(folder / "path.safetensors");
  EXPECT_THROW(PathModel(folder / "path.safetensors", kLayers, kExperts + 1), FormatError);
  EXPECT_THROW(PathModel(folder / "absent.safetensors", kLayers, kExperts), IoError);
  SafetensorsWriter writer(folder / "bad.safetensors", {{"x", DType::kF32, {1}}},
                           {{"layers", "2"}, {"experts", "3"}, {"used", "1"}, {"heads", "2"}});
  const float one = 1;
  writer.write("x", std::as_bytes(std::span(&one, 1)));
  writer.commit();
  EXPECT_THROW(PathModel(folder / "bad.safetensors", kLayers, kExperts), FormatError);
}

}  // namespace
}  // namespace cadre::engine
