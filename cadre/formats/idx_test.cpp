#include "cadre/formats/idx.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cadre/base/error.h"

namespace cadre {
namespace {

using namespace std::string_literals;
using testing::ElementsAre;

const std::string kTwoByThree = "\0\0\x08\x02\0\0\0\x02\0\0\0\x03"s + "\x01\x02\x03\x04\x05\xff"s;

TEST(Idx, ReadsSizesAndBytes) {
  const IdxBytes idx = parse_idx(kTwoByThree, "t");
  EXPECT_THAT(idx.sizes, ElementsAre(2, 3));
  EXPECT_THAT(idx.values, ElementsAre(1, 2, 3, 4, 5, 255));
}

TEST(Idx, RefusesEveryTruncationAndOtherTypes) {
  for (size_t n = 0; n < kTwoByThree.size(); ++n) {
    EXPECT_THROW(parse_idx(std::string_view(kTwoByThree).substr(0, n), "t"), FormatError) << n;
  }
  EXPECT_THROW(parse_idx(kTwoByThree + "x", "t"), FormatError);
  EXPECT_THROW(parse_idx("\0\0\x0d\x01\0\0\0\x00"s, "t"), FormatError);
  EXPECT_THROW(parse_idx("\0\0\x08\x04"s + std::string(16, '\0'), "t"), FormatError);
  // Sizes whose product overflows.
  EXPECT_THROW(parse_idx("\0\0\x08\x03"s + std::string(12, '\xff'), "t"), FormatError);
}

}  // namespace
}  // namespace cadre
