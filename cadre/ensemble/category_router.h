#pragma once

/// Which category a text belongs to: hashed byte n-grams and logistic regression, small enough to
/// run before every prompt.
///
/// Jain et al., "Composition of Experts" (2024), first step: classify the prompt; when the
/// classifier is unsure, the prompt goes to the general model. The paper's features are a neural
/// embedding; byte n-grams need none.

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cadre::ensemble {

/// Non-zero features (index, value), rising by index, of unit length; empty for an empty text.
using SparseFeatures = std::vector<std::pair<uint32_t, float>>;

struct NgramOptions {
  int64_t features = int64_t{1} << 14;
  int shortest = 1, longest = 4;  ///< bytes
};
/// Square roots of the counts of hashed n-grams, divided by their length.
SparseFeatures ngram_features(std::string_view text, const NgramOptions& options = {});
double dot(const SparseFeatures& a, const SparseFeatures& b);

struct CategoryTraining {
  NgramOptions ngrams;
  int64_t epochs = 20;
  double lr = 1;        ///< falls linearly to 0
  double decay = 1e-5;  ///< L2, a step
  uint64_t seed = 1;
};

class CategoryRouter {
 public:
  /// What training left, to be stored.
  struct Fitted {
    NgramOptions ngrams;
    int64_t categories = 0;
    std::vector<float> weights;  ///< [features, categories]
    std::vector<float> bias;     ///< [categories]
    double temperature = 1;
    double threshold = std::numeric_limits<double>::infinity();
  };
  /// Throws UsageError for sizes that do not fit and numbers that are not finite.
  explicit CategoryRouter(Fitted fitted);
  /// Multinomial logistic regression by stochastic gradients. Categories are numbered from 0.
  /// Throws UsageError for no texts, labels that do not fit, a category below 0.
  CategoryRouter(std::span<const std::string> texts, std::span<const int64_t> categories,
                 const CategoryTraining& training = {});

  const Fitted& fitted() const { return fitted_; }
  int64_t categories() const { return fitted_.categories; }
  /// Softmax over categories at the temperature.
  std::vector<double> probabilities(std::string_view text) const;

  /// Fits the temperature to texts that were not trained on (least cross entropy with Platt's
  /// smoothed targets), and the threshold of entropy in nats so that this share of them is taken as
  /// sure. Without it nothing is unsure.
  void calibrate(std::span<const std::string> texts, std::span<const int64_t> categories,
                 double sure_share = 0.95);
  double temperature() const { return fitted_.temperature; }
  double threshold() const { return fitted_.threshold; }
  void set_threshold(double entropy) { fitted_.threshold = entropy; }

  struct Answer {
    int64_t category = 0;  ///< the most probable
    double probability = 0;
    double entropy = 0;
    enum class Confidence { kSure, kUnsure } confidence = Confidence::kSure;
  };
  Answer route(std::string_view text) const;

 private:
  std::vector<double> logits(const SparseFeatures& features) const;
  std::vector<double> softmax(std::vector<double> logits) const;

  Fitted fitted_;
};

/// How far a text is from what is known: the mean cosine distance to its k nearest of a list, which
/// tells strange texts better than a classifier's own confidence.
class NearestTexts {
 public:
  explicit NearestTexts(std::span<const std::string> texts, const NgramOptions& options = {});
  /// 0 = known, 1 = nothing in common. Throws UsageError for k outside [1, texts].
  double distance(std::string_view text, int64_t k = 5) const;

 private:
  NgramOptions options_;
  std::vector<SparseFeatures> texts_;
};

}  // namespace cadre::ensemble
