#include "cadre/formats/gzip.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <random>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
#include "cadre/formats/test_folder.h"

namespace cadre {
namespace {

std::string packed(const std::string& text) {
  const TestFolder folder;
  gzFile file = gzopen((folder / "x.gz").c_str(), "wb");
  gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);
  return read_file(folder / "x.gz");
}

std::string random_text(size_t size) {
  std::mt19937 random(3);
  std::string text(size, ' ');
  for (char& c : text) c = static_cast<char>('a' + random() % 20);
  return text;
}

TEST(Gunzip, RoundTrips) {
  for (const size_t size : {0u, 1u, 65536u, 300000u}) {
    const std::string text = random_text(size);
    EXPECT_EQ(gunzip(packed(text), "x", 1 << 20), text);
  }
  EXPECT_EQ(gunzip(packed("one ") + packed("two"), "x", 100), "one two") << "two members";
}

TEST(Gunzip, StopsAtTheLimit) {
  const std::string bomb = packed(std::string(20'000'000, 'x'));
  EXPECT_LT(bomb.size(), 30000u);
  EXPECT_EQ(gunzip(bomb, "x", 1000), std::string(1000, 'x'));
  EXPECT_EQ(gunzip(bomb, "x", 0), "");
}

TEST(Gunzip, EveryTruncationIsAnError) {
  const std::string good = packed(random_text(500));
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_THROW(gunzip(good.substr(0, size), "x", 1 << 20), FormatError) << size;
  }
}

TEST(Gunzip, FlippedBitsAreAnErrorOrText) {
  const std::string good = packed(random_text(500));
  std::mt19937 random(5);
  for (int round = 0; round < 1000; ++round) {
    std::string bad = good;
    bad[random() % bad.size()] ^= static_cast<char>(1 << (random() % 8));
    try {
      EXPECT_LE(gunzip(bad, "x", 1000).size(), 1000u);
    } catch (const FormatError&) {
    }
  }
}

}  // namespace
}  // namespace cadre
