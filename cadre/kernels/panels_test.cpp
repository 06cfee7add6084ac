#include "cadre/kernels/panels.h"

#include <bit>
#include <limits>

#include "cadre/base/error.h"
#include "cadre/kernels/panels_test_kit.h"

namespace cadre::kernels {
namespace {

TEST_P(PanelsOf, ReferenceIsTheProductOfDecodedWeights) {
  const BlockType type = GetParam();
  const int64_t columns = columns_of(type, 2);
  for (const int64_t rows : {1, 16, 37}) {
    const TestWeights w(type, rows, columns, 3 * rows);
    const TestActivations x(5, columns, rows);
    const Floats y = x.product(w, 0, w.panels(), panel_matmul_reference);
    const Floats decoded = w.decoded();
    for (int64_t t = 0; t < 5; ++t) {
      for (int64_t r = 0; r < rows; ++r) {
        double want = 0, size = 0;
        for (int64_t c = 0; c < columns; ++c) {
          const double term = static_cast<double>(decoded[r * columns + c]) * x.value(type, t, c);
          want += term;
          size += std::abs(term);
        }
        // A float sum of as many terms as the format has a row; minima cancel, hence the sum of
        // magnitudes.
        ASSERT_NEAR(y[t * rows + r], want, 2e-6 * size + 1e-30) << "token " << t << " row " << r;
      }
    }
  }
}

}  // namespace
}  // namespace cadre::kernels
