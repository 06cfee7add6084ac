#include "cadre/training/generation.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "cadre/base/error.h"
#include "cadre/training/checkpoint.h"

namespace cadre {
namespace {

void check_options(const SamplingOptions& o) {
  if (o.tokens < 0) throw UsageError("tokens is {}, must be at least 0", o.tokens);
  if (!(o.temperature >= 0) || !std::isfinite(o.temperature)) {
    throw UsageError("temperature is {}, must be at least 0", o.temperature);
  }
  if (o.top_k < 0) throw UsageError("top_k is {}, must be at least 0", o.top_k);
  if (!(o.top_p > 0 && o.top_p <= 1)) {
    throw UsageError("top_p is {}, must be above 0 and at most 1", o.top_p);
  }
}

std::vector<TokenId> encode_prompt(const Tokenizer& tokenizer, std::string_view prompt,
                                   int64_t context) {
  std::vector<TokenId> ids = tokenizer.encode(prompt);
  if (ids.empty()) throw UsageError("the prompt is empty; give at least one character");
  const auto size = static_cast<int64_t>(ids.size());
  if (size > context) {
    throw UsageError("the prompt has {} tokens, the model's context only {}", size, context);
  }
  return ids;
}

/// Bytes at the end of `text` that begin a UTF-8 character and do not finish it.
size_t unfinished_bytes(std::string_view text) {
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;
    const size_t needed = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    return needed > back ? back : 0;
  }
  return 0;
}

/// Hands on text in pieces that end at a character's end.
class PieceStream {
 public:
  explicit PieceStream(const std::function<void(std::string_view)>& sink) : sink_(sink) {}

  void push(std::string_view bytes) {
    pending_ += bytes;
    emit(pending_.size() - unfinished_bytes(pending_));
  }
  void finish() { emit(pending_.size()); }

 private:
  void emit(size_t count) {
    if (sink_ && count > 0) sink_(std::string_view(pending_).substr(0, count));
    pending_.erase(0, count);
  }

  const std::function<void(std::string_view)>& sink_;
  std::string pending_;
};

std::vector<int32_t> ranked_candidates(std::span<const float> logits, int64_t top_k) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const size_t keep = top_k == 0 ? ids.size() : std::min<size_t>(top_k, ids.size());
  const auto before = [&](int32_t a, int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  };
  std::partial_sort(ids.begin(), ids.begin() + static_cast<int64_t>(keep), ids.end(), before);
  ids.resize(keep);
  return ids;
}

torch::Tensor id_tensor(const std::vector<TokenId>& ids) {
  return torch::tensor(std::vector<int64_t>(ids.begin(), ids.end()), torch::kInt64).unsqueeze(0);
}

}  // namespace

TokenId sample_token(std::span<const float> logits, const SamplingOptions& options,
                     Random& random) {
  for (const float logit : logits) {
    if (!std::isfinite(logit)) throw Error("the model's logits are not finite");
  }
  if (options.temperature == 0) {
    return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  const std::vector<int32_t> ids = ranked_candidates(logits, options.top_k);
  std::vector<double> weights;
  for (const int32_t id : ids) {
    weights.push_back(
        std::exp((static_cast<double>(logits[id]) - logits[ids.front()]) / options.temperature));
  }
  double kept = 0;
  const double wanted = options.top_p * std::accumulate(weights.begin(), weights.end(), 0.0);
  size_t count = 0;
  while (count < weights.size() && (count == 0 || kept < wanted)) kept += weights[count++];
  double draw = static_cast<double>(random.uniform()) * kept;
  size_t chosen = 0;
  while (chosen + 1 < count && draw >= weights[chosen]) draw -= weights[chosen++];
  return ids[chosen];
}

std::string generate(LanguageModel& model, const Tokenizer& tokenizer, std::string_view prompt,
                     const SamplingOptions& options,
                     const std::function<void(std::string_view)>& on_text) {
  check_options(options);
  check_tokenizer(tokenizer, model.config(), "generate");
  const int64_t context = model.config().max_positions;
  std::vector<TokenId> ids = encode_prompt(tokenizer, prompt, context);
  const int64_t limit = std::min(options.tokens, context - static_cast<int64_t>(ids.size()));
  std::vector<KeyValueCache> caches(model.config().layers);
  PieceStream stream(on_text);
  std::string text;
  Random random(options.seed);
  for (int64_t made = 0; made < limit; ++made) {
    const torch::Tensor logits = model.next_logits(id_tensor(ids), &caches);
    // Ids that the tokenizer does not have (a padded vocabulary) can't be drawn.
    const std::span<const float> known(logits.data_ptr<float>(), tokenizer.vocabulary_size());
    const TokenId next = sample_token(known, options, random);
    if (next == tokenizer.end_of_text() || next == model.config().end_of_text) break;
    const std::string piece = tokenizer.decode(std::span(&next, 1));
    text += piece;
    stream.push(piece);
    ids.assign(1, next);
  }
  stream.finish();
  return text;
}

}  // namespace cadre
