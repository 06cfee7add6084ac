#include "cadre/training/metrics_log.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
#include "cadre/formats/test_folder.h"

namespace cadre {
namespace {

class MetricsLogTest : public testing::Test {
 protected:
  std::filesystem::path path() const { return folder_ / "metrics.jsonl"; }
  TestFolder folder_;
};

TEST_F(MetricsLogTest, AppendsLines) {
  {
    MetricsLog log(path(), 0);
    log.append({{"step", 1}, {"loss", 2.5}});
    log.append({{"step", 2}});
    log.sync();
    EXPECT_EQ(read_file(path()), "{\"loss\":2.5,\"step\":1}\n{\"step\":2}\n");
  }
  MetricsLog(path(), 2).append({{"step", 3}});
  EXPECT_EQ(read_file(path()), "{\"loss\":2.5,\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
}

TEST_F(MetricsLogTest, DropsWhatCameAfterTheState) {
  write_file(path(), "{\"step\":1}\n{\"step\":2}\nrubbish\n\n[1]\n{\"step\":3}\n{\"step\":1,\"x");
  MetricsLog(path(), 2);
  EXPECT_EQ(read_file(path()), "{\"step\":1}\n{\"step\":2}\n");
}

TEST_F(MetricsLogTest, AFreshRunStartsEmpty) {
  write_file(path(), "{\"step\":1}\n");
  MetricsLog(path(), 0);
  EXPECT_EQ(read_file(path()), "");
}

TEST_F(MetricsLogTest, SaysWhyItCannotWrite) {
  EXPECT_THROW(MetricsLog(folder_ / "no" / "such", 0), IoError);
}

}  // namespace
}  // namespace cadre
