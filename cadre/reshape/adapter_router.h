#pragma once

/// Which of many adapters work on a token: a score of the token in every module, plus one of the
/// task that is the same everywhere.
///
/// Li, Yadav et al., "Glider: Global and Local Instruction-Driven Expert Router" (2025): s_k =
/// LN(v_k) . LN(u) / sqrt(D) + gamma cos(q, g_k), softmax, the two largest, weights made to sum to
/// one. v_k is a gate trained with adapter k frozen (PHATGOOSE: gamma = 0), or Arrow's prototype
/// (Ostapenko et al., "Towards Modular LLMs by Building and Re-Using LoRAs", 2024); q and g_k embed
/// instructions.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cadre/reshape/lora.h"

namespace cadre::reshape {

/// Adapters' prototypes for one module, by name: their order is that of the scores.
class LocalScores {
 public:
  enum class Kind {
    kGate,  ///< LN(v) . LN(u) / sqrt(D): trained gates; the size of v does not matter
    kArrow  ///< |v . u|: directions without a sign
  };
  LocalScores(int64_t width, Kind kind);

  /// An adapter whose gate never left zero can't be scored here: it is left out of this module and
  /// gets -infinity. Throws UsageError for another width, a name twice, or NaN.
  void add(const std::string& name, std::span<const float> prototype);
  const std::vector<std::string>& names() const { return names_; }
  /// One score an adapter, in the order added. Throws UsageError for another width.
  std::vector<double> scores(std::span<const float> token) const;

 private:
  int64_t width_;
  Kind kind_;
  std::vector<std::string> names_;
  std::vector<std::vector<double>> prototypes_;  ///< normalised; empty = left out
};

/// Arrow's prototype: the first right singular vector of B A, [in], of length 1, its largest entry
/// positive.
std::vector<float> arrow_prototype(const LoraModule& module);

/// Embeds instructions without a model: hashed words, pairs of words and 3 to 5 letters, weighted
/// by how rare they are among the sentences given, of unit length.
class InstructionEmbedder {
 public:
  static constexpr int64_t kWidth = 1024;
  /// `sentences`: what rarity is counted over, e.g. all adapters' instructions.
  explicit InstructionEmbedder(std::span<const std::string> sentences);
  std::vector<float> embed(std::string_view sentence) const;

 private:
  std::vector<float> rarity_;
};

/// cos(q, g_k) of every adapter's instruction.
std::vector<double> cosines(std::span<const float> query,
                            std::span<const std::vector<float>> instructions);

/// How much the task counts: `held_in` when one instruction is as close as `threshold`, else
/// `held_out`. The paper's 100, 3 and 0.8 are for neural embeddings; other embedders need another
/// threshold.
struct TaskWeight {
  double held_in = 100, held_out = 3, threshold = 0.8;
  double gamma(std::span<const double> cosines) const;
};

/// The `k` largest of local + gamma * global, with softmax weights over those kept; fewer when
/// there are fewer adapters with a finite score. The best first, ties to the lower index. Throws
/// UsageError for k < 1, lists of other lengths, or when no score is finite.
std::vector<std::pair<int64_t, double>> select_adapters(std::span<const double> local,
                                                        std::span<const double> global,
                                                        double gamma, int64_t k = 2);

}  // namespace cadre::reshape
