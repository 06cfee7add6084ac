/// Bad input of every kind: one clear line, a non-zero exit, and nothing lost.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

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

void write(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

/// The last line says what was wrong (progress lines may stand before it).
void expect_refused(const ProgramResult& result, const std::string& reason, int exit_code = 2) {
  EXPECT_EQ(result.exit_code, exit_code) << result.err;
  const std::vector<std::string> lines = lines_of(result.err);
  ASSERT_FALSE(lines.empty());
  EXPECT_THAT(lines.back(), testing::StartsWith("cadre "));
  EXPECT_THAT(lines.back(), HasSubstr(reason));
}

class BadText : public testing::Test {
 protected:
  ProgramResult train_on(const std::string& name, const std::string& text) {
    write(world_ / name, text);
    return run_cadre(world_.train({"--domain", "bad=" + (world_ / name).string()}));
  }
  SmallWorld world_;
};

TEST_F(BadText, Missing) {
  expect_refused(run_cadre(world_.train({"--domain", "bad=/no/such/text"})), "/no/such/text");
}

TEST_F(BadText, Empty) { expect_refused(train_on("empty.txt", ""), "empty.txt"); }

TEST_F(BadText, Binary) {
  expect_refused(train_on("binary.dat", std::string("a\0b\0", 4) + small_text(0, 50)),
                 "binary.dat");
}

TEST_F(BadText, InvalidUtf8) {
  expect_refused(train_on("latin1.txt", small_text(0, 50) + "caf\xE9 au lait"), "latin1.txt");
}

TEST_F(BadText, SmallerThanOneSequence) {
  expect_refused(train_on("short.txt", "one two three\n"), "smaller than one sequence");
}

TEST_F(BadText, NameGivenTwiceOrNoName) {
  expect_refused(run_cadre(world_.train({"--domain", "sums=" + (world_ / "tales.txt").string()})),
                 "'sums' stands twice");
  expect_refused(run_cadre(world_.train({"--domain", "nothing"})), "nothing");
}

TEST(BadOptions, ImpossibleShapesAreRefusedBeforeAnyWork) {
  const SmallWorld world;
  const auto refused = [&](const std::vector<std::string>& more, const std::string& reason) {
    expect_refused(run_cadre(world.train(more)), reason);
    expect_refused(run_cadre(world.quickstart(more)), reason);
  };
  refused({"--experts-per-token", "5"}, "experts");
  refused({"--heads", "3"}, "heads");
  refused({"--hidden", "0"}, "hidden");
  refused({"--experts", "-1"}, "experts");
  refused({"--batch", "0"}, "--batch");
  refused({"--architecture", "gpt"}, "gpt");
  expect_refused(run_cadre(world.quickstart({"--experts", "0"})), "experts");
  expect_refused(run_cadre(world.train({"--experts", "0"})), "experts");
  EXPECT_FALSE(fs::exists(world / "run"));
}

/// A trained checkpoint to damage: each test works on a copy.
class BadCheckpoint : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    world_ = new SmallWorld;
    exit_code_ = run_cadre(world_->train()).exit_code;
  }
  static void TearDownTestSuite() { delete world_; }
  void SetUp() override {
    ASSERT_EQ(exit_code_, 0);
    copy_ = *world_ / "copy";
    fs::remove_all(copy_);
    fs::copy(*world_ / "run/model", copy_, fs::copy_options::recursive);
  }
  void expect_refused_everywhere(const std::string& reason) {
    expect_refused(run_cadre({"generate", copy_, "the fox"}), reason);
    expect_refused(run_cadre({"eval", copy_, "--data", *world_ / "run/data"}), reason);
    expect_refused(run_cadre({"inspect", copy_}), reason);
  }
  void edit_config(const std::string& key, const json& value) {
    json config = json::parse(content_of(copy_ / "config.json"));
    config[key] = value;
    write(copy_ / "config.json", config.dump());
  }

  fs::path copy_;
  inline static SmallWorld* world_ = nullptr;
  inline static int exit_code_ = 0;
};

TEST_F(BadCheckpoint, TruncatedWeights) {
  fs::resize_file(copy_ / "model.safetensors", fs::file_size(copy_ / "model.safetensors") - 1000);
  expect_refused_everywhere("model.safetensors");
}

TEST_F(BadCheckpoint, HostileHeaderLength) {
  std::string bytes = content_of(copy_ / "model.safetensors");
  bytes.replace(0, 8, "\xff\xff\xff\xff\xff\xff\xff\x7f", 8);
  write(copy_ / "model.safetensors", bytes);
  expect_refused_everywhere("model.safetensors");
}

TEST_F(BadCheckpoint, ConfigOfAnotherShape) {
  edit_config("hidden_size", 32);
  expect_refused_everywhere("");
}

TEST_F(BadCheckpoint, ConfigThatAsksForATerabyte) {
  edit_config("hidden_size", 1 << 20);
  expect_refused_everywhere("");
}

TEST_F(BadCheckpoint, UnknownArchitecture) {
  edit_config("model_type", "oracle");
  expect_refused_everywhere("oracle");
}

TEST_F(BadCheckpoint, NoConfig) {
  fs::remove(copy_ / "config.json");
  expect_refused_everywhere("config.json");
}

TEST_F(BadCheckpoint, TokenizerOfAnotherModel) {
  ASSERT_EQ(run_cadre({"tokenizer", "train", *world_ / "tales.txt", *world_ / "sums.txt",
                       "--vocabulary", "320", "--out", copy_ / "tokenizer.json"})
                .exit_code,
            0);
  expect_refused(run_cadre({"generate", copy_, "the fox"}), "tokenizer");
}

TEST_F(BadCheckpoint, PreparedTextOfAnotherTokenizer) {
  ASSERT_EQ(run_cadre(world_->train({"--out", *world_ / "other", "--vocabulary", "280"})).exit_code,
            0);
  expect_refused(run_cadre({"eval", copy_, "--data", *world_ / "other/data"}), "another tokenizer");
}

TEST_F(BadCheckpoint, RoutesOfADenseModelAndPromptsThatCannotBe) {
  expect_refused(run_cadre({"generate", copy_, ""}), "prompt");
  expect_refused(run_cadre({"generate", copy_, small_text(1, 40)}), "context");
  expect_refused(run_cadre({"eval", copy_, "--data", *world_ / "run/data", "--length", "65"}),
                 "context");
  expect_refused(run_cadre({"eval", copy_}), "--data");
  ASSERT_EQ(run_cadre(world_->train({"--out", *world_ / "dense", "--architecture", "llama",
                                     "--experts", "0", "--experts-per-token", "0",
                                     "--shared-experts", "0", "--expert-intermediate", "0"}))
                .exit_code,
            0);
  expect_refused(run_cadre({"routes", *world_ / "dense/model", "--data", *world_ / "run/data"}),
                 "no expert layers");
}

/// What is on disk still loads and is a saved step of the same run.
void expect_whole(const SmallWorld& world) {
  const ProgramResult result =
      run_cadre({"generate", world / "run/model", "the fox", "--tokens", "3"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
}

TEST(Saving, FullDiskKeepsTheLastGoodCheckpoint) {
  const SmallWorld world;
  ASSERT_EQ(run_cadre(world.train()).exit_code, 0);
  const std::string before = content_of(world / "run/model/model.safetensors");
  const auto limit = static_cast<int64_t>(before.size() / 2);
  // The same weights into another folder, and more steps are refused for this one: a new run must
  // fail to save.
  const ProgramResult full =
      run_cadre(world.train({"--out", world / "full", "--steps", "40"}), {.max_file_bytes = limit});
  expect_refused(full, "cannot write");
  EXPECT_FALSE(fs::exists(world / "full/model/config.json"));
  EXPECT_EQ(content_of(world / "run/model/model.safetensors"), before);
}

TEST(Saving, FullDiskLaterInARunKeepsWhatWasSaved) {
  const SmallWorld world;
  const std::vector<std::string> long_run = world.train({"--steps", "100000", "--save-every", "5"});
  {
    Program program(long_run);
    while (program.running() && !fs::exists(world / "run/model/config.json"))
      std::this_thread::yield();
    program.signal(SIGINT);
    ASSERT_EQ(program.wait().exit_code, 130);
  }
  const std::string before = content_of(world / "run/model/model.safetensors");
  expect_refused(run_cadre(long_run, {.max_file_bytes = static_cast<int64_t>(before.size() / 2)}),
                 "cannot write");
  EXPECT_EQ(content_of(world / "run/model/model.safetensors"), before);
  expect_whole(world);
}

TEST(Saving, KillNineAtAnyMomentLeavesAGoodCheckpoint) {
  const SmallWorld world;
  const std::vector<std::string> long_run = world.train({"--steps", "100000", "--save-every", "1"});
  for (int round = 0; round < 4; ++round) {
    Program program(long_run);
    while (program.running() && !fs::exists(world / "run/model/config.json"))
      std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(40 + 7 * round));
    program.signal(SIGKILL);
    EXPECT_EQ(program.wait().exit_code, 137);
    expect_whole(world);
  }
  // And the run goes on from there.
  Program program(long_run);
  std::this_thread::sleep_for(std::chrono::seconds(1));
  program.signal(SIGINT);
  const ProgramResult result = program.wait();
  EXPECT_EQ(result.exit_code, 130) << result.err;
  EXPECT_THAT(result.err, HasSubstr("going on after step"));
}

}  // namespace
}  // namespace cadre
