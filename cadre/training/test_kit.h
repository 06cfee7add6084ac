#pragma once

/// For tests: tiny models, and a tiny world of text whose domains use different letters.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/data/token_batches.h"
#include "cadre/formats/test_folder.h"
#include "cadre/formats/token_file.h"
#include "cadre/formats/tokenizer.h"
#include "cadre/training/language_model.h"

namespace cadre {

/// The 256 bytes and an end of text.
constexpr int64_t kByteVocabulary = 257;

inline Tokenizer byte_tokenizer() {
  const std::string_view text = "x";
  return Tokenizer::train(std::span(&text, 1), {.vocabulary = kByteVocabulary});
}

inline ModelConfig tiny_llama() {
  return {.architecture = Architecture::kLlama,
          .vocabulary = kByteVocabulary,
          .hidden = 32,
          .layers = 2,
          .heads = 4,
          .kv_heads = 2,
          .intermediate = 48,
          .max_positions = 64};
}

inline ModelConfig tiny_olmoe() {
  return {.architecture = Architecture::kOlmoe,
          .vocabulary = kByteVocabulary,
          .hidden = 32,
          .layers = 2,
          .heads = 4,
          .kv_heads = 2,
          .experts = 8,
          .experts_per_token = 2,
          .expert_intermediate = 16,
          .max_positions = 64,
          .norm_eps = 1e-5};
}

inline ModelConfig tiny_deepseek() {
  return {.architecture = Architecture::kDeepseek,
          .vocabulary = kByteVocabulary,
          .hidden = 32,
          .layers = 3,
          .heads = 4,
          .kv_heads = 4,
          .intermediate = 48,
          .experts = 8,
          .experts_per_token = 2,
          .expert_intermediate = 16,
          .shared_experts = 1,
          .first_dense_layers = 1,
          .max_positions = 64};
}

/// A chain over eight letters from `first`: each letter is followed by one of two others, for the
/// most part by the same one. Its unigram entropy is about ln 8, its true entropy 0.5 nats a
/// letter.
inline std::string chain_text(char first, int64_t size, uint64_t seed) {
  Random random(seed, {static_cast<uint64_t>(first)});
  std::string text(1, first);
  while (static_cast<int64_t>(text.size()) < size) {
    const int at = text.back() - first;
    const int next = random.uniform() < 0.8F ? at * 3 + 1 : at * 5 + 2;
    text.push_back(static_cast<char>(first + next % 8));
  }
  return text;
}

/// Domains "ah" and "ip" as token files in a folder.
class TinyWorld {
 public:
  std::vector<DomainTokens> domains(int64_t train_size = 4000) const {
    return {domain("ah", 'a', train_size), domain("ip", 'i', train_size)};
  }
  std::shared_ptr<const TokenBatches> batches(int64_t batch, int64_t length) const {
    return std::make_shared<TokenBatches>(domains(), batch, length, 7);
  }
  std::filesystem::path operator/(const std::string& name) const { return folder_ / name; }

  const Tokenizer tokenizer = byte_tokenizer();

 private:
  std::shared_ptr<const TokenFile> tokens(const std::string& name, const std::string& text) const {
    write_token_file(folder_ / name, tokenizer, {text});
    return std::make_shared<TokenFile>(folder_ / name);
  }
  DomainTokens domain(const std::string& name, char first, int64_t train_size) const {
    return {name, tokens(name + ".train", chain_text(first, train_size, 1)),
            tokens(name + ".validation", chain_text(first, 600, 2))};
  }

  TestFolder folder_;
};

/// The message of the error of type E that `body` throws; empty when it throws none.
template <class E>
std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const E& error) {
    return error.what();
  }
  return "";
}

}  // namespace cadre
