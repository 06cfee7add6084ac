#include "cadre/base/heat_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "cadre/base/error.h"
#include "cadre/base/text.h"

namespace cadre {
namespace {

HeatMap small() {
  return {.title = "who does what",
          .row_labels = {"code", "bible"},
          .column_labels = {"e0", "e1", "e2"},
          .values = {0, 0.5, 1, NAN, 0.99, 0.05}};
}

TEST(HeatMap, PlainCells) {
  EXPECT_EQ(render(small(), CellStyle::kPlain),
            "who does what\n"
            "      e0  e2\n"
            "code    ++@@\n"
            "bible ??@@  \n");
}

TEST(HeatMap, ColoredCellsAreReset) {
  const std::string text = render(small(), CellStyle::kColor);
  EXPECT_THAT(text, testing::HasSubstr("code  \x1b[48;5;17m  \x1b[0m"));
  EXPECT_THAT(text, testing::HasSubstr("\x1b[48;5;226m  \x1b[0m\nbible ??\x1b["));
}

TEST(HeatMap, FixedEndsClampTheValues) {
  HeatMap map = small();
  map.low = 0.9;
  map.high = 0.95;
  EXPECT_THAT(render(map, CellStyle::kPlain), testing::HasSubstr("code      @@\nbible ??@@  \n"));
}

TEST(HeatMap, ManyColumnsFoldIntoBands) {
  HeatMap map = {.row_labels = {std::string(40, 'x')}};
  for (int i = 0; i < 100; ++i) {
    map.column_labels.push_back(std::to_string(i));
    map.values.push_back(i);
  }
  const std::string text = render(map, CellStyle::kPlain, 40);
  size_t begin = 0;
  size_t lines = 0;
  for (size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', begin)) {
    EXPECT_LE(display_width(text.substr(begin, end - begin)), 40U);
    begin = end + 1;
    ++lines;
  }
  EXPECT_EQ(lines, 2U * 4);  // 13 columns of label, a space, 26 cells: four bands
}

TEST(HeatMap, DegenerateMaps) {
  HeatMap flat = small();
  flat.values.assign(6, 3.0);
  EXPECT_THAT(render(flat, CellStyle::kPlain), testing::HasSubstr("code        \n"));
  flat.values.assign(6, NAN);
  EXPECT_THAT(render(flat, CellStyle::kPlain), testing::HasSubstr("code  ??????\n"));
  EXPECT_THROW(render({}, CellStyle::kPlain), UsageError);
  flat.values.pop_back();
  EXPECT_THROW(render(flat, CellStyle::kPlain), UsageError);
}

}  // namespace
}  // namespace cadre
