#pragma once

#include <vector>

namespace cadre {

/// Makes malloc() keep what is freed instead of giving it back to the system: for programs that
/// allocate the same large buffers at every step, as training does. A fresh page costs some 4 us on
/// a virtual machine, 64 MB of them as much as 25 GFLOP; an expert layer's training step was 45 %
/// slower without. The price: the process stays as large as it ever was. Call it at the start of
/// main(), before threads allocate. Does nothing where the C library is not glibc.
void keep_freed_memory();

/// Empties the vector and frees its memory; `values = {}` and clear() keep it.
template <typename T>
void release(std::vector<T>& values) {
  std::vector<T>().swap(values);
}

}  // namespace cadre
