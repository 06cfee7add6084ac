/// The public test vectors: 47 strings and the ids that the published tokenizers give for them.

#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>

#include "cadre/formats/file.h"
#include "cadre/formats/gguf.h"
#include "cadre/formats/gzip.h"
#include "cadre/formats/tokenizer.h"

namespace cadre {
namespace {

namespace fs = std::filesystem;

fs::path vectors_folder() {
  const char* shared = std::getenv("CADRE_SHARED_DATA");
  const fs::path data = shared ? fs::path(shared) : fs::path(CADRE_SOURCE_DIR) / "../shared/data";
  return data / "tokenizers";
}

std::vector<std::string> read_texts(const fs::path& path) {
  const std::string separator = "\n__ggml_vocab_test__\n";
  const std::string all = read_file(path);
  std::vector<std::string> texts;
  for (size_t begin = 0; begin < all.size();) {
    const size_t end = all.find(separator, begin);
    if (end == std::string::npos) break;
    texts.push_back(all.substr(begin, end - begin));
    begin = end + separator.size();
  }
  return texts;
}

std::vector<std::vector<TokenId>> read_ids(const fs::path& path) {
  std::istringstream file(read_file(path));
  std::vector<std::vector<TokenId>> lines;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    auto& ids = lines.emplace_back();
    for (TokenId id; words >> id;) ids.push_back(id);
  }
  return lines;
}

void expect_vectors(const Tokenizer& tokenizer, const std::string& name,
                    Tokenizer::Place place = Tokenizer::Place::kMiddle) {
  const auto texts = read_texts(vectors_folder() / (name + ".gguf.inp"));
  const auto ids = read_ids(vectors_folder() / (name + ".gguf.out"));
  ASSERT_EQ(texts.size(), 46u) << "the last string has no separator after it";
  ASSERT_GE(ids.size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(tokenizer.encode(texts[i]), ids[i]) << name << " string " << i << ": " << texts[i];
    EXPECT_EQ(tokenizer.decode(ids[i], place), texts[i]) << name << " string " << i;
  }
}

Tokenizer from_gguf(const std::string& name, PreTokenizer pre_tokenizer) {
  const std::string file = name + ".gguf.gz";
  const std::string bytes = gunzip(read_file(vectors_folder() / file), file, 1 << 26);
  const GgufReader gguf(std::as_bytes(std::span(bytes)), file);
  const auto& tokens = gguf.strings("tokenizer.ggml.tokens");
  const auto& merges = gguf.strings("tokenizer.ggml.merges");
  const auto types = gguf.integers("tokenizer.ggml.token_type");
  constexpr int64_t kControl = 3, kUserDefined = 4;
  std::vector<TokenId> special, added;
  for (size_t id = 0; id < types.size(); ++id) {
    if (types[id] == kControl) special.push_back(static_cast<TokenId>(id));
    if (types[id] == kUserDefined) added.push_back(static_cast<TokenId>(id));
  }
  return Tokenizer::from_vocabulary({tokens.begin(), tokens.end()}, {merges.begin(), merges.end()},
                                    pre_tokenizer, special, added);
}

#define SKIP_WITHOUT_VECTORS()       \
  if (!fs::exists(vectors_folder())) \
  GTEST_SKIP() << "no test vectors at " << vectors_folder() << " (set CADRE_SHARED_DATA)"

TEST(TokenizerVectors, Gpt2) {
  SKIP_WITHOUT_VECTORS();
  expect_vectors(from_gguf("ggml-vocab-gpt-2", PreTokenizer::kGpt2), "ggml-vocab-gpt-2");
}

TEST(TokenizerVectors, DeepseekCoder) {
  SKIP_WITHOUT_VECTORS();
  expect_vectors(from_gguf("ggml-vocab-deepseek-coder", PreTokenizer::kDeepseekCoder),
                 "ggml-vocab-deepseek-coder");
}

TEST(TokenizerVectors, LlamaSentencePiece) {
  SKIP_WITHOUT_VECTORS();
  const std::string name = "ggml-vocab-llama-spm", file = name + ".gguf.gz";
  const std::string bytes = gunzip(read_file(vectors_folder() / file), file, 1 << 26);
  const GgufReader gguf(std::as_bytes(std::span(bytes)), file);
  const auto& pieces = gguf.strings("tokenizer.ggml.tokens");
  const auto types = gguf.integers("tokenizer.ggml.token_type");
  const auto tokenizer = Tokenizer::from_sentencepiece(
      {pieces.begin(), pieces.end()}, gguf.numbers("tokenizer.ggml.scores"),
      {types.begin(), types.end()}, Tokenizer::BlankPrefix::kBeforeText);
  expect_vectors(tokenizer, name, Tokenizer::Place::kStartOfText);
  expect_vectors(Tokenizer::parse(tokenizer.to_json(), "saved"), name,
                 Tokenizer::Place::kStartOfText);
}

/// Published tokenizer.json files are too large for the repository: a variable tells where one is.
void expect_published(const char* variable, const std::string& name) {
  const char* path = std::getenv(variable);
  if (path == nullptr) GTEST_SKIP() << "set " << variable << " to the model's tokenizer.json";
  const Tokenizer tokenizer = Tokenizer::load(path);
  expect_vectors(tokenizer, name, Tokenizer::Place::kStartOfText);
  expect_vectors(Tokenizer::parse(tokenizer.to_json(), "saved"), name,
                 Tokenizer::Place::kStartOfText);
}

TEST(TokenizerVectors, Llama2) {
  SKIP_WITHOUT_VECTORS();
  expect_published("CADRE_LLAMA2_TOKENIZER", "ggml-vocab-llama-spm");
}

TEST(TokenizerVectors, Llama3) {
  SKIP_WITHOUT_VECTORS();
  expect_published("CADRE_LLAMA3_TOKENIZER", "ggml-vocab-llama-bpe");
}

TEST(TokenizerVectors, Qwen2) {
  SKIP_WITHOUT_VECTORS();
  expect_published("CADRE_QWEN2_TOKENIZER", "ggml-vocab-qwen2");
}

}  // namespace
}  // namespace cadre
