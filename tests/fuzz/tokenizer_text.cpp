// Any bytes through encode and decode of each way of cutting: they come back unchanged.

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "cadre/formats/tokenizer.h"

namespace {

std::vector<cadre::Tokenizer> tokenizers() {
  using cadre::PreTokenizer;
  const std::vector<std::string_view> texts{
      "the cat and the dog and the bird, the end of 1234 and 1234; naïve naïve 中文中文 aaaaaaaa"};
  std::vector<cadre::Tokenizer> result;
  for (const auto cut : {PreTokenizer::kGpt2, PreTokenizer::kLlama3, PreTokenizer::kQwen2,
                         PreTokenizer::kDeepseekCoder, PreTokenizer::kDeepseekLlm})
    result.push_back(cadre::Tokenizer::train(texts, {.vocabulary = 300, .pre_tokenizer = cut}));
  return result;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto all = tokenizers();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const auto& tokenizer : all)
    for (const auto special :
         {cadre::Tokenizer::SpecialTokens::kParse, cadre::Tokenizer::SpecialTokens::kAsText})
      if (tokenizer.decode(tokenizer.encode(text, special)) != text) std::abort();
  return 0;
}
