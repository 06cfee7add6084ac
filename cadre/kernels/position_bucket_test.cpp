#include "cadre/kernels/position_bucket.h"

#include <gtest/gtest.h>

namespace cadre::kernels {
namespace {

/// The values of T5's own table for 32 buckets and a distance of 128.
TEST(PositionBucket, IsT5s) {
  EXPECT_EQ(position_bucket(0, 32, 128, true), 0);
  EXPECT_EQ(position_bucket(-7, 32, 128, true), 7);
  EXPECT_EQ(position_bucket(7, 32, 128, true), 23);
  EXPECT_EQ(position_bucket(-8, 32, 128, true), 8);
  EXPECT_EQ(position_bucket(-127, 32, 128, true), 15);
  EXPECT_EQ(position_bucket(1000, 32, 128, true), 31);
  EXPECT_EQ(position_bucket(-15, 32, 128, false), 15);
  EXPECT_EQ(position_bucket(-16, 32, 128, false), 16);
  EXPECT_EQ(position_bucket(-1000, 32, 128, false), 31);
  EXPECT_EQ(position_bucket(5, 32, 128, false), 0) << "the future";
}

}  // namespace
}  // namespace cadre::kernels
