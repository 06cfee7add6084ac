// What a run leaves behind when its process is killed or its disk is full. Each run is a process of
// its own: this program again, told by the environment where to train.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <optional>
#include <thread>

#include "cadre/formats/file.h"
#include "cadre/training/test_kit.h"
#include "cadre/training/trainer.h"

namespace cadre {
namespace {

constexpr const char* kFolder = "CADRE_TEST_TRAIN_FOLDER";
constexpr const char* kFileLimit = "CADRE_TEST_FILE_LIMIT";

TrainOptions options_of_runs() {
  return {.steps = 24,
          .batch = 2,
          .length = 16,
          .lr = 3e-3,
          .warmup_steps = 4,
          .evaluate_sequences = 2,
          .save_every = 1};
}

TrainResult train_in(const std::filesystem::path& folder) {
  const TinyWorld world;
  const TrainOptions options = options_of_runs();
  return Trainer(folder, tiny_deepseek(), options, world.batches(options.batch, options.length),
                 world.tokenizer)
      .run();
}

/// The body of the processes that the tests below start; alone it has nothing to do.
TEST(TrainingCrashChild, Trains) {
  const char* folder = std::getenv(kFolder);
  if (folder == nullptr) GTEST_SKIP() << "runs only as a child of the other tests";
  if (const char* limit = std::getenv(kFileLimit)) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlim_t bytes = std::strtoull(limit, nullptr, 10);
    const rlimit limits{bytes, bytes};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limits), 0);
  }
  try {
    train_in(folder);
  } catch (const IoError&) {
    std::_Exit(2);
  }
}

pid_t start_training(const std::filesystem::path& folder, std::optional<int64_t> file_limit = {}) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  ::setenv(kFolder, folder.c_str(), 1);
  ::setenv("TMPDIR", folder.parent_path().c_str(), 1);  // a killed child cannot clean up
  if (file_limit) ::setenv(kFileLimit, std::to_string(*file_limit).c_str(), 1);
  if (std::freopen("/dev/null", "w", stdout) == nullptr) std::_Exit(3);
  ::execl("/proc/self/exe", "training_crash", "--gtest_filter=TrainingCrashChild.Trains", nullptr);
  std::_Exit(3);
}

int wait_for(pid_t child) {
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

class TrainingCrash : public testing::Test {
 protected:
  void SetUp() override {
    if (std::getenv(kFolder) != nullptr) GTEST_SKIP() << "a child runs its own part only";
  }
  TestFolder folder_;
};

TEST_F(TrainingCrash, KilledAtAnyTimeTheLastGoodStateSurvives) {
  train_in(folder_ / "whole");
  const std::filesystem::path run = folder_ / "run";
  int kills = 0;
  // A state is saved after each step, so most kills hit a save. The delays walk over the run.
  for (int delay_ms = 100; kills < 100; delay_ms += 7) {
    const pid_t child = start_training(run);
    std::this_thread::sleep_for(std::chrono::milliseconds(delay_ms));
    ::kill(child, SIGKILL);
    if (WIFEXITED(wait_for(child))) break;
    ++kills;
    if (std::filesystem::exists(run / "model.safetensors")) {
      ASSERT_NO_THROW(load_checkpoint(run)) << "after " << delay_ms << " ms";
    }
  }
  EXPECT_GE(kills, 3);
  train_in(run);
  EXPECT_EQ(read_file(run / "model.safetensors"), read_file(folder_ / "whole/model.safetensors"))
      << "the resumed run ends with the bits of the uninterrupted one";
  for (const auto& entry : std::filesystem::directory_iterator(run)) {
    EXPECT_THAT(entry.path().filename().string(),
                testing::AnyOf("config.json", "model.safetensors", "tokenizer.json", "state",
                               "metrics.jsonl"))
        << "nothing half written is left behind";
  }
}

TEST_F(TrainingCrash, KilledBetweenTheLastStateAndItsFilesTheNextRunWritesThem) {
  const std::filesystem::path run = folder_ / "run";
  train_in(run);
  const std::string weights = read_file(run / "model.safetensors");
  write_file(run / "model.safetensors", "of the step before");
  train_in(run);
  EXPECT_EQ(read_file(run / "model.safetensors"), weights);
}

TEST_F(TrainingCrash, AFullDiskStopsTheRunAndKeepsTheLastState) {
  const std::filesystem::path run = folder_ / "run";
  const int64_t enough = 1 << 24;
  EXPECT_EQ(WEXITSTATUS(wait_for(start_training(run, 50000))), 2) << "the very first save fails";
  EXPECT_FALSE(std::filesystem::exists(run / "state"));
  // Killed half way, then resumed on a disk with no room for a state.
  const pid_t child = start_training(run, enough);
  while (!std::filesystem::exists(run / "model.safetensors")) ::usleep(1000);
  ::kill(child, SIGKILL);
  wait_for(child);
  const std::string before = read_file(run / "state/trainer.json");
  EXPECT_EQ(WEXITSTATUS(wait_for(start_training(run, 100000))), 2);
  EXPECT_EQ(read_file(run / "state/trainer.json"), before);
  EXPECT_NO_THROW(load_checkpoint(run));
  EXPECT_EQ(train_in(run).end, TrainResult::End::kFinished) << "with room again, it goes on";
}

}  // namespace
}  // namespace cadre
