/// The whole main job, small: train, evaluate, look, generate, stop and go on.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <fstream>
#include <sstream>
#include <thread>

#include <nlohmann/json.hpp>

#include "tests/cli/run_program.h"
#include "tests/cli/small_world.h"

namespace cadre {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::SizeIs;
namespace fs = std::filesystem;

std::string content_of(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

/// Waits until metrics.jsonl of a run has `lines` lines; false when the program ended before.
bool wait_for_lines(Program& program, const fs::path& metrics, size_t lines) {
  while (program.running()) {
    if (lines_of(content_of(metrics)).size() >= lines) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return false;
}

TEST(Quickstart, DoesTheMainJobAndSaysSoAgain) {
  const SmallWorld world;
  const ProgramResult first = run_cadre(world.quickstart());
  ASSERT_EQ(first.exit_code, 0) << first.err;
  const json summary = json::parse(content_of(world / "quick/summary.json"));
  EXPECT_GT(summary["moe"]["validation_loss"], 0);
  EXPECT_EQ(summary["moe"]["tokens"], 12 * 2 * 16);
  EXPECT_EQ(summary["moe"]["tokens"], summary["dense"]["tokens"]);
  EXPECT_THAT(summary["dense"]["domains"], SizeIs(2));
  EXPECT_THAT(summary["samples"], SizeIs(2));
  EXPECT_EQ(summary["engine"]["same_text"], true) << summary["engine"];
  EXPECT_GT(summary["engine"]["half"]["bytes_read"], 0);
  const double router = 2 * 4 * 16;  // the only parameters that the twin does without
  EXPECT_EQ(summary["moe"]["parameters"]["active"].get<double>() -
                summary["dense"]["parameters"]["active"].get<double>(),
            router);
  for (const char* file : {"moe/config.json", "moe/model.safetensors", "moe/tokenizer.json",
                           "dense/config.json", "data/tokenizer.json", "routes.svg"}) {
    EXPECT_TRUE(fs::exists(world / "quick" / file)) << file;
  }
  const std::string report = content_of(world / "quick/report.html");
  EXPECT_THAT(report, HasSubstr("<svg"));
  EXPECT_THAT(report, testing::Not(HasSubstr("<script src")));
  EXPECT_THAT(first.out, HasSubstr("Try next:"));

  const ProgramResult second = run_cadre(world.quickstart());
  EXPECT_EQ(second.exit_code, 0);
  EXPECT_THAT(first.out, HasSubstr(second.out)) << "the second run only tells the result again";
}

TEST(Quickstart, InterruptedRunGivesTheSameNumbers) {
  const SmallWorld world;
  const std::vector<std::string> more = {"--steps", "300"};
  ASSERT_EQ(run_cadre(world.quickstart(more)).exit_code, 0);
  const json whole = json::parse(content_of(world / "quick/summary.json"));
  fs::remove_all(world / "quick");

  for (const std::string model : {"moe", "dense"}) {
    Program program(world.quickstart(more));
    ASSERT_TRUE(wait_for_lines(program, world / "quick" / model / "metrics.jsonl", 10)) << model;
    program.signal(SIGINT);
    const ProgramResult result = program.wait();
    EXPECT_EQ(result.exit_code, 130) << result.err;
    EXPECT_THAT(result.err, HasSubstr("goes on"));
    EXPECT_FALSE(fs::exists(world / "quick/summary.json"));
  }
  const ProgramResult resumed = run_cadre(world.quickstart(more));
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  const json summary = json::parse(content_of(world / "quick/summary.json"));
  for (const char* model : {"moe", "dense"}) {
    EXPECT_EQ(summary[model]["validation_loss"], whole[model]["validation_loss"]);
    EXPECT_EQ(summary[model]["domains"], whole[model]["domains"]);
  }
}

TEST(Quickstart, OtherOptionsForTheSameFolderAreRefusedOrBegunAnew) {
  const SmallWorld world;
  ASSERT_EQ(run_cadre(world.quickstart()).exit_code, 0);
  const ProgramResult other = run_cadre(world.quickstart({"--hidden", "32"}));
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_THAT(other.err, HasSubstr("--hidden 16, now 32"));
  EXPECT_EQ(run_cadre(world.quickstart({"--hidden", "32", "--restart"})).exit_code, 0);
  EXPECT_EQ(json::parse(content_of(world / "quick/moe/config.json"))["hidden_size"], 32);
}

TEST(Quickstart, MinutesCutTheSteps) {
  const SmallWorld world;
  const ProgramResult result =
      run_cadre(world.quickstart({"--minutes", "0.02", "--steps", "1000000", "--json"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_LT(json::parse(result.out)["moe"]["steps"], 1000000);
}

/// One trained model for the verbs that look at it.
class Trained : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    world_ = new SmallWorld;
    result_ = new ProgramResult(run_cadre(world_->train({"--json"})));
  }
  static void TearDownTestSuite() {
    delete result_;
    delete world_;
  }
  void SetUp() override { ASSERT_EQ(result_->exit_code, 0) << result_->err; }
  static std::string model() { return *world_ / "run/model"; }

  inline static SmallWorld* world_ = nullptr;
  inline static ProgramResult* result_ = nullptr;
};

TEST_F(Trained, EvalFindsTheLossThatTrainingReported) {
  const json trained = json::parse(result_->out);
  const ProgramResult result =
      run_cadre({"eval", model(), "--data", *world_ / "run/data", "--length", "16", "--sequences",
                 "4", "--batch", "2", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NEAR(json::parse(result.out)["loss"].get<double>(),
              trained["validation_loss"].get<double>(), 1e-5);
}

TEST_F(Trained, EvalReadsTextOfTheUsers) {
  std::vector<std::string> words = {"eval", model(), "--length", "16"};
  for (const auto& word : world_->domains()) words.push_back(word);
  const ProgramResult result = run_cadre(words);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("tales"));
}

TEST_F(Trained, GenerateIsAFunctionOfTheSeed) {
  const auto text = [](const std::string& seed) {
    return run_cadre({"generate", model(), "the fox", "--tokens", "12", "--seed", seed}).out;
  };
  EXPECT_THAT(text("1"), testing::StartsWith("the fox"));
  EXPECT_EQ(text("1"), text("1"));
  EXPECT_NE(text("1"), text("2"));
}

TEST_F(Trained, InspectCounts) {
  const ProgramResult result = run_cadre({"inspect", model(), "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json report = json::parse(result.out);
  EXPECT_EQ(report["architecture"], "deepseek");
  EXPECT_EQ(report["parameters"]["per_expert"], 3 * 16 * 8);
  EXPECT_EQ(report["parameters"]["total"], report["weights"]["dtypes"]["F32"]["elements"]);
  EXPECT_THAT(run_cadre({"inspect", model()}).out, HasSubstr("4 a layer, 2 per token"));
}

TEST_F(Trained, RoutesInEveryForm) {
  const std::vector<std::string> words = {"routes",   model(), "--data", *world_ / "run/data",
                                          "--length", "16"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), words.begin(), words.end());
    return run_cadre(more);
  };
  const ProgramResult text = with({"--html", *world_ / "r.html", "--picture", *world_ / "r.png"});
  ASSERT_EQ(text.exit_code, 0) << text.err;
  EXPECT_THAT(text.out, HasSubstr("layer 1"));
  EXPECT_THAT(content_of(*world_ / "r.html"), HasSubstr("<svg"));
  EXPECT_TRUE(fs::exists(*world_ / "r.png"));
  EXPECT_THAT(text.out, HasSubstr("word start"));
  const json report = json::parse(with({"--json", "--against", model()}).out);
  for (const auto& difference : report["differences"]) EXPECT_EQ(difference["overlap"], 1);
  EXPECT_EQ(report["differences"].size(), report["layers"].size());
  for (const auto& layer : report["layers"]) {
    for (const auto& row : layer["share"]) {
      double sum = 0;
      for (const double share : row) sum += share;
      EXPECT_NEAR(sum, 1, 1e-9);
    }
  }
}

TEST_F(Trained, ConfigFileAloneGivesTheSameModel) {
  const std::string toml = *world_ / "run/train.toml";
  ASSERT_TRUE(fs::exists(toml));
  const ProgramResult again =
      run_cadre({"train", "--config", toml, "--out", *world_ / "again", "--json"});
  ASSERT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(json::parse(again.out)["validation_loss"],
            json::parse(result_->out)["validation_loss"]);
}

TEST_F(Trained, FineTuningStartsFromTheCheckpoint) {
  std::vector<std::string> words = {"train",
                                    "--from",
                                    model(),
                                    "--out",
                                    *world_ / "tuned",
                                    "--steps",
                                    "1",
                                    "--length",
                                    "16",
                                    "--lr",
                                    "1e-9",
                                    "--warmup-steps",
                                    "0",
                                    "--batch",
                                    "2",
                                    "--evaluate-sequences",
                                    "4",
                                    "--json"};
  for (const auto& word : world_->domains()) words.push_back(word);
  const ProgramResult tuned = run_cadre(words);
  ASSERT_EQ(tuned.exit_code, 0) << tuned.err;
  EXPECT_NEAR(json::parse(tuned.out)["validation_loss"].get<double>(),
              json::parse(result_->out)["validation_loss"].get<double>(), 1e-3);
}

}  // namespace
}  // namespace cadre
