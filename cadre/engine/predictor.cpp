#include "cadre/engine/predictor.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <string>

#include "cadre/base/error.h"
#include "cadre/engine/path_predictor.h"

namespace cadre::engine {
namespace {

/// Keeps the `count` best experts of `layer` with a score above 0.
void best_of(const ExpertGrid& grid, int64_t layer, const std::vector<float>& scores, int64_t count,
             std::vector<Guess>& guesses) {
  guesses.clear();
  for (int64_t expert = 0; expert < grid.experts; ++expert)
    if (scores[expert] > 0) guesses.push_back({grid.id(layer, expert), scores[expert]});
  const auto kept = std::min<int64_t>(count, static_cast<int64_t>(guesses.size()));
  std::partial_sort(guesses.begin(), guesses.begin() + kept, guesses.end(),
                    [](const Guess& a, const Guess& b) {
                      return a.score != b.score ? a.score > b.score : a.id < b.id;
                    });
  guesses.resize(kept);
}

class NonePredictor final : public Predictor {
 public:
  explicit NonePredictor(const PredictorOptions&) {}
  void observe(int64_t, const float*, int64_t, std::span<const int32_t>) override {}
  void guess(int64_t, std::vector<Guess>& guesses) override { guesses.clear(); }
};

/// The same experts as for the token before.
class PreviousPredictor final : public Predictor {
 public:
  explicit PreviousPredictor(const PredictorOptions& options)
      : grid_(options.grid), uses_(grid_.layers, std::vector<float>(grid_.experts, 0.0F)) {}
  void observe(int64_t layer, const float*, int64_t, std::span<const int32_t> experts) override {
    layer_ = layer;
    std::fill(uses_[layer].begin(), uses_[layer].end(), 0.0F);
    for (const int32_t expert : experts)
      if (expert >= 0) uses_[layer][expert] += 1;
  }
  void guess(int64_t count, std::vector<Guess>& guesses) override {
    const int64_t next = (layer_ + 1) % grid_.layers;
    best_of(grid_, next, uses_[next], count, guesses);
  }

 private:
  ExpertGrid grid_;
  std::vector<std::vector<float>> uses_;  ///< [L][E] of the pass before
  int64_t layer_ = 0;
};

/// What was used most, older uses counting less.
class FrequencyPredictor final : public Predictor {
 public:
  explicit FrequencyPredictor(const PredictorOptions& options)
      : grid_(options.grid),
        decay_(static_cast<float>(std::exp2(-1 / options.half_life))),
        uses_(grid_.layers, std::vector<float>(grid_.experts, 0.0F)) {
    if (static_cast<int64_t>(options.usage.size()) != grid_.size()) return;
    for (int64_t id = 0; id < grid_.size(); ++id)
      uses_[grid_.layer_of(id)][grid_.expert_of(id)] = options.usage[id] / (1 - decay_);
  }
  void observe(int64_t layer, const float*, int64_t, std::span<const int32_t> experts) override {
    layer_ = layer;
    for (float& uses : uses_[layer]) uses *= decay_;
    for (const int32_t expert : experts)
      if (expert >= 0) uses_[layer][expert] += 1;
  }
  void guess(int64_t count, std::vector<Guess>& guesses) override {
    const int64_t next = (layer_ + 1) % grid_.layers;
    best_of(grid_, next, uses_[next], count, guesses);
  }

 private:
  ExpertGrid grid_;
  float decay_;
  std::vector<std::vector<float>> uses_;  ///< [L][E]
  int64_t layer_ = 0;
};

/// For each expert of a layer, how often each one of the next layer followed, learned as it runs:
/// score(e) = sum over the layer's chosen p of count(p, e) / uses(p). Memory: 2 L E^2 bytes.
class CoActivationPredictor final : public Predictor {
 public:
  explicit CoActivationPredictor(const PredictorOptions& options)
      : grid_(options.grid),
        counts_(grid_.layers * grid_.experts * grid_.experts, 0),
        uses_(grid_.size(), 0),
        scores_(grid_.experts) {}

  void observe(int64_t layer, const float*, int64_t tokens,
               std::span<const int32_t> experts) override {
    if (tokens < 1) return;
    if (layer == (layer_ + 1) % grid_.layers && tokens == tokens_) learn(tokens, experts);
    layer_ = layer;
    tokens_ = tokens;
    chosen_.assign(experts.begin(), experts.end());
  }

  void guess(int64_t count, std::vector<Guess>& guesses) override {
    std::fill(scores_.begin(), scores_.end(), 0.0F);
    for (const int32_t expert : chosen_) {
      if (expert < 0 || uses_[grid_.id(layer_, expert)] == 0) continue;
      const float weight = 1 / static_cast<float>(uses_[grid_.id(layer_, expert)]);
      const uint16_t* row = row_of(grid_.id(layer_, expert));
      for (int64_t next = 0; next < grid_.experts; ++next)
        scores_[next] += weight * static_cast<float>(row[next]);
    }
    best_of(grid_, (layer_ + 1) % grid_.layers, scores_, count, guesses);
  }

 private:
  uint16_t* row_of(int64_t id) { return counts_.data() + id * grid_.experts; }

  /// Token by token: each of its experts here follows each of its experts in the layer before.
  void learn(int64_t tokens, std::span<const int32_t> experts) {
    const auto now = static_cast<int64_t>(experts.size()) / tokens;
    const auto before = static_cast<int64_t>(chosen_.size()) / tokens;
    for (int64_t token = 0; token < tokens; ++token)
      for (int64_t i = 0; i < before; ++i) {
        const int32_t from = chosen_[token * before + i];
        if (from >= 0) count(grid_.id(layer_, from), experts.subspan(token * now, now));
      }
  }

  void count(int64_t from, std::span<const int32_t> experts) {
    uint16_t* row = row_of(from);
    // Halving before a count could overflow also lets old text fade.
    if (++uses_[from] == kMostUses) {
      uses_[from] /= 2;
      for (int64_t next = 0; next < grid_.experts; ++next) row[next] /= 2;
    }
    for (const int32_t expert : experts)
      if (expert >= 0) ++row[expert];
  }

  static constexpr uint32_t kMostUses = 65535;
  ExpertGrid grid_;
  std::vector<uint16_t> counts_;  ///< [L, E, E of the next layer]
  std::vector<uint32_t> uses_;    ///< [L, E]
  std::vector<int32_t> chosen_;   ///< in the layer observed last
  std::vector<float> scores_;
  int64_t layer_ = 0, tokens_ = 0;
};

/// The next layer's router on this layer's input: hidden states change little from layer to layer.
/// Layer 0 has no layer before it in its pass: co-activation with the last one's choice serves.
class GatePredictor final : public Predictor {
 public:
  explicit GatePredictor(const PredictorOptions& options)
      : grid_(options.grid), gate_(options.gate), wrap_(options), scores_(grid_.experts) {
    if (!gate_) throw UsageError("predictor gate needs the model's routers");
  }

  void observe(int64_t layer, const float* hidden, int64_t tokens,
               std::span<const int32_t> experts) override {
    layer_ = layer;
    known_ = false;
    wrap_.observe(layer, hidden, tokens, experts);
    const int64_t next = layer + 1;
    if (next >= grid_.layers || !gate_(next, hidden, tokens, probabilities_)) return;
    known_ = true;
    std::fill(scores_.begin(), scores_.end(), 0.0F);
    for (int64_t token = 0; token < tokens; ++token)
      for (int64_t expert = 0; expert < grid_.experts; ++expert)
        scores_[expert] += probabilities_[token * grid_.experts + expert];
  }

  void guess(int64_t count, std::vector<Guess>& guesses) override {
    if (known_)
      best_of(grid_, layer_ + 1, scores_, count, guesses);
    else
      wrap_.guess(count, guesses);
  }

 private:
  ExpertGrid grid_;
  GateFunction gate_;
  CoActivationPredictor wrap_;
  std::vector<float> probabilities_, scores_;
  int64_t layer_ = 0;
  bool known_ = false;
};

/// ExpertFlow's forecast of all layers before the pass begins (2024).
class RoutingPathPredictor final : public Predictor {
 public:
  explicit RoutingPathPredictor(const PredictorOptions& options)
      : grid_(options.grid), model_(load(options)), scores_(grid_.experts) {}

  void begin_sequence(int32_t sequence, std::span<const int32_t> prompt) override {
    model_.begin_sequence(sequence, prompt);
  }
  std::vector<int64_t> begin_pass(std::span<const int32_t> sequences,
                                  std::span<const int32_t> tokens) override {
    paths_.clear();
    std::set<int64_t> expected;
    for (size_t i = 0; i < tokens.size(); ++i) {
      paths_.push_back(model_.forecast(sequences[i], tokens[i]));
      // The 2 K likeliest of each layer, as the paper serves them.
      for (const int64_t id :
           likeliest(paths_.back(), grid_.layers, grid_.experts, 2 * model_.used()))
        expected.insert(id);
    }
    return {expected.begin(), expected.end()};
  }
  void observe(int64_t layer, const float*, int64_t, std::span<const int32_t>) override {
    layer_ = layer;
  }
  void guess(int64_t count, std::vector<Guess>& guesses) override {
    guesses.clear();
    const int64_t end = std::min(grid_.layers, layer_ + 1 + kLookAhead);
    for (int64_t next = layer_ + 1; !paths_.empty() && next < end; ++next) {
      std::fill(scores_.begin(), scores_.end(), 0.0F);
      for (const std::vector<float>& path : paths_)
        for (int64_t expert = 0; expert < grid_.experts; ++expert)
          scores_[expert] += 1 / (1 + std::exp(-path[grid_.id(next, expert)]));
      best_of(grid_, next, scores_, count, of_layer_);
      guesses.insert(guesses.end(), of_layer_.begin(), of_layer_.end());
    }
  }

 private:
  static PathModel load(const PredictorOptions& options) {
    if (options.file.empty())
      throw UsageError("predictor path needs its weights: name the file with --predictor-file");
    return PathModel(options.file, options.grid.layers, options.grid.experts);
  }

  /// Layers that idle time is ever enough for.
  static constexpr int64_t kLookAhead = 4;
  ExpertGrid grid_;
  PathModel model_;
  std::vector<std::vector<float>> paths_;  ///< logits [L, E], one a token of the pass
  std::vector<float> scores_;
  std::vector<Guess> of_layer_;
  int64_t layer_ = 0;
};

template <typename Kind>
std::unique_ptr<Predictor> make(const PredictorOptions& options) {
  return std::make_unique<Kind>(options);
}

constexpr std::array kPredictors = {
    PredictorEntry{"gate", "the next layer's router on this layer's input",
                   "Mixtral offloading (2023), HOBBIT (2024)", &make<GatePredictor>},
    PredictorEntry{"coactivation", "what followed this layer's experts so far",
                   "MoE-Infinity (2024)", &make<CoActivationPredictor>},
    PredictorEntry{"frequency", "what was used most, older uses counting less", "EdgeMoE (2023)",
                   &make<FrequencyPredictor>},
    PredictorEntry{"previous", "the same experts as for the token before", "cadre",
                   &make<PreviousPredictor>},
    PredictorEntry{"path", "a small trained network that sees the tokens, all layers at once",
                   "ExpertFlow (2024), routing path predictor", &make<RoutingPathPredictor>},
    PredictorEntry{"none", "no guesses, no prefetching", "", &make<NonePredictor>},
};

}  // namespace

std::span<const PredictorEntry> predictors() { return kPredictors; }

std::unique_ptr<Predictor> make_predictor(std::string_view name, const PredictorOptions& options) {
  std::vector<std::string_view> names;
  for (const PredictorEntry& entry : kPredictors) {
    if (entry.name == name) return entry.make(options);
    names.push_back(entry.name);
  }
  throw UsageError("unknown predictor '{}': use one of {}", name, fmt::join(names, ", "));
}

}  // namespace cadre::engine
