// Any bytes are a FormatError or a file whose tensors all lie inside it.

#include "cadre/formats/safetensors.h"

#include <numeric>

#include "cadre/base/error.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const MemoryFile file(data, size);
  try {
    const cadre::SafetensorsReader reader(file.path());
    for (const auto& [name, view] : reader.tensors()) {
      if (view.elements() * size_of(view.dtype) != static_cast<int64_t>(view.bytes.size()))
        ::abort();
      const auto sum = std::accumulate(view.bytes.begin(), view.bytes.end(), uint64_t{0},
                                       [](uint64_t s, std::byte b) { return s + uint64_t(b); });
      if (sum > 255 * size) ::abort();
    }
  } catch (const cadre::FormatError&) {
  }
  return 0;
}
