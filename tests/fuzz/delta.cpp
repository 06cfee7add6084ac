// Any bytes are a FormatError or a file whose blocks decode into as many survivors as it says.

#include "cadre/reshape/delta_file.h"

#include <cstdlib>

#include "cadre/base/error.h"
#include "cadre/reshape/ternary_code.h"
#include "tests/fuzz/memory_file.h"

namespace {

void read_file(const uint8_t* data, size_t size) {
  const MemoryFile file(data, size);
  try {
    const cadre::reshape::DeltaReader reader(file.path());
    if (reader.entries() < int64_t{1} << 24 && reader.ternary().kept() != reader.kept()) ::abort();
  } catch (const cadre::FormatError&) {
  }
}

/// The code alone: past the checksums, which a fuzzer does not find.
void read_block(const uint8_t* data, size_t size) {
  if (size < 4) return;
  const int64_t entries = 1 + (data[0] | data[1] << 8), kept = data[2] | data[3] << 8;
  std::vector<uint64_t> plus(cadre::reshape::kTernaryWords), minus = plus;
  const auto bytes = std::as_bytes(std::span(data + 4, size - 4));
  try {
    cadre::reshape::decode_ternary(bytes, kept, entries, plus.data(), minus.data(), "block");
    int64_t count = 0;
    for (size_t w = 0; w < plus.size(); ++w) count += __builtin_popcountll(plus[w] | minus[w]);
    if (count != kept) ::abort();
  } catch (const cadre::FormatError&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  read_file(data, size);
  read_block(data, size);
  return 0;
}
