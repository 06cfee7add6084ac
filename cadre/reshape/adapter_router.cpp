#include "cadre/reshape/adapter_router.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <numeric>

#include "cadre/base/error.h"

namespace cadre::reshape {
namespace {

/// Layer normalisation without weights; empty for a vector without spread.
std::vector<double> normalised(std::span<const float> x) {
  const auto n = static_cast<double>(x.size());
  const double mean = std::accumulate(x.begin(), x.end(), 0.0) / n;
  double square = 0;
  for (const float v : x) square += (v - mean) * (v - mean);
  if (!(square > 0)) return {};
  const double scale = 1 / std::sqrt(square / n);
  std::vector<double> y;
  for (const float v : x) y.push_back((v - mean) * scale);
  return y;
}

std::vector<std::string> words_of(std::string_view sentence) {
  std::vector<std::string> words(1);
  for (const char c : sentence) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) || byte >= 0x80) {
      words.back() += static_cast<char>(std::tolower(byte));
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

/// Counts of hashed features of a sentence, [kWidth].
std::vector<float> counts_of(std::string_view sentence) {
  std::vector<float> counts(InstructionEmbedder::kWidth);
  const auto count = [&](const std::string& feature) {
    uint64_t hash = 14695981039346656037ULL;
    for (const char c : feature) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
    counts[(hash ^ hash >> 32) % InstructionEmbedder::kWidth] += 1;
  };
  const auto words = words_of(sentence);
  for (size_t i = 0; i < words.size(); ++i) {
    count("w" + words[i]);
    if (i > 0) count("p" + words[i - 1] + " " + words[i]);
    const std::string padded = " " + words[i] + " ";
    for (size_t n = 3; n <= 5; ++n) {
      for (size_t j = 0; j + n <= padded.size(); ++j) count("c" + padded.substr(j, n));
    }
  }
  return counts;
}

}  // namespace

LocalScores::LocalScores(int64_t width, Kind kind) : width_(width), kind_(kind) {
  if (width < 1) throw UsageError("adapter scores: a width of {}", width);
}

void LocalScores::add(const std::string& name, std::span<const float> prototype) {
  if (static_cast<int64_t>(prototype.size()) != width_) {
    throw UsageError("adapter {}: its prototype has {} numbers, not {}", name, prototype.size(),
                     width_);
  }
  if (std::find(names_.begin(), names_.end(), name) != names_.end()) {
    throw UsageError("adapter {} twice", name);
  }
  const auto finite = [](float v) { return std::isfinite(v); };
  if (!std::all_of(prototype.begin(), prototype.end(), finite)) {
    throw UsageError("adapter {}: its prototype is not finite", name);
  }
  names_.push_back(name);
  prototypes_.push_back(kind_ == Kind::kGate
                            ? normalised(prototype)
                            : std::vector<double>(prototype.begin(), prototype.end()));
}

std::vector<double> LocalScores::scores(std::span<const float> token) const {
  if (static_cast<int64_t>(token.size()) != width_) {
    throw UsageError("adapter scores: a token of {} numbers, not {}", token.size(), width_);
  }
  std::vector<double> u(token.begin(), token.end());
  if (kind_ == Kind::kGate) {
    u = normalised(token);
    if (u.empty()) u.assign(token.size(), 0);
  }
  std::vector<double> scores;
  for (const auto& v : prototypes_) {
    if (v.empty()) {
      scores.push_back(-std::numeric_limits<double>::infinity());
      continue;
    }
    const double product = std::inner_product(v.begin(), v.end(), u.begin(), 0.0);
    scores.push_back(kind_ == Kind::kGate ? product / std::sqrt(static_cast<double>(width_))
                                          : std::abs(product));
  }
  return scores;
}

std::vector<float> arrow_prototype(const LoraModule& module) {
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<const Matrix> a(module.a.data(), module.rank, module.in);
  const Eigen::Map<const Matrix> b(module.b.data(), module.out, module.rank);
  // B = Q R: the right singular vectors of B A are those of R A, which is small.
  const int64_t rows = std::min(module.out, module.rank);
  const Eigen::HouseholderQR<Eigen::MatrixXf> qr(b);
  const Eigen::MatrixXf r = qr.matrixQR().topRows(rows).triangularView<Eigen::Upper>();
  const Eigen::MatrixXf product = r * a;
  const Eigen::JacobiSVD<Eigen::MatrixXf> svd(product, Eigen::ComputeThinV);
  Eigen::VectorXf v = svd.matrixV().col(0);
  Eigen::Index largest = 0;
  v.cwiseAbs().maxCoeff(&largest);
  if (v[largest] < 0) v = -v;
  return {v.data(), v.data() + v.size()};
}

InstructionEmbedder::InstructionEmbedder(std::span<const std::string> sentences)
    : rarity_(kWidth, 1.0F) {
  std::vector<double> holders(kWidth);
  for (const std::string& sentence : sentences) {
    const auto counts = counts_of(sentence);
    for (int64_t i = 0; i < kWidth; ++i) holders[i] += counts[i] > 0;
  }
  const auto n = static_cast<double>(sentences.size());
  for (int64_t i = 0; i < kWidth; ++i) {
    rarity_[i] = static_cast<float>(std::log((1 + n) / (1 + holders[i])) + 1);
  }
}

std::vector<float> InstructionEmbedder::embed(std::string_view sentence) const {
  std::vector<float> vector = counts_of(sentence);
  double square = 0;
  for (int64_t i = 0; i < kWidth; ++i) {
    vector[i] *= rarity_[i];
    square += static_cast<double>(vector[i]) * vector[i];
  }
  if (square == 0) return vector;
  for (float& v : vector) v = static_cast<float>(v / std::sqrt(square));
  return vector;
}

std::vector<double> cosines(std::span<const float> query,
                            std::span<const std::vector<float>> instructions) {
  const auto length = [](std::span<const float> x) {
    return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0));
  };
  std::vector<double> result;
  for (const auto& g : instructions) {
    if (g.size() != query.size()) {
      throw UsageError("instructions: embeddings of {} and {} numbers", g.size(), query.size());
    }
    const double lengths = length(query) * length(g);
    const double product = std::inner_product(g.begin(), g.end(), query.begin(), 0.0);
    result.push_back(lengths > 0 ? product / lengths : 0);
  }
  return result;
}

double TaskWeight::gamma(std::span<const double> cosines) const {
  const bool known = std::any_of(cosines.begin(), cosines.end(),
                                 [&](double cosine) { return cosine >= threshold; });
  return known ? held_in : held_out;
}

std::vector<std::pair<int64_t, double>> select_adapters(std::span<const double> local,
                                                        std::span<const double> global,
                                                        double gamma, int64_t k) {
  if (k < 1) throw UsageError("adapters: k is {}, must be at least 1", k);
  if (local.size() != global.size()) {
    throw UsageError("adapters: {} local and {} global scores", local.size(), global.size());
  }
  std::vector<std::pair<int64_t, double>> all;
  for (size_t i = 0; i < local.size(); ++i) {
    // gamma = 0 leaves the local score's bits alone.
    const double score = gamma == 0 ? local[i] : local[i] + gamma * global[i];
    if (std::isfinite(score)) all.emplace_back(static_cast<int64_t>(i), score);
  }
  if (all.empty()) throw UsageError("adapters: none has a finite score");
  std::stable_sort(all.begin(), all.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  all.resize(std::min(all.size(), static_cast<size_t>(k)));
  const double largest = all.front().second;
  double sum = 0;
  for (auto& [id, score] : all) sum += score = std::exp(score - largest);
  for (auto& [id, weight] : all) weight /= sum;
  return all;
}

}  // namespace cadre::reshape
