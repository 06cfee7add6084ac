#include "cadre/ensemble/category_router.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <tuple>

#include "cadre/base/error.h"
#include "cadre/base/random.h"

namespace cadre::ensemble {
namespace {

/// FNV-1a over the bytes, with a last mix so that low bits depend on all of them.
uint32_t hash_of(std::string_view bytes) {
  uint64_t hash = 14695981039346656037ULL;
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  return static_cast<uint32_t>(hash ^ hash >> 32);
}

void check_labels(std::span<const std::string> texts, std::span<const int64_t> categories) {
  if (texts.empty() || texts.size() != categories.size()) {
    throw UsageError("category router: {} texts with {} categories", texts.size(),
                     categories.size());
  }
  if (*std::min_element(categories.begin(), categories.end()) < 0) {
    throw UsageError("category router: a category below 0");
  }
}

double entropy_of(const std::vector<double>& p) {
  double sum = 0;
  for (const double x : p) sum -= x > 0 ? x * std::log(x) : 0;
  return sum;
}

}  // namespace

SparseFeatures ngram_features(std::string_view text, const NgramOptions& options) {
  std::vector<uint32_t> ids;
  for (int n = options.shortest; n <= options.longest; ++n) {
    for (size_t i = 0; i + static_cast<size_t>(n) <= text.size(); ++i) {
      ids.push_back(hash_of(text.substr(i, n)) % static_cast<uint32_t>(options.features));
    }
  }
  std::sort(ids.begin(), ids.end());
  SparseFeatures features;
  for (const uint32_t id : ids) {
    if (features.empty() || features.back().first != id) features.emplace_back(id, 0.0F);
    features.back().second += 1;
  }
  // The squares of the roots of the counts add up to the number of n-grams.
  const auto length = static_cast<float>(ids.size());
  for (auto& [id, value] : features) value = std::sqrt(value / length);
  return features;
}

double dot(const SparseFeatures& a, const SparseFeatures& b) {
  double sum = 0;
  for (auto x = a.begin(), y = b.begin(); x != a.end() && y != b.end();) {
    if (x->first == y->first) sum += static_cast<double>(x->second) * y->second;
    const bool next_x = x->first <= y->first, next_y = y->first <= x->first;
    if (next_x) ++x;
    if (next_y) ++y;
  }
  return sum;
}

CategoryRouter::CategoryRouter(Fitted fitted) : fitted_(std::move(fitted)) {
  const NgramOptions& n = fitted_.ngrams;
  const bool sizes = n.features > 0 && n.features <= UINT32_MAX && n.shortest > 0 &&
                     n.longest >= n.shortest && fitted_.categories > 0 &&
                     fitted_.bias.size() == static_cast<size_t>(fitted_.categories) &&
                     fitted_.weights.size() == static_cast<size_t>(n.features * fitted_.categories);
  if (!sizes) throw UsageError("category router: sizes that do not fit");
  const auto finite = [](float v) { return std::isfinite(v); };
  if (!std::all_of(fitted_.weights.begin(), fitted_.weights.end(), finite) ||
      !std::all_of(fitted_.bias.begin(), fitted_.bias.end(), finite) ||
      !(fitted_.temperature > 0) || !std::isfinite(fitted_.temperature) ||
      std::isnan(fitted_.threshold)) {
    throw UsageError("category router: numbers that are not finite");
  }
}

CategoryRouter::CategoryRouter(std::span<const std::string> texts,
                               std::span<const int64_t> categories,
                               const CategoryTraining& training)
    : fitted_{.ngrams = training.ngrams} {
  check_labels(texts, categories);
  fitted_.categories = 1 + *std::max_element(categories.begin(), categories.end());
  fitted_.weights.assign(static_cast<size_t>(fitted_.ngrams.features * fitted_.categories), 0.0F);
  fitted_.bias.assign(fitted_.categories, 0.0F);
  std::vector<SparseFeatures> features;
  for (const std::string& text : texts) features.push_back(ngram_features(text, fitted_.ngrams));

  const auto steps = static_cast<double>(training.epochs) * static_cast<double>(texts.size());
  double step = 0;
  std::vector<size_t> order(texts.size());
  for (int64_t epoch = 0; epoch < training.epochs; ++epoch) {
    std::iota(order.begin(), order.end(), 0);
    Random random(training.seed, {static_cast<uint64_t>(epoch)});
    std::shuffle(order.begin(), order.end(), random);
    for (const size_t i : order) {
      const double lr = training.lr * (1 - step++ / steps);
      auto p = softmax(logits(features[i]));
      p[categories[i]] -= 1;
      for (int64_t c = 0; c < fitted_.categories; ++c)
        fitted_.bias[c] -= static_cast<float>(lr * p[c]);
      for (const auto& [id, value] : features[i]) {
        float* row = &fitted_.weights[id * fitted_.categories];
        for (int64_t c = 0; c < fitted_.categories; ++c) {
          row[c] -= static_cast<float>(lr * (p[c] * value + training.decay * row[c]));
        }
      }
    }
  }
}

std::vector<double> CategoryRouter::logits(const SparseFeatures& features) const {
  std::vector<double> sums(fitted_.bias.begin(), fitted_.bias.end());
  for (const auto& [id, value] : features) {
    const float* row = &fitted_.weights[id * fitted_.categories];
    for (int64_t c = 0; c < fitted_.categories; ++c) sums[c] += static_cast<double>(value) * row[c];
  }
  return sums;
}

std::vector<double> CategoryRouter::softmax(std::vector<double> logits) const {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (double& x : logits) sum += x = std::exp((x - largest) / fitted_.temperature);
  for (double& x : logits) x /= sum;
  return logits;
}

std::vector<double> CategoryRouter::probabilities(std::string_view text) const {
  return softmax(logits(ngram_features(text, fitted_.ngrams)));
}

void CategoryRouter::calibrate(std::span<const std::string> texts,
                               std::span<const int64_t> categories, double sure_share) {
  check_labels(texts, categories);
  if (*std::max_element(categories.begin(), categories.end()) >= fitted_.categories) {
    throw UsageError("category router: a category that was not trained");
  }
  std::vector<std::vector<double>> all;
  for (const std::string& text : texts) all.push_back(logits(ngram_features(text, fitted_.ngrams)));
  // Platt's smoothed targets (1999): were all texts classified right, plain cross entropy would
  // fall as long as the temperature does.
  const double missed = 1 / (static_cast<double>(texts.size()) + 2);
  const double share = missed / static_cast<double>(std::max<int64_t>(1, fitted_.categories - 1));
  double best = std::numeric_limits<double>::infinity(), chosen = 1;
  for (double t = 0.05; t < 20; t *= 1.1) {
    fitted_.temperature = t;
    double loss = 0;
    for (size_t i = 0; i < all.size(); ++i) {
      const auto p = softmax(all[i]);
      for (int64_t c = 0; c < fitted_.categories; ++c) {
        const double target = c == categories[i] ? 1 - missed : share;
        loss -= target * std::log(std::max(p[c], 1e-300));
      }
    }
    if (loss < best) std::tie(best, chosen) = std::pair(loss, t);
  }
  fitted_.temperature = chosen;
  std::vector<double> entropies;
  for (const auto& row : all) entropies.push_back(entropy_of(softmax(row)));
  std::sort(entropies.begin(), entropies.end());
  const double place = std::clamp(sure_share, 0.0, 1.0) * static_cast<double>(entropies.size() - 1);
  fitted_.threshold = entropies[static_cast<size_t>(std::ceil(place))];
}

CategoryRouter::Answer CategoryRouter::route(std::string_view text) const {
  const auto p = probabilities(text);
  const auto likeliest = std::max_element(p.begin(), p.end());
  Answer answer{
      .category = likeliest - p.begin(), .probability = *likeliest, .entropy = entropy_of(p)};
  if (answer.entropy > fitted_.threshold) answer.confidence = Answer::Confidence::kUnsure;
  return answer;
}

NearestTexts::NearestTexts(std::span<const std::string> texts, const NgramOptions& options)
    : options_(options) {
  for (const std::string& text : texts) texts_.push_back(ngram_features(text, options));
}

double NearestTexts::distance(std::string_view text, int64_t k) const {
  if (k < 1 || k > static_cast<int64_t>(texts_.size())) {
    throw UsageError("nearest texts: k is {} of {}", k, texts_.size());
  }
  const SparseFeatures features = ngram_features(text, options_);
  std::vector<double> cosines;
  for (const SparseFeatures& known : texts_) cosines.push_back(dot(features, known));
  std::partial_sort(cosines.begin(), cosines.begin() + k, cosines.end(), std::greater<>());
  return 1 - std::accumulate(cosines.begin(), cosines.begin() + k, 0.0) / static_cast<double>(k);
}

}  // namespace cadre::ensemble
