// Any bytes as a trace of routes, safetensors or CSV: a trace whose parts agree or one error.

#include <cstdlib>

#include "cadre/base/error.h"
#include "cadre/engine/trace.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const MemoryFile file(data, size);
  try {
    const auto trace = cadre::engine::read_trace(file.path());
    const int64_t ids = trace.size() * trace.layers * trace.used;
    if (static_cast<int64_t>(trace.chosen.size()) != ids) std::abort();
    if (static_cast<int64_t>(trace.weights.size()) != ids) std::abort();
    for (const int16_t expert : trace.chosen)
      if (expert < -1 || expert >= trace.experts) std::abort();
    cadre::engine::decode_part(trace);
  } catch (const cadre::FormatError&) {
  }
  return 0;
}
