// Any bytes as the files data sets come in: values or one FormatError.

#include <cstdlib>

#include "cadre/base/error.h"
#include "cadre/formats/csv.h"
#include "cadre/formats/gzip.h"
#include "cadre/formats/idx.h"
#include "cadre/formats/roff.h"

namespace {

template <typename Parse>
void try_to(Parse parse) {
  try {
    parse();
  } catch (const cadre::FormatError&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  constexpr int64_t kMaxUnpacked = 1 << 20;
  try_to([&] { cadre::gunzip(bytes, "gzip", kMaxUnpacked); });
  try_to([&] {
    const auto table = cadre::parse_numbers(bytes, "csv");
    if (static_cast<int64_t>(table.values.size()) != table.rows * table.columns) std::abort();
  });
  try_to([&] {
    const auto images = cadre::parse_idx(bytes, "idx");
    int64_t count = 1;
    for (const int64_t size_of_dimension : images.sizes) count *= size_of_dimension;
    if (static_cast<int64_t>(images.values.size()) != count) std::abort();
  });
  cadre::strip_roff(bytes);
  return 0;
}
