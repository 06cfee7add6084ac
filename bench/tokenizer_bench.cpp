// Encoding and training speed of the tokenizer on one core: English, code, and texts without
// blanks. English is the Shakespeare of the shared data folder when it is there, code this
// repository's own.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "cadre/base/parallel.h"
#include "cadre/base/random.h"
#include "cadre/formats/file.h"
#include "cadre/formats/gzip.h"
#include "cadre/formats/tokenizer.h"
#include "cadre/formats/utf8.h"

namespace {

namespace fs = std::filesystem;

constexpr size_t kTextBytes = 1 << 20;

std::string code() {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(CADRE_SOURCE_DIR) / "cadre"))
    if (entry.path().extension() == ".cpp") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::string text;
  for (const auto& file : files) text += cadre::read_file(file);
  return text;
}

std::string english() {
  const char* shared = std::getenv("CADRE_SHARED_DATA");
  const fs::path data = shared ? fs::path(shared) : fs::path(CADRE_SOURCE_DIR) / "../shared/data";
  const fs::path file = data / "text-lm/tinyshakespeare.txt";
  if (fs::exists(file)) return cadre::read_file(file);
  const fs::path packed = data / "text-lm/tinyshakespeare.txt.gz";
  if (fs::exists(packed)) return cadre::gunzip(cadre::read_file(packed), packed.string(), 1 << 24);
  return cadre::read_file(fs::path(CADRE_SOURCE_DIR) / "README.md");
}

std::string random_letters() {
  cadre::Random random(1);
  std::string text;
  while (text.size() < kTextBytes) text += static_cast<char>('a' + random.below(26));
  return text;
}

std::string chinese() {
  cadre::Random random(2);
  std::string text;
  while (text.size() < kTextBytes)
    text += random.below(12) ? cadre::utf8_of(static_cast<uint32_t>(0x4e00 + random.below(3000)))
                             : "，";
  return text;
}

std::string one_letter() { return std::string(kTextBytes, 'a'); }

const cadre::Tokenizer& tokenizer(cadre::PreTokenizer cut) {
  // The run of one letter, so that its tokens are learned too.
  static const std::string text = english() + code() + chinese() + one_letter();
  static std::vector<std::pair<cadre::PreTokenizer, cadre::Tokenizer>> trained;
  for (const auto& [known, result] : trained)
    if (known == cut) return result;
  trained.reserve(8);
  const std::vector<std::string_view> texts{text};
  trained.emplace_back(cut, cadre::Tokenizer::train(texts, {.pre_tokenizer = cut}));
  return trained.back().second;
}

void encode(benchmark::State& state, cadre::PreTokenizer cut, std::string (*make)()) {
  const cadre::Tokenizer& with = tokenizer(cut);
  const std::string text = make();
  size_t tokens = 0;
  for (auto _ : state) {
    const auto ids = with.encode(text);
    tokens = ids.size();
    benchmark::DoNotOptimize(ids.data());
  }
  if (with.decode(with.encode(text)) != text) state.SkipWithError("decode does not give the text");
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
  state.counters["bytes/token"] = static_cast<double>(text.size()) / static_cast<double>(tokens);
}

BENCHMARK_CAPTURE(encode, gpt2_english, cadre::PreTokenizer::kGpt2, english);
BENCHMARK_CAPTURE(encode, gpt2_code, cadre::PreTokenizer::kGpt2, code);
BENCHMARK_CAPTURE(encode, gpt2_chinese, cadre::PreTokenizer::kGpt2, chinese);
BENCHMARK_CAPTURE(encode, gpt2_random_letters, cadre::PreTokenizer::kGpt2, random_letters);
BENCHMARK_CAPTURE(encode, gpt2_one_letter, cadre::PreTokenizer::kGpt2, one_letter);
BENCHMARK_CAPTURE(encode, llama3_english, cadre::PreTokenizer::kLlama3, english);
BENCHMARK_CAPTURE(encode, llama3_code, cadre::PreTokenizer::kLlama3, code);
BENCHMARK_CAPTURE(encode, qwen2_english, cadre::PreTokenizer::kQwen2, english);
BENCHMARK_CAPTURE(encode, deepseek_english, cadre::PreTokenizer::kDeepseekCoder, english);
BENCHMARK_CAPTURE(encode, deepseek_code, cadre::PreTokenizer::kDeepseekCoder, code);

/// 15 MB to 8192 tokens on all cores.
void train(benchmark::State& state) {
  std::string text;
  const std::string part = english() + code();
  cadre::Random random(3);
  // Repeating the text alone would repeat its words: every copy brings 100 kB of new ones.
  while (text.size() < 15'000'000) {
    text += part;
    for (int i = 0; i < 100'000; ++i)
      text += random.below(6) ? static_cast<char>('a' + random.below(26)) : ' ';
  }
  const std::vector<std::string_view> texts{text};
  for (auto _ : state)
    benchmark::DoNotOptimize(cadre::Tokenizer::train(texts, {.vocabulary = 8192}));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
}
BENCHMARK(train)->Unit(benchmark::kSecond)->UseRealTime()->Iterations(1);

}  // namespace

BENCHMARK_MAIN();
