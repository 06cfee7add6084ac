#include "cadre/engine/perplexity.h"

#include <algorithm>
#include <cmath>

#include "cadre/base/error.h"

namespace cadre::engine {
namespace {

/// Logits of a whole window are 300 MB in a vocabulary of 150,000: they come in parts of this many.
constexpr int64_t kLogitBytes = 32 << 20;

struct Losses {
  double sum = 0, squares = 0;
  int64_t count = 0;

  void add(double loss) {
    sum += loss;
    squares += loss * loss;
    ++count;
  }
};

/// Adds the losses of window[first ...], each predicted from all before it.
void score_window(SequenceModel& model, std::span<const TokenId> window, size_t first,
                  Losses& losses) {
  const auto vocabulary = static_cast<size_t>(model.vocabulary());
  const auto part = static_cast<size_t>(std::max<int64_t>(
      1, kLogitBytes / (model.vocabulary() * static_cast<int64_t>(sizeof(float)))));
  const auto sequence = model.new_sequence();
  const auto feed = [&](std::span<const TokenId> tokens, Model::Slice::Want want) {
    const SequenceModel::Slice slice{sequence.get(), tokens, want};
    return model.forward({&slice, 1});
  };
  if (first > 1) feed(window.first(first - 1), Model::Slice::Want::kNone);
  for (size_t at = first - 1; at + 1 < window.size();) {
    const size_t count = std::min(part, window.size() - 1 - at);
    const std::vector<float> logits = feed(window.subspan(at, count), Model::Slice::Want::kAll);
    for (size_t i = 0; i < count; ++i, ++at) {
      losses.add(token_loss(std::span(logits).subspan(i * vocabulary, vocabulary), window[at + 1]));
    }
  }
}

}  // namespace

double PerplexityResult::perplexity() const { return std::exp(mean_loss); }

double token_loss(std::span<const float> logits, TokenId target) {
  const double largest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return largest + std::log(sum) - static_cast<double>(logits[static_cast<size_t>(target)]);
}

PerplexityResult measure_perplexity(SequenceModel& model, std::span<const TokenId> tokens,
                                    const PerplexityOptions& options) {
  if (options.context < 2) {
    throw UsageError("context is {}, must be at least 2 tokens", options.context);
  }
  if (tokens.size() < 2) {
    throw UsageError("the text has {} tokens, perplexity needs at least 2", tokens.size());
  }
  const size_t width = std::min(static_cast<size_t>(options.context), tokens.size());
  const size_t first = tokens.size() <= width ? 1 : std::max<size_t>(1, width / 2);
  const size_t windows = tokens.size() / width;
  Losses losses;
  for (size_t i = 0; i < windows; ++i) {
    score_window(model, tokens.subspan(i * width, width), first, losses);
    if (!options.progress) continue;
    options.progress(static_cast<double>(i + 1) / static_cast<double>(windows),
                     std::exp(losses.sum / static_cast<double>(losses.count)));
  }
  const auto count = static_cast<double>(losses.count);
  const double mean = losses.sum / count;
  const double variance = std::max(0.0, losses.squares / count - mean * mean);
  return {.mean_loss = mean,
          .deviation = count > 1 ? std::sqrt(variance / (count - 1)) : 0,
          .tokens = losses.count,
          .experts = model.expert_counters()};
}

}  // namespace cadre::engine
