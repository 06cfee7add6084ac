#include "cadre/base/units.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cadre/base/error.h"

namespace cadre {
namespace {

TEST(Units, ParsesBytes) {
  EXPECT_EQ(parse_bytes("0"), 0U);
  EXPECT_EQ(parse_bytes("4096"), 4096U);
  EXPECT_EQ(parse_bytes("2GiB"), uint64_t{2} << 30);
  EXPECT_EQ(parse_bytes(" 1.5 gib "), uint64_t{3} << 29);
  EXPECT_EQ(parse_bytes("2GB"), 2000000000U);
  EXPECT_EQ(parse_bytes("16k"), 16384U);
  EXPECT_EQ(parse_bytes("7 B"), 7U);
}

TEST(Units, RefusesWhatIsNoSize) {
  for (const auto* text : {"", " ", "GiB", "-1", "-0", "nan", "inf", "2XB", "2 GiB 3", "1.5",
                           "1e30", "2G iB", "0x10", "\xff", "20000000TiB"}) {
    EXPECT_THROW(parse_bytes(text), UsageError) << text;
  }
}

TEST(Units, FormatsBytes) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(512), "512 B");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_bytes(uint64_t{2} << 30), "2 GiB");
  EXPECT_EQ(format_bytes((uint64_t{1} << 20) - 1), "1 MiB");
  EXPECT_EQ(format_bytes(UINT64_MAX), "16 EiB");
}

TEST(Units, ParsesCounts) {
  EXPECT_EQ(parse_count("1000"), 1000);
  EXPECT_EQ(parse_count("1.4M"), 1400000);
  EXPECT_EQ(parse_count("12k"), 12000);
  EXPECT_EQ(parse_count("2e6"), 2000000);
  EXPECT_EQ(parse_count("7B"), 7000000000);
  for (const auto* text : {"", "k", "1.5", "1.23456k", "-3", "1e19", "3 x", "1k2"}) {
    EXPECT_THROW(parse_count(text), UsageError) << text;
  }
}

TEST(Units, FormatsCounts) {
  EXPECT_EQ(format_count(7), "7");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(999.9), "1k");
  EXPECT_EQ(format_count(12345), "12.3k");
  EXPECT_EQ(format_count(1.4e6), "1.4M");
  EXPECT_EQ(format_count(999.96e3), "1M");
  EXPECT_EQ(format_count(0.5), "0.5");
  EXPECT_EQ(format_count(-1500), "-1.5k");
  EXPECT_EQ(format_count(NAN), "?");
  EXPECT_EQ(format_count(3e18), "3000000T");
}

TEST(Units, ParsesDurations) {
  EXPECT_DOUBLE_EQ(parse_duration("90"), 90);
  EXPECT_DOUBLE_EQ(parse_duration("3 min 20 s"), 200);
  EXPECT_DOUBLE_EQ(parse_duration("1h30m"), 5400);
  EXPECT_DOUBLE_EQ(parse_duration("250ms"), 0.25);
  EXPECT_DOUBLE_EQ(parse_duration("1.5 d"), 129600);
  for (const auto* text : {"", "s", "-1s", "3 parsecs", "1h-3m", "inf"}) {
    EXPECT_THROW(parse_duration(text), UsageError) << text;
  }
}

TEST(Units, FormatsDurations) {
  EXPECT_EQ(format_duration(0), "0 ms");
  EXPECT_EQ(format_duration(0.12), "120 ms");
  EXPECT_EQ(format_duration(4.2), "4.2 s");
  EXPECT_EQ(format_duration(59.6), "1 min 0 s");
  EXPECT_EQ(format_duration(200), "3 min 20 s");
  EXPECT_EQ(format_duration(7500), "2 h 5 min");
  EXPECT_EQ(format_duration(273600), "3 d 4 h");
  EXPECT_EQ(format_duration(-1), "?");
  EXPECT_EQ(format_duration(INFINITY), "?");
}

TEST(Units, DurationsRoundTrip) {
  for (const double seconds : {0.25, 3.5, 20.0, 61.0, 200.0, 5400.0, 273600.0}) {
    EXPECT_DOUBLE_EQ(parse_duration(format_duration(seconds)), seconds);
  }
}

}  // namespace
}  // namespace cadre
