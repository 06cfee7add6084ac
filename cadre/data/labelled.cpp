#include "cadre/data/labelled.h"

#include <string>
#include <vector>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/data/permutation.h"
#include "cadre/formats/csv.h"
#include "cadre/formats/data_sets.h"
#include "cadre/formats/idx.h"

namespace cadre {
namespace {

constexpr int64_t kTenClasses = 10;

enum Stream : uint64_t { kSplit = 1, kShuffle = 2, kNoise = 3 };

torch::Tensor permutation(int64_t n, uint64_t seed, std::initializer_list<uint64_t> keys) {
  const Permutation place(n, seed, keys);
  auto order = torch::empty({n}, torch::kInt64);
  for (int64_t i = 0; i < n; ++i) order.data_ptr<int64_t>()[i] = place(i);
  return order;
}

void check_labels(const LabelledRows& rows, const std::string& where) {
  const bool fit = rows.size() > 0 && rows.y.min().item<int64_t>() >= 0 &&
                   rows.y.max().item<int64_t>() < rows.classes;
  if (!fit) throw FormatError("{}: labels must be 0 to {}", where, rows.classes - 1);
}

LabelledRows read_images(const DataSet& set, const std::string& part,
                         const std::filesystem::path& data) {
  const std::string image_file = part + "-images-idx3-ubyte.gz";
  const std::string label_file = part + "-labels-idx1-ubyte.gz";
  IdxBytes images = parse_idx(read_data(set, image_file, data), image_file);
  IdxBytes labels = parse_idx(read_data(set, label_file, data), label_file);
  if (images.sizes.size() != 3 || labels.sizes.size() != 1 || images.sizes[0] != labels.sizes[0]) {
    throw FormatError("{} and {} are not images and their labels", image_file, label_file);
  }
  constexpr double kWhite = 255;
  const auto bytes = torch::TensorOptions(torch::kUInt8);
  LabelledRows rows{
      torch::from_blob(images.values.data(), {images.sizes[0], images.sizes[1] * images.sizes[2]},
                       bytes)
              .to(torch::kFloat32) /
          kWhite,
      torch::from_blob(labels.values.data(), {labels.sizes[0]}, bytes).to(torch::kInt64),
      kTenClasses};
  check_labels(rows, label_file);
  return rows;
}

}  // namespace

LabelledRows LabelledRows::at(const torch::Tensor& rows) const {
  return {x.index_select(0, rows), y.index_select(0, rows), classes};
}

LabelledRows load_digits(const std::filesystem::path& data) {
  constexpr int64_t kPixels = 64;
  constexpr double kInk = 16;  // pixels count inked cells of a 4x4 block
  const std::string file = "digits.csv.gz";
  NumberTable table = parse_numbers(read_data(data_set_named("digits"), file, data), file);
  if (table.columns != kPixels + 1) {
    throw FormatError("{}: {} columns, 64 pixels and a label are expected", file, table.columns);
  }
  const auto all =
      torch::from_blob(table.values.data(), {table.rows, table.columns}, torch::kFloat32);
  LabelledRows rows{(all.narrow(1, 0, kPixels) / kInk).contiguous(),
                    all.select(1, kPixels).to(torch::kInt64), kTenClasses};
  check_labels(rows, file);
  return rows;
}

TrainAndTest load_fashion_mnist(const std::filesystem::path& data) {
  const DataSet& set = data_set_named("fashion-mnist");
  return {read_images(set, "train", data), read_images(set, "t10k", data)};
}

TrainAndTest split_rows(const LabelledRows& rows, int64_t train, uint64_t seed) {
  if (train < 1 || train >= rows.size()) {
    throw UsageError("cannot take {} training rows of {} and leave some to test on", train,
                     rows.size());
  }
  const auto order = permutation(rows.size(), seed, {kSplit});
  return {rows.at(order.narrow(0, 0, train)), rows.at(order.narrow(0, train, rows.size() - train))};
}

torch::Tensor shuffled(int64_t n, uint64_t seed, uint64_t epoch) {
  return permutation(n, seed, {kShuffle, epoch});
}

LabelledRows with_label_noise(const LabelledRows& rows, double share, uint64_t seed) {
  Random random(seed, {kNoise});
  auto y = rows.y.clone();
  int64_t* label = y.data_ptr<int64_t>();
  for (int64_t i = 0; i < rows.size(); ++i) {
    const bool redraw = random.uniform() < share;
    const auto drawn = static_cast<int64_t>(random.below(rows.classes));
    if (redraw) label[i] = drawn;
  }
  return {rows.x, y, rows.classes};
}

}  // namespace cadre
