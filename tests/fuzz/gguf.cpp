// Any bytes as a GGUF file: readable, with every tensor inside the file, or one clear error.

#include "cadre/formats/gguf.h"

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const cadre::GgufReader gguf(bytes, "fuzz");
    for (const cadre::GgufTensor& tensor : gguf.tensors()) {
      if (gguf.find_tensor(tensor.name) != &tensor) std::abort();
      if (!tensor.bytes.empty() &&
          (tensor.bytes.data() < bytes.data() || &tensor.bytes.back() > &bytes.back()))
        std::abort();
    }
    for (const auto& [key, value] : gguf.metadata())
      if (std::holds_alternative<cadre::GgufArray>(value)) gguf.integers(key);
  } catch (const cadre::FormatError&) {
  }
  return 0;
}
