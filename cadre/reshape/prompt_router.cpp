#include "cadre/reshape/prompt_router.h"

#include <cmath>

#include "cadre/base/error.h"
#include "cadre/engine/panel_memory.h"
#include "cadre/engine/session.h"
#include "cadre/engine/tensor_source.h"

namespace cadre::reshape {
namespace {

/// Sums of hidden states, a layer each.
struct Sums {
  std::vector<std::vector<double>> layers;
  int64_t tokens = 0;
};

class Reader {
 public:
  Reader(const std::filesystem::path& dense, PromptView view) : view_(view) {
    if (view == PromptView::kHidden) {
      model_ = engine::Model::open(dense, {.quantize_to = kernels::BlockType::kF32});
      spec_ = &model_->spec();
    } else {
      source_ = engine::open_source(dense);
      tokenizer_.emplace(source_->tokenizer());
      spec_ = &source_->spec();
    }
  }

  const engine::ModelSpec& spec() const { return *spec_; }

  Sums read(const std::vector<std::string>& prompts) {
    Sums sums = {.layers = std::vector<std::vector<double>>(
                     static_cast<size_t>(spec_->layers),
                     std::vector<double>(static_cast<size_t>(spec_->hidden), 0))};
    for (const std::string& prompt : prompts) {
      const auto tokens = (model_ ? model_->tokenizer() : *tokenizer_).encode(prompt);
      sums.tokens += static_cast<int64_t>(tokens.size());
      if (tokens.empty()) continue;
      view_ == PromptView::kHidden ? add_hidden(tokens, sums) : add_embeddings(tokens, sums);
    }
    return sums;
  }

 private:
  void add_hidden(const std::vector<TokenId>& tokens, Sums& sums) {
    model_->on_hidden = [&](int64_t layer, const float* hidden, int64_t count) {
      for (int64_t t = 0; t < count; ++t)
        add(hidden + t * spec_->hidden, sums.layers[static_cast<size_t>(layer)]);
    };
    engine::Session session(model_);
    session.feed(tokens);
    model_->on_hidden = nullptr;
  }

  void add_embeddings(const std::vector<TokenId>& tokens, Sums& sums) {
    const engine::SourceTensor& table = source_->require("token_embd.weight");
    for (const TokenId token : tokens) {
      const auto row = engine::floats_of(engine::entry_of(table, token));
      for (auto& layer : sums.layers) add(row.data(), layer);
    }
  }

  void add(const float* row, std::vector<double>& sum) const {
    for (size_t c = 0; c < sum.size(); ++c) sum[c] += row[c];
  }

  PromptView view_;
  std::shared_ptr<engine::Model> model_;
  std::unique_ptr<engine::TensorSource> source_;
  std::optional<Tokenizer> tokenizer_;
  const engine::ModelSpec* spec_ = nullptr;
};

}  // namespace

std::vector<std::vector<float>> routers_from_prompts(const std::filesystem::path& dense,
                                                     const std::vector<ExpertPrompts>& prompts,
                                                     PromptView view) {
  Reader reader(dense, view);
  const auto layers = static_cast<size_t>(reader.spec().layers);
  const auto width = static_cast<size_t>(reader.spec().hidden);
  std::vector<std::vector<float>> routers(layers);
  for (size_t e = 0; e < prompts.size(); ++e) {
    const Sums good = reader.read(prompts[e].positive), bad = reader.read(prompts[e].negative);
    if (good.tokens == 0) throw UsageError("expert {} has no prompt to make its router of", e);
    for (size_t layer = 0; layer < layers; ++layer) {
      std::vector<double> row(width);
      double square = 0;
      for (size_t c = 0; c < width; ++c) {
        row[c] = good.layers[layer][c] / static_cast<double>(good.tokens);
        if (bad.tokens > 0) row[c] -= bad.layers[layer][c] / static_cast<double>(bad.tokens);
        square += row[c] * row[c];
      }
      const double factor = square > 0 ? 1 / std::sqrt(square) : 0;
      for (const double value : row) routers[layer].push_back(static_cast<float>(factor * value));
    }
  }
  return routers;
}

}  // namespace cadre::reshape
