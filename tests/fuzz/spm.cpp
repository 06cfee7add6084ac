// Any bytes as a SentencePiece vocabulary and a text: a tokenizer that gives the text back, or one
// clear error. One line a piece: its type's digit, its score's digit, the piece; then a text.

#include <cstdlib>

#include "cadre/base/error.h"
#include "cadre/formats/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view input(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> pieces;
  std::vector<float> scores;
  std::vector<int32_t> types;
  for (size_t end; (end = input.find('\n')) != std::string_view::npos && end >= 2;) {
    types.push_back(input[0] - '0');
    scores.push_back(static_cast<float>('0' - input[1]));
    pieces.emplace_back(input.substr(2, end - 2));
    input.remove_prefix(end + 1);
  }
  using cadre::Tokenizer;
  try {
    const auto tokenizer =
        Tokenizer::from_sentencepiece(pieces, scores, types, Tokenizer::BlankPrefix::kBeforeText);
    const auto saved = Tokenizer::parse(tokenizer.to_json(), "saved");
    const auto ids = tokenizer.encode(input, Tokenizer::SpecialTokens::kParse);
    if (saved.decode(ids) != tokenizer.decode(ids)) std::abort();
  } catch (const cadre::UsageError&) {
  }
  return 0;
}
