#include "cadre/formats/data_sets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
#include "cadre/formats/test_folder.h"

namespace cadre {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// Environment variables that point into a folder of the test's own.
class DataSets : public testing::Test {
 protected:
  DataSets() {
    ::setenv("CADRE_DATA", (folder_ / "data").c_str(), 1);
    ::setenv("CADRE_SHARED_DATA", (folder_ / "shared").c_str(), 1);
  }
  ~DataSets() override {
    ::unsetenv("CADRE_DATA");
    ::unsetenv("CADRE_SHARED_DATA");
  }
  fs::path put(const std::string& path) const {
    fs::create_directories((folder_ / path).parent_path());
    write_file(folder_ / path, path);
    return (folder_ / path).parent_path();
  }

  TestFolder folder_;
  const DataSet set_{.name = "letters",
                     .help = "",
                     .licence = "",
                     .origin = DebianOrigin{"no-such-package", "no/such/folder"},
                     .files = {"a.txt", "b.txt"},
                     .shared = "abc"};
};

TEST_F(DataSets, AreFoundWhereAllTheirFilesAre) {
  EXPECT_FALSE(find_data(set_));
  put("shared/abc/a.txt");
  EXPECT_FALSE(find_data(set_));  // half of it
  const auto shared = put("shared/abc/b.txt");
  EXPECT_EQ(find_data(set_), shared);
  put("data/letters/a.txt");
  const auto fetched = put("data/letters/b.txt");
  EXPECT_EQ(find_data(set_), fetched);
  put("mine/a.txt");
  const auto given = put("mine/b.txt");
  EXPECT_EQ(find_data(set_, given), given);
  put("mine/letters/a.txt");
  const auto named = put("mine/letters/b.txt");
  EXPECT_EQ(find_data(set_, given), named);
  EXPECT_EQ(read_data(set_, "b.txt", given), "mine/letters/b.txt");
}

TEST_F(DataSets, OneThatIsMissingSaysHowToGetIt) {
  try {
    read_data(set_, "a.txt");
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("cadre data get letters"));
    EXPECT_THAT(error.what(), HasSubstr("no-such-package"));
  }
  EXPECT_EQ(data_set_named("digits").files.size(), 1);
  EXPECT_THROW(data_set_named("digit"), UsageError);
}

}  // namespace
}  // namespace cadre
