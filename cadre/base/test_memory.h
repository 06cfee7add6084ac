#pragma once

/// For tests of memory limits.

namespace cadre {

/// False where a sanitizer's shadow, redzones and quarantine are counted with the program's memory.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kMemoryIsOurs = false;
#else
inline constexpr bool kMemoryIsOurs = true;
#endif

}  // namespace cadre
