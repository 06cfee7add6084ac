#include "cadre/data/labelled.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
#include "cadre/formats/test_folder.h"

namespace cadre {
namespace {

/// Row i holds i everywhere and has label i % 3.
LabelledRows counted(int64_t n) {
  const auto ids = torch::arange(n);
  return {ids.to(torch::kFloat32).unsqueeze(1).repeat({1, 2}), ids.remainder(3), 3};
}

TEST(Labelled, SplitsBySeedAndKeepsRowsWithTheirLabels) {
  const auto rows = counted(30);
  const auto [train, test] = split_rows(rows, 20, 1);
  EXPECT_EQ(train.size(), 20);
  EXPECT_EQ(test.size(), 10);
  const auto all = torch::cat({train.x, test.x}).select(1, 0);
  EXPECT_TRUE(torch::equal(std::get<0>(all.sort()), torch::arange(30).to(torch::kFloat32)));
  EXPECT_TRUE(torch::equal(train.x.select(1, 0).to(torch::kInt64).remainder(3), train.y));
  EXPECT_TRUE(torch::equal(train.x, split_rows(rows, 20, 1).train.x));
  EXPECT_FALSE(torch::equal(train.x, split_rows(rows, 20, 2).train.x));
  EXPECT_THROW(split_rows(rows, 30, 1), UsageError);
  EXPECT_THROW(split_rows(rows, 0, 1), UsageError);
}

TEST(Labelled, EveryEpochHasItsOrder) {
  EXPECT_TRUE(torch::equal(shuffled(50, 1, 2), shuffled(50, 1, 2)));
  EXPECT_FALSE(torch::equal(shuffled(50, 1, 2), shuffled(50, 1, 3)));
  EXPECT_TRUE(torch::equal(std::get<0>(shuffled(50, 1, 2).sort()), torch::arange(50)));
}

TEST(Labelled, NoiseRedrawsAShareOfTheLabels) {
  const auto rows = counted(3000);
  const auto noisy = with_label_noise(rows, 0.3, 1);
  const double changed = (noisy.y != rows.y).to(torch::kFloat64).mean().item<double>();
  EXPECT_NEAR(changed, 0.3 * 2 / 3, 0.03);
  EXPECT_TRUE(torch::equal(noisy.y, with_label_noise(rows, 0.3, 1).y));
  EXPECT_TRUE(torch::equal(with_label_noise(rows, 0, 1).y, rows.y));
}

TEST(Digits, AreReadAndCheckedFromAFolderOfTheUsers) {
  const TestFolder folder;
  const auto write = [&](const std::string& row) {
    const std::string file = folder / "digits.csv";
    write_file(file, row);
    ASSERT_EQ(std::system(("gzip -f " + file).c_str()), 0);
  };
  std::string row;
  for (int i = 0; i < 64; ++i) row += std::to_string(i % 17) + ",";
  write(row + "7\n" + row + "0\n");
  const auto digits = load_digits(folder.path());
  EXPECT_EQ(digits.x.sizes(), (std::vector<int64_t>{2, 64}));
  EXPECT_EQ(digits.x.max().item<float>(), 1);
  EXPECT_EQ(digits.y[0].item<int64_t>(), 7);
  write(row + "10\n");
  EXPECT_THROW(load_digits(folder.path()), FormatError);
  write("1,2\n");
  EXPECT_THROW(load_digits(folder.path()), FormatError);
}

}  // namespace
}  // namespace cadre
