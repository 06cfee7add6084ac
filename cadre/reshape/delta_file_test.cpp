#include "cadre/reshape/delta_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/base/random.h"
#include "cadre/formats/test_folder.h"
#include "cadre/reshape/ternary_code.h"

namespace cadre::reshape {
namespace {

std::vector<float> normals(int64_t size, uint64_t seed) {
  Random random(seed);
  std::vector<float> values(size);
  for (float& v : values) v = random.normal();
  return values;
}

FlatReader reader_of(const std::vector<float>& values) {
  return [&values](int64_t first, std::span<float> out) {
    std::copy_n(values.begin() + first, out.size(), out.begin());
  };
}

/// Without waiting for the disk, as cadre's own writers do.
void write_quickly(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

DeltaHeader header(std::vector<DeltaTensor> tensors, const TernaryOptions& options) {
  return {.tensors = std::move(tensors), .base = "0123", .options = options};
}

TEST(TernaryCode, DecodesWhatItEncoded) {
  for (const int64_t size : {int64_t{1}, int64_t{5}, int64_t{64}, int64_t{1000}, kTernaryBlock}) {
    for (const double density : {0.0, 0.0001, 0.01, 0.05, 0.2, 0.4, 0.5, 0.7, 0.99, 1.0}) {
      Random random(size, {static_cast<uint64_t>(density * 10000)});
      std::vector<uint64_t> plus(kTernaryWords), minus(kTernaryWords), p(plus), m(minus);
      int64_t kept = 0;
      for (int64_t i = 0; i < size; ++i) {
        if (random.uniform() >= density) continue;
        (random.below(2) == 0 ? plus : minus)[i / 64] |= uint64_t{1} << (i % 64);
        ++kept;
      }
      const auto bytes = encode_ternary(plus.data(), minus.data(), size);
      EXPECT_LE(bytes.size(), static_cast<size_t>(1 + (size + 7) / 8 * 2));
      decode_ternary(bytes, kept, size, p.data(), m.data(), "block");
      EXPECT_EQ(p, plus) << size << ' ' << density;
      EXPECT_EQ(m, minus) << size << ' ' << density;
    }
  }
}

TEST(TernaryCode, RefusesOtherBytes) {
  std::vector<uint64_t> plus(kTernaryWords), minus(kTernaryWords), p(plus), m(minus);
  for (int i = 0; i < 1000; i += 7) plus[i / 64] |= uint64_t{1} << (i % 64);
  auto bytes = encode_ternary(plus.data(), minus.data(), 1000);
  const auto decode = [&](const std::vector<std::byte>& b, int64_t kept, int64_t size) {
    decode_ternary(b, kept, size, p.data(), m.data(), "block");
  };
  EXPECT_NO_THROW(decode(bytes, 143, 1000));
  EXPECT_THROW(decode(bytes, 143, 900), FormatError);   // a gap leads beyond
  EXPECT_THROW(decode(bytes, 100, 1000), FormatError);  // too few
  EXPECT_THROW(decode(bytes, 1000, 1000), FormatError);
  auto longer = bytes;
  longer.push_back(std::byte{});
  EXPECT_THROW(decode(longer, 143, 1000), FormatError);
  EXPECT_THROW(decode({}, 0, 10), FormatError);
  bytes[0] = std::byte{16};
  EXPECT_THROW(decode(bytes, 143, 1000), FormatError);
}

TEST(DeltaFile, HoldsTheTernaryVectorBitForBit) {
  const TestFolder folder;
  const int64_t size = 3 * kTernaryBlock + 777;
  auto values = normals(size, 3);
  for (int64_t i = 0; i < size; i += 3) values[i] = 1.5F;  // ties across blocks
  for (const double density : {0.05, 0.4, 0.8}) {
    const TernaryOptions options{.density = density, .alpha = 2};
    const DeltaHeader written =
        write_delta(folder / "d", header({{"a", {size}}}, options), reader_of(values));
    const DeltaReader reader(folder / "d");
    const TernaryVector expected = ternarize(values, options), read = reader.ternary();
    EXPECT_EQ(read.plus, expected.plus);
    EXPECT_EQ(read.minus, expected.minus);
    EXPECT_EQ(read.scale, expected.scale);
    EXPECT_EQ(written.scale, expected.scale);
    EXPECT_EQ(reader.kept(), expected.kept());
    EXPECT_EQ(reader.header().base, "0123");
  }
}

TEST(DeltaFile, SizeIsWithinOnePercentOfTheory) {
  const TestFolder folder;
  const int64_t size = 1 << 20;
  const auto values = normals(size, 4);
  for (const double density : {0.05, 0.1, 0.2, 0.3, 0.5}) {
    write_delta(folder / "d", header({{"a", {size}}}, {.density = density}), reader_of(values));
    const double bits = 8.0 * DeltaReader(folder / "d").bytes() / size;
    EXPECT_LT(bits, 1.01 * golomb_bits(density)) << density;
  }
  // Above a half the zeros' places are coded: theirs, and every survivor's sign.
  write_delta(folder / "d", header({{"a", {size}}}, {.density = 0.9}), reader_of(values));
  const double bits = 8.0 * DeltaReader(folder / "d").bytes() / size;
  EXPECT_LT(bits, 1.01 * (golomb_bits(0.1) - 0.1 + 0.9));
}

TEST(DeltaFile, OneTensorAlone) {
  const TestFolder folder;
  const int64_t size = 2 * kTernaryBlock + 100;
  const auto values = normals(size, 6);
  const std::vector<DeltaTensor> tensors = {
      {"first", {7, 11}}, {"second", {kTernaryBlock}}, {"third", {size - kTernaryBlock - 77}}};
  write_delta(folder / "d", header(tensors, {}), reader_of(values));
  const DeltaReader reader(folder / "d");
  const TernaryVector all = reader.ternary();
  for (const auto& tensor : reader.header().tensors) {
    const TernaryVector part = reader.ternary(reader.tensor(tensor.name));
    std::vector<float> expected(all.size), found(part.size), added(part.size, 1);
    expand(all.plus.data(), all.minus.data(), all.scale, expected);
    expand(part.plus.data(), part.minus.data(), part.scale, found);
    EXPECT_TRUE(std::equal(found.begin(), found.end(), expected.begin() + tensor.first));
    reader.add_to(tensor.first, 2, added);
    for (int64_t i = 0; i < part.size; ++i) EXPECT_EQ(added[i], 1 + 2 * found[i]);
  }
  EXPECT_THROW(reader.tensor("fourth"), UsageError);
}

TEST(DeltaFile, SameBytesWhateverTheThreads) {
  const TestFolder folder;
  const auto values = normals(400000, 8);
  const int before = num_threads();
  for (const int threads : {1, 3}) {
    set_num_threads(threads);
    write_delta(folder / std::to_string(threads), header({{"a", {400000}}}, {}), reader_of(values));
  }
  set_num_threads(before);
  EXPECT_EQ(read_file(folder / "1"), read_file(folder / "3"));
}

TEST(DeltaFile, EveryFlippedByteIsNoticed) {
  const TestFolder folder;
  const auto values = normals(3000, 9);
  write_delta(folder / "d", header({{"a", {3000}}}, {.density = 0.1}), reader_of(values));
  const std::string good = read_file(folder / "d");
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x10);
    write_quickly(folder / "bad", bad);
    EXPECT_THROW(DeltaReader(folder / "bad").ternary(), FormatError) << i;
    if (i % 97 != 0) continue;
    write_quickly(folder / "bad", good.substr(0, i));
    EXPECT_THROW(DeltaReader(folder / "bad").ternary(), FormatError) << i;
  }
  write_quickly(folder / "bad", good + "x");
  EXPECT_THROW(DeltaReader(folder / "bad"), FormatError);
}

TEST(DeltaFile, RefusesImpossibleHeaders) {
  const TestFolder folder;
  const auto values = normals(10, 1);
  const auto write = [&](std::vector<DeltaTensor> tensors) {
    write_delta(folder / "d", header(std::move(tensors), {}), reader_of(values));
  };
  EXPECT_THROW(write({}), UsageError);
  EXPECT_THROW(write({{"a", {5}}, {"a", {5}}}), UsageError);
  EXPECT_THROW(write({{"a\xff", {10}}}), UsageError);
  EXPECT_FALSE(std::filesystem::exists(folder / "d"));
  EXPECT_THROW(DeltaReader(folder / "missing"), IoError);
}

}  // namespace
}  // namespace cadre::reshape
