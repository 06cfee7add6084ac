#pragma once

/// Trains ExpertFlow's routing path predictor (path_network.h) on recorded routes.
///
/// A sequence's routes depend on its tokens alone, so that any place of it serves as the end of a
/// prompt: a batch draws one length of prompt and as many places as it has rows, the tokens from
/// there on are forecast, all at once. Loss: cross entropy of "token t uses expert e of layer l",
/// summed over the experts, mean over (token, layer) with a route, as in the paper's code.
/// Departures: one learning rate with cosine decay instead of two with a linear one.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "cadre/training/path_network.h"

namespace cadre {

/// A sequence's tokens and the experts they were given.
struct RoutedSequence {
  std::vector<int32_t> tokens;  ///< [T]
  std::vector<int16_t> chosen;  ///< [T, L, K], -1 = none
};

/// Sequences of one model.
struct RoutedText {
  int64_t layers = 0, experts = 0, used = 0;  ///< L, E, K
  std::vector<RoutedSequence> sequences;
};

struct PathTrainOptions {
  PathNetworkOptions network;  ///< but for vocabulary, layers and experts, which the routes give
  int64_t steps = 1000, batch = 16;
  int64_t length = 64;   ///< tokens forecast of an example
  int64_t window = 256;  ///< tokens of a prompt that are seen, at most
  double lr = 5e-3, weight_decay = 1e-2;
  double held_out = 0.1;  ///< share of the sequences that the scores are taken from
  uint64_t seed = 1;
  /// Every token is given another one's routes: what must take the predictor its advantage.
  bool sabotage = false;
};

/// How well forecasts of `picks` experts a layer and token name what `batch` tokens use, both
/// united over the batch; beside it as many experts a layer that were used most in training.
struct PathScore {
  int64_t batch = 0, picks = 0;
  double recall = 0, precision = 0;
  double frequency_recall = 0, frequency_precision = 0;
};

struct PathEvaluation {
  int64_t tokens = 0;
  double loss = 0;  ///< nats a (token, layer)
  std::vector<PathScore> scores;
};

class PathTrainer {
 public:
  /// Cuts the sequences into pieces of window + length tokens and holds some of them out. Throws
  /// UsageError when options are out of range, or fewer than two pieces of two tokens are there.
  PathTrainer(RoutedText text, const PathTrainOptions& options);

  /// Runs all steps, or until `on_step` (step from 1, loss) returns false. Throws Error when a
  /// gradient is not finite.
  void train(const std::function<bool(int64_t step, double loss)>& on_step);

  /// Scores on the pieces held out.
  PathEvaluation evaluate() const { return evaluate_on(held_out_); }
  /// Scores on another text of the same model. Throws UsageError when it is of another shape.
  PathEvaluation evaluate(const RoutedText& other) const;

  /// Writes the file that the engine reads, atomically. Throws IoError.
  void save(const std::filesystem::path& file) const;

  int64_t training_tokens() const;
  int64_t parameters() const;
  const PathNetwork& network() const { return network_; }

 private:
  struct Batch {
    torch::Tensor prompts, tokens, labels;  ///< [B, P], [B, T] int64; [B, T, L, E] 0 or 1
  };
  std::vector<RoutedSequence> pieces_of(const RoutedText& text) const;
  void hold_out(std::vector<RoutedSequence> pieces);
  void shuffle_routes();
  void count_uses();
  Batch batch_at(int64_t step) const;
  torch::Tensor labels_of(const RoutedSequence& piece, int64_t first, int64_t count) const;
  PathEvaluation evaluate_on(const std::vector<RoutedSequence>& pieces) const;

  PathTrainOptions options_;
  int64_t layers_, experts_, used_;
  std::vector<RoutedSequence> training_, held_out_;
  torch::Tensor uses_;  ///< [L, E] in training_
  PathNetwork network_;
};

}  // namespace cadre
