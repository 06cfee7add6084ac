#include "cadre/formats/csv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cadre/base/error.h"

namespace cadre {
namespace {

using testing::ElementsAre;

TEST(Csv, ReadsRowsOfNumbers) {
  const NumberTable table = parse_numbers("1,2.5,-3e2\r\n\n 4 ,5, 6\n", "t");
  EXPECT_EQ(table.rows, 2);
  EXPECT_EQ(table.columns, 3);
  EXPECT_THAT(table.values, ElementsAre(1, 2.5, -300, 4, 5, 6));
}

TEST(Csv, RefusesWhatIsNoTable) {
  for (const char* text : {"", "\n\n", "1,2\n3", "1,x", "1,,2", "1,2,", "\xff", "1e999"}) {
    EXPECT_THROW(parse_numbers(text, "t"), FormatError) << text;
  }
  try {
    parse_numbers("1,2\n3,a\"b\n", "file.csv");
    FAIL();
  } catch (const FormatError& error) {
    EXPECT_STREQ(error.what(), "file.csv line 2: \"a\\\"b\" is not a number");
  }
}

}  // namespace
}  // namespace cadre
