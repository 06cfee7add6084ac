// Any bytes pass through everything that reads text: gzip, UTF-8, manual pages, held-out blocks.

#include "cadre/formats/corpus.h"

#include "cadre/base/error.h"
#include "cadre/formats/gzip.h"
#include "cadre/formats/roff.h"

namespace {

void check_text(const std::string& text) {
  const bool valid = cadre::find_invalid_utf8(text) < 0;
  if (valid && cadre::find_invalid_utf8(cadre::strip_roff(text)) >= 0) ::abort();
  if (!valid) cadre::strip_roff(text);
  const cadre::HeldOutSplit split = cadre::split_held_out({&text, 1}, 7, 3);
  size_t total = 0;
  for (const auto* part : {&split.training, &split.validation}) {
    for (const std::string_view piece : *part) {
      total += piece.size();
      if (piece.empty() || (valid && cadre::find_invalid_utf8(piece) >= 0)) ::abort();
    }
  }
  if (total != text.size()) ::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  check_text(text);
  try {
    check_text(cadre::gunzip(text, "fuzz", 100000));
  } catch (const cadre::FormatError&) {
  }
  return 0;
}
