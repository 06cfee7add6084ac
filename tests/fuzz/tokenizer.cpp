// Any bytes as tokenizer.json: a tokenizer or one clear error. What loads must save and load again.

#include "cadre/formats/tokenizer.h"

#include <cstdlib>

#include "cadre/base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  try {
    const auto tokenizer = cadre::Tokenizer::parse(json, "fuzz");
    const std::string saved = tokenizer.to_json();
    if (cadre::Tokenizer::parse(saved, "saved").to_json() != saved) std::abort();
    const auto ids = tokenizer.encode("It's 12 o'clock,\n\n  naïve 中文 \xff <|endoftext|>",
                                      cadre::Tokenizer::SpecialTokens::kParse);
    tokenizer.decode(ids);
  } catch (const cadre::UsageError&) {
  }
  return 0;
}
