#include "cadre/engine/slab.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "cadre/base/error.h"
#include "cadre/base/units.h"

namespace cadre::engine {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

}  // namespace

Slab::Slab(int64_t bytes) : bytes_(bytes), map_bytes_(bytes + kHugePage) {
  map_ = mmap(nullptr, map_bytes_, PROT_READ | PROT_WRITE,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map_ == MAP_FAILED)
    throw Error("no room for {} of memory: {}", format_bytes(static_cast<uint64_t>(bytes)),
                std::strerror(errno));
  const auto address = reinterpret_cast<uintptr_t>(map_);
  data_ = static_cast<std::byte*>(map_) + (kHugePage - address % kHugePage) % kHugePage;
  madvise(data_, bytes_, MADV_HUGEPAGE);
}

Slab::~Slab() { munmap(map_, map_bytes_); }

}  // namespace cadre::engine
