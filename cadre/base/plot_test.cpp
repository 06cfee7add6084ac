#include "cadre/base/plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "cadre/base/error.h"

namespace cadre {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;

std::string content(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

class Plot : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::path(testing::TempDir()) / "cadre plot's XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    directory_ = name;
  }
  void TearDown() override { fs::remove_all(directory_); }

  size_t files() const {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(directory_), fs::directory_iterator()));
  }

  const LineChart chart_ = {.title = "loss",
                            .x_label = "step",
                            .y_label = "nats",
                            .series = {{.name = "moe", .x = {1, 2, 3}, .y = {3, NAN, 1}},
                                       {.name = "dense", .x = {1, 2, 3}, .y = {4, 3, 2}},
                                       {.name = "one", .x = {2}, .y = {2}}}};
  fs::path directory_;
};

TEST_F(Plot, LineChartAsSvgAndPng) {
  write_plot(chart_, directory_ / "loss.svg");
  const std::string svg = content(directory_ / "loss.svg");
  EXPECT_THAT(svg, StartsWith("<?xml"));
  EXPECT_THAT(svg, HasSubstr("dense"));
  EXPECT_THAT(svg, HasSubstr("</svg>"));
  write_plot(chart_, directory_ / "loss.png");
  EXPECT_THAT(content(directory_ / "loss.png"), StartsWith("\x89PNG"));
  EXPECT_EQ(files(), 2U);
}

TEST_F(Plot, LogarithmicAxesLeaveOutWhatHasNoLogarithm) {
  LineChart chart = chart_;
  chart.x_scale = chart.y_scale = Scale::kLogarithmic;
  chart.series[0].y[0] = 0;
  write_plot(chart, directory_ / "log.svg");
  EXPECT_THAT(content(directory_ / "log.svg"), HasSubstr("</svg>"));
}

TEST_F(Plot, HeatMapKeepsItsLabels) {
  HeatMap map = {.title = "experts",
                 .row_labels = {"code", "bible"},
                 .column_labels = {"e0", "e1", "e2"},
                 .values = {0, 1, 2, NAN, 4, 5},
                 .x_label = "expert",
                 .y_label = "domain"};
  write_plot(map, directory_ / "map.svg");
  const std::string svg = content(directory_ / "map.svg");
  for (const auto* label : {"experts", "code", "bible", "e2", "domain"}) {
    EXPECT_THAT(svg, HasSubstr(label));
  }
  map.values.assign(6, 1.0);
  write_plot(map, directory_ / "map.png");
  EXPECT_THAT(content(directory_ / "map.png"), StartsWith("\x89PNG"));
  map = {.row_labels = {"r"}, .column_labels = {"c"}, .values = {NAN}};
  write_plot(map, directory_ / "one.svg");
  EXPECT_EQ(files(), 3U);
}

TEST_F(Plot, HostileLabelsAreDrawnNotRun) {
  LineChart chart = chart_;
  const std::string victim = (directory_ / "victim").string();
  const std::string hostile = "it's `touch " + victim + "` $(x) \"; system('touch " + victim +
                              "') \\ @m {/Bold b}_^ <script>&\nEND\nset output 'elsewhere'\xff";
  chart.title = chart.x_label = chart.series[0].name = hostile;
  write_plot(chart, directory_ / "chart.svg");
  const std::string svg = content(directory_ / "chart.svg");
  EXPECT_THAT(svg, HasSubstr("{/Bold b}_^"));
  EXPECT_THAT(svg, HasSubstr("&lt;script>&amp;"));
  HeatMap map = {.title = hostile,
                 .row_labels = {hostile},
                 .column_labels = {hostile},
                 .values = {1},
                 .x_label = hostile};
  write_plot(map, directory_ / "map.svg");
  EXPECT_EQ(files(), 2U);
}

TEST_F(Plot, ImpossibleRequests) {
  EXPECT_THROW(write_plot(chart_, directory_ / "loss.gif"), UsageError);
  EXPECT_THROW(write_plot(chart_, directory_ / "missing" / "loss.svg"), IoError);
  EXPECT_THROW(write_plot(LineChart{}, directory_ / "a.svg"), UsageError);
  EXPECT_THROW(write_plot({.series = {{.x = {1, 2}, .y = {1}}}}, directory_ / "a.svg"), UsageError);
  EXPECT_THROW(write_plot({.series = {{.x = {1}, .y = {NAN}}}}, directory_ / "a.svg"), UsageError);
  EXPECT_THROW(write_plot(HeatMap{}, directory_ / "a.svg"), UsageError);
  EXPECT_EQ(files(), 0U);
}

// A directory of this name makes the last step fail.
TEST_F(Plot, NothingIsLeftBehindWhenTheFileCannotBeWritten) {
  fs::create_directory(directory_ / "loss.svg");
  EXPECT_THROW(write_plot(chart_, directory_ / "loss.svg"), IoError);
  EXPECT_EQ(files(), 1U);
}

TEST_F(Plot, SaysThatGnuplotIsMissingOrWhatItSaid) {
  const std::string path = std::getenv("PATH");
  setenv("PATH", directory_.c_str(), 1);
  try {
    write_plot(chart_, directory_ / "loss.svg");
    ADD_FAILURE() << "drew without gnuplot";
  } catch (const IoError& error) {
    EXPECT_THAT(error.what(), HasSubstr("install the package gnuplot-nox"));
  }
  {
    std::ofstream(directory_ / "gnuplot") << "#!/bin/sh\necho 'no fonts' >&2\nexit 3\n";
    fs::permissions(directory_ / "gnuplot", fs::perms::owner_all);
  }
  try {
    write_plot(chart_, directory_ / "loss.svg");
    ADD_FAILURE() << "drew with a broken gnuplot";
  } catch (const IoError& error) {
    EXPECT_THAT(error.what(), HasSubstr("gnuplot failed: no fonts"));
  }
  setenv("PATH", path.c_str(), 1);
}

}  // namespace
}  // namespace cadre
