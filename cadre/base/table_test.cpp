#include "cadre/base/table.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"

namespace cadre {
namespace {

TEST(Table, AlignsTextLeftAndNumbersRight) {
  Table table({"domain", "loss", "note"});
  table.add_row({"code", "1.25", "good"}).add_row({"bible", "-12.5", "x"}).add_row({"naïve 漢"});
  EXPECT_EQ(table.str(),
            "domain     loss  note\n"
            "code       1.25  good\n"
            "bible     -12.5  x\n"
            "naïve 漢\n");
}

TEST(Table, MarkdownKeepsPipesInCells) {
  Table table({"name", "loss"});
  table.add_row({"a|b", "1"});
  EXPECT_EQ(table.markdown(),
            "| name | loss |\n"
            "|---|---:|\n"
            "| a\\|b | 1 |\n");
}

TEST(Table, HostileCellsStayInTheirRow) {
  Table table({"name"});
  table.add_row({"a\nb\x1b[31m\xff"});
  EXPECT_EQ(table.str(), "name\na b [31m\uFFFD\n");
}

TEST(Table, EmptyAndOverfullTables) {
  EXPECT_EQ(Table({"a", "b"}).str(), "a  b\n");
  EXPECT_THROW(Table({"a"}).add_row({"1", "2"}), UsageError);
}

}  // namespace
}  // namespace cadre
