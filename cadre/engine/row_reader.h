#pragma once

/// A matrix of the file read row by row as floats, not through the map: pages of a map that were
/// touched once would count as this process's memory for ever, 64 KiB for every token seen.

#include <cstdint>
#include <vector>

#include "cadre/engine/tensor_source.h"

namespace cadre::engine {

class RowReader {
 public:
  /// A matrix [rows, columns] of one of the source's files. Throws IoError.
  RowReader(const TensorSource& source, const SourceTensor& matrix);
  ~RowReader();
  RowReader(const RowReader&) = delete;
  RowReader& operator=(const RowReader&) = delete;

  /// Writes the row's floats [columns]. Throws IoError.
  void read(int64_t row, float* to);

 private:
  std::string path_;
  SourceTensor matrix_;
  int descriptor_ = -1;
  std::vector<std::byte> blocks_;
};

}  // namespace cadre::engine
