#pragma once

/// Guesses which experts the layers to come will need, so that their reading can begin early. A
/// wrong guess costs time, never the result.
///
/// Share of the real choice named by a guess of the same size, measured elsewhere on models of
/// 128-256 experts: next layer's gate 80-89 %, co-activation 35-53 %, previous token 19-39 %,
/// decayed frequency 18-37 %.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "cadre/engine/cache_policy.h"

namespace cadre::engine {

struct Guess {
  int64_t id;
  float score;  ///< larger is likelier; comparable within one call only
};

class Predictor {
 public:
  virtual ~Predictor() = default;
  /// A sequence begins (or begins anew) with this prompt.
  virtual void begin_sequence(int32_t sequence, std::span<const int32_t> prompt) {
    (void)sequence, (void)prompt;
  }
  /// A decoding pass begins: the tokens it processes, one of each sequence. Returns the experts
  /// expected in all its layers, or nothing.
  virtual std::vector<int64_t> begin_pass(std::span<const int32_t> sequences,
                                          std::span<const int32_t> tokens) {
    (void)sequences, (void)tokens;
    return {};
  }
  /// The router of `layer` saw `hidden` [tokens, D] and chose `experts` [tokens, K] (-1 = none).
  virtual void observe(int64_t layer, const float* hidden, int64_t tokens,
                       std::span<const int32_t> experts) = 0;
  /// Experts of the layer after the one observed last (layer 0 of the next pass after the last
  /// one), likeliest first, at most `count`; after them those of later layers of the pass, in their
  /// order, from predictors that know of any.
  virtual void guess(int64_t count, std::vector<Guess>& guesses) = 0;
};

/// What the router of `layer` would make of these hidden states: probabilities [tokens, E]. False
/// when the layer has no router.
using GateFunction = std::function<bool(int64_t layer, const float* hidden, int64_t tokens,
                                        std::vector<float>& probabilities)>;

struct PredictorOptions {
  ExpertGrid grid;
  GateFunction gate = {};           ///< for gate
  std::vector<float> usage = {};    ///< uses a pass so far, by expert (frequency); may be empty
  double half_life = 8;             ///< passes (frequency)
  std::filesystem::path file = {};  ///< weights (path)
};

struct PredictorEntry {
  std::string_view name, help, source;
  std::unique_ptr<Predictor> (*make)(const PredictorOptions&);
};

/// All predictors; gate is the default.
std::span<const PredictorEntry> predictors();

/// By name. Throws UsageError that lists the names, or when something is missing that it needs.
std::unique_ptr<Predictor> make_predictor(std::string_view name, const PredictorOptions& options);

}  // namespace cadre::engine
