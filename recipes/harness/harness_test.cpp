#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cmath>

#include "cadre/base/interrupt.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"
#include "cadre/formats/test_folder.h"
#include "recipes/harness/report.h"
#include "recipes/harness/test_recipe.h"

namespace cadre::recipes {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

class Harness : public testing::Test {
 protected:
  RunOptions options(const Setting& setting = {}) const {
    return {.setting = setting, .out = folder_ / "out"};
  }
  fs::path stored(const std::string& file) const { return folder_ / "out" / "runs" / file; }

  TestFolder folder_;
  const RecipeEntry entry_ = line_entry();
};

TEST_F(Harness, RunsEveryArmWithEverySeedAndJudges) {
  const Outcome outcome = run_recipe(entry_, options());
  EXPECT_TRUE(outcome.passed);
  EXPECT_THAT(outcome.results.seeds(), ElementsAre(1, 2, 3));
  EXPECT_THAT(outcome.results.runs(), SizeIs(6));
  EXPECT_THAT(outcome.checks, SizeIs(1));
  EXPECT_THAT(outcome.checks[0].values, SizeIs(3));
  EXPECT_TRUE(fs::exists(folder_ / "out" / "error.svg"));
}

TEST_F(Harness, ASabotagedIdeaFailsTheCriterion) {
  const Outcome outcome = run_recipe(entry_, options({Size::kSmoke, Idea::kStub}));
  EXPECT_FALSE(outcome.passed);
  EXPECT_THAT(outcome.results.seeds(), ElementsAre(1));
  EXPECT_THAT(outcome_text(entry_, outcome, Markup::kPlain),
              HasSubstr("FAILS (sabotaged: no step is taken)"));
}

TEST_F(Harness, FinishedRunsAreNotRunAgain) {
  int calls = 0;
  RecipeEntry counted = entry_;
  counted.make = [&](const Setting& setting) {
    Recipe recipe = line_recipe(setting);
    for (Arm& arm : recipe.arms) {
      arm.measure = [&calls, measure = arm.measure](const ArmRun& run) {
        ++calls;
        return measure(run);
      };
    }
    return recipe;
  };
  const Outcome first = run_recipe(counted, options());
  EXPECT_EQ(calls, 6);
  fs::remove(stored("fast-seed2.json"));
  const Outcome second = run_recipe(counted, options());
  EXPECT_EQ(calls, 7);
  EXPECT_EQ(first.results.value("fast", 2, "error"), second.results.value("fast", 2, "error"));
  // Of another setting: measured again.
  run_recipe(counted, options({Size::kSmoke, Idea::kReal}));
  EXPECT_EQ(calls, 9);
}

TEST_F(Harness, CtrlCKeepsWhatIsFinished) {
  install_interrupt_handlers();
  RecipeEntry stopped = entry_;
  stopped.make = [](const Setting& setting) {
    Recipe recipe = line_recipe(setting);
    recipe.arms[1].measure = [](const ArmRun& run) {
      raise(SIGINT);
      return fit_a_line(run, 0.2);
    };
    return recipe;
  };
  EXPECT_THROW(run_recipe(stopped, options()), Interrupted);
  clear_interrupt();
  EXPECT_TRUE(fs::exists(stored("slow-seed3.json")));
  EXPECT_FALSE(fs::exists(stored("fast-seed1.json")));
  EXPECT_TRUE(run_recipe(entry_, options()).passed);
}

TEST_F(Harness, ABrokenStoredRunIsNamed) {
  run_recipe(entry_, options());
  write_file(stored("slow-seed1.json"), "{");
  EXPECT_THROW(run_recipe(entry_, options()), FormatError);
}

TEST_F(Harness, ReportsForPeopleAndScripts) {
  const Outcome outcome = run_recipe(entry_, options());
  const Occasion occasion = occasion_now("cadre recipe line");
  const std::string markdown = results_markdown(entry_, outcome, occasion);
  EXPECT_THAT(markdown, HasSubstr("| fast"));
  EXPECT_THAT(markdown, HasSubstr("±"));
  EXPECT_THAT(markdown, HasSubstr("![error.svg](error.svg)"));
  EXPECT_THAT(markdown, HasSubstr(occasion.machine));

  fs::create_directories(folder_ / "line");
  write_file(folder_ / "line" / "results.json", results_json(entry_, outcome, occasion).dump(1));
  RecipeEntry missing = entry_;
  missing.name = "missing";
  const std::string zoo = zoo_markdown({entry_, missing}, folder_ / "");
  EXPECT_THAT(zoo, HasSubstr("`cadre recipe line`"));
  EXPECT_THAT(zoo, HasSubstr("not measured yet"));
  EXPECT_THAT(zoo, Not(HasSubstr("fails**")));
}

TEST(Criterion, ANumberThatIsNotFinitePassesNothing) {
  EXPECT_FALSE(at_most(1).admits(std::nan("")));
  EXPECT_FALSE(at_least(1).admits(INFINITY));
  EXPECT_TRUE(at_least(1).admits(1));
  EXPECT_FALSE(more_than(1).admits(1));
  EXPECT_TRUE(more_than(1).admits(1.5));
  const Results results({}, {});
  EXPECT_FALSE(Criterion(results).passed());
}

TEST(Results, StoredNumbersComeBackAlsoNaN) {
  RunResult run{.arm = "a", .seed = 2, .seconds = 0.5};
  run.measured.values = {{"x", 0.1}, {"y", std::nan("")}};
  run.measured.curves["c"] = {{1, 2}, {3, 4}};
  const auto json = parse_json(to_json(run).dump(), "test");
  const RunResult back = run_from_json(json, "test");
  EXPECT_EQ(back.measured.values.at("x"), 0.1);
  EXPECT_TRUE(std::isnan(back.measured.values.at("y")));
  EXPECT_THAT(back.measured.curves.at("c").y, ElementsAre(3, 4));
  EXPECT_THROW(run_from_json(parse_json("{}", "test"), "test"), FormatError);
}

TEST(Results, SpreadIsTheSampleDeviation) {
  EXPECT_DOUBLE_EQ(spread_of({1, 2, 3}).deviation, 1);
  EXPECT_DOUBLE_EQ(spread_of({1, 2, 3}).mean, 2);
  EXPECT_EQ(spread_of({5}).deviation, 0);
}

}  // namespace
}  // namespace cadre::recipes
