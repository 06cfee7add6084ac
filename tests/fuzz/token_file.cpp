// Any bytes are a FormatError or a file whose ids all lie in its vocabulary.

#include "cadre/formats/token_file.h"

#include "cadre/base/error.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const MemoryFile memory(data, size);
  try {
    const cadre::TokenFile file(memory.path());
    std::vector<int64_t> ids(static_cast<size_t>(file.size()));
    file.copy(0, file.size(), ids.data());
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] < 0 || ids[i] >= file.vocabulary() || ids[i] != file[static_cast<int64_t>(i)])
        ::abort();
    }
  } catch (const cadre::FormatError&) {
  }
  return 0;
}
