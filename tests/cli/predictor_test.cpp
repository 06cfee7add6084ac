/// The way from a model to a predictor of its routes and back: train, perplexity --trace,
/// train-predictor, replay, run.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include <nlohmann/json.hpp>

#include "tests/cli/run_program.h"
#include "tests/cli/small_world.h"

namespace cadre {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::SizeIs;
namespace fs = std::filesystem;

class Predictor : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    world_ = new SmallWorld;
    ASSERT_EQ(run_cadre(world_->train()).exit_code, 0);
    const ProgramResult result = run_cadre({"perplexity", model(), "--text", text(), "--context",
                                            "32", "--trace", routes(), "--threads", "1"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }
  static void TearDownTestSuite() { delete world_; }

  static std::string model() { return *world_ / "run/model"; }
  static std::string text() { return *world_ / "tales.txt"; }
  static std::string routes() { return *world_ / "routes"; }
  static ProgramResult train(const std::vector<std::string>& more) {
    std::vector<std::string> words = {
        "train-predictor", "--steps", "8",        "--hidden", "8", "--blocks", "1",
        "--length",        "8",       "--window", "16"};
    words.insert(words.end(), more.begin(), more.end());
    return run_cadre(words);
  }
  static void expect_error(const ProgramResult& result, const std::string& part) {
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_THAT(lines_of(result.err), SizeIs(1));
    EXPECT_THAT(result.err, HasSubstr(part));
  }

  inline static SmallWorld* world_ = nullptr;
};

TEST_F(Predictor, IsTrainedReplayedAndRun) {
  const std::string file = *world_ / "p.safetensors";
  const ProgramResult trained = train({routes(), "--out", file, "--against", routes(), "--json"});
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  const json report = json::parse(trained.out);
  EXPECT_GT(report["held_out"]["tokens"], 0);
  EXPECT_EQ(report["against"].size(), 1U);
  for (const auto& score : report["held_out"]["scores"]) {
    EXPECT_GT(score["recall"], 0);
    EXPECT_LE(score["recall"], 1);
  }

  const auto run = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = {"run",       model(), "the fox",       "--tokens", "20",
                                      "--threads", "1",     "--temperature", "0"};
    words.insert(words.end(), more.begin(), more.end());
    return run_cadre(words);
  };
  const std::string trace = *world_ / "generated";
  const ProgramResult plain = run({"--trace", trace});
  ASSERT_EQ(plain.exit_code, 0) << plain.err;
  const ProgramResult predicted = run({"--expert-memory", "64KiB", "--predictor", "path",
                                       "--predictor-file", file, "--cache-policy", "plec"});
  ASSERT_EQ(predicted.exit_code, 0) << predicted.err;
  EXPECT_EQ(predicted.out, plain.out) << "guesses cost time, never the result";

  const ProgramResult replayed =
      run_cadre({"replay", trace, "--capacity", "50%", "--predictor-file", file, "--json"});
  ASSERT_EQ(replayed.exit_code, 0) << replayed.err;
  EXPECT_THAT(json::parse(replayed.out)["read_ahead"], SizeIs(6));
}

TEST_F(Predictor, BadInputIsOneLineAndNoFile) {
  const std::string file = *world_ / "none.safetensors";
  const auto refused = [&](std::vector<std::string> words, const std::string& part) {
    words.insert(words.end(), {"--out", file});
    expect_error(train(words), part);
    EXPECT_FALSE(fs::exists(file));
  };
  std::ofstream(*world_ / "broken") << "no routes";
  expect_error(train({routes(), "--out", *world_ / "no/folder"}), "--out");
  refused({*world_ / "absent"}, "absent");
  refused({*world_ / "broken"}, "broken");
  refused({routes(), "--against", *world_ / "broken"}, "broken");
  refused({routes(), "--steps", "0"}, "steps");
  refused({routes(), "--dropout", "1"}, "dropout");
  refused({routes(), "--hidden", "0"}, "hidden");
}

}  // namespace
}  // namespace cadre
