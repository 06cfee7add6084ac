#pragma once

/// Classification: rows of numbers with a label each.

#include <torch/torch.h>

#include <cstdint>
#include <filesystem>
#include <utility>

namespace cadre {

struct LabelledRows {
  torch::Tensor x;  ///< [N, F]
  torch::Tensor y;  ///< [N] int64, 0 to classes - 1
  int64_t classes = 0;

  int64_t size() const { return y.size(0); }
  /// The rows of these indices [n] int64.
  LabelledRows at(const torch::Tensor& rows) const;
};

/// UCI handwritten digits: 1797 rows of 8x8 pixels in 0 ... 1, 10 classes. `data`: where to look
/// first (cadre/formats/data_sets.h). Throws UsageError when the set is nowhere, FormatError when
/// it is another file.
LabelledRows load_digits(const std::filesystem::path& data = {});

/// Fashion-MNIST, or whatever has its files: images as rows of pixels in 0 ... 1.
struct TrainAndTest {
  LabelledRows train, test;
};
TrainAndTest load_fashion_mnist(const std::filesystem::path& data = {});

/// `train` rows drawn by seed, the others for the test. Throws UsageError when there are not more.
TrainAndTest split_rows(const LabelledRows& rows, int64_t train, uint64_t seed);

/// The order of epoch `epoch`: [n] int64, a permutation that is a pure function of seed and epoch.
torch::Tensor shuffled(int64_t n, uint64_t seed, uint64_t epoch);

/// The same rows with a share of the labels drawn anew from all classes (some stay the same).
LabelledRows with_label_noise(const LabelledRows& rows, double share, uint64_t seed);

}  // namespace cadre
