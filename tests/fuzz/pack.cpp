// Any bytes as a pack: every expert's range inside the file, or one clear error.

#include "cadre/engine/pack.h"

#include <cstdlib>

#include "cadre/base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const cadre::engine::ExpertFiles files =
        cadre::engine::read_pack(std::as_bytes(std::span(data, size)), "fuzz");
    for (const auto& parts : files.parts)
      for (const cadre::engine::FilePart& part : parts)
        if (part.offset < 0 || part.bytes < 0 ||
            part.offset + part.bytes > static_cast<int64_t>(size))
          std::abort();
  } catch (const cadre::FormatError&) {
  }
  return 0;
}
