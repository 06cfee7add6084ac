#pragma once

/// Rows of activations: floats, and the 8-bit form that quantised weights multiply.

#include <cstdint>
#include <vector>

#include "cadre/kernels/panel_ffn.h"

namespace cadre::engine {

/// Whether the rows' floats are kept: only float weights multiply them.
enum class Floats { kKeep, kDrop };

class Activations {
 public:
  /// Room for [rows, columns]; what it held is lost. Memory is kept for the next use.
  void resize(int64_t rows, int64_t columns, Floats floats = Floats::kKeep);

  float* row(int64_t row) { return values_.data() + row * columns_; }
  int64_t columns() const { return columns_; }
  /// Makes the 8-bit form of rows [first, last) from their floats. Does nothing where columns are
  /// no multiple of 32: only float weights have such.
  void quantize(int64_t first, int64_t last);
  /// Keeps floats from now on, too.
  void keep_floats();
  /// Where another computation writes rows from `first` on: floats (which must be kept), or the
  /// 8-bit form.
  kernels::InnerActivations inner_floats(int64_t first);
  kernels::InnerActivations inner_bytes(int64_t first);

  /// From row `first` on; `rows` picks among them (null: in order).
  kernels::QuantizedActivations view(int64_t first = 0, const int32_t* rows = nullptr) const;

 private:
  int64_t rows_ = 0, columns_ = 0;
  Floats floats_ = Floats::kKeep;
  std::vector<float> values_, scales_;
  std::vector<int8_t> q_;
  std::vector<int16_t> sums_;
};

}  // namespace cadre::engine
