/// --memory is a bound for the whole process, --expert-memory one for its experts.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cadre/base/test_memory.h"
#include "cadre/formats/test_folder.h"
#include "tests/cli/run_program.h"
#include "tests/cli/small_gguf.h"

namespace cadre {
namespace {

using nlohmann::json;
using testing::HasSubstr;
namespace fs = std::filesystem;

constexpr int64_t kMiB = 1 << 20;

/// A model of some 104 MiB, 96 of them in experts of 1.5 MiB.
class Memory : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TestFolder;
    write_small_gguf(
        model(), {.layers = 4, .hidden = 256, .experts = 16, .expert_width = 512, .context = 2048});
  }
  static void TearDownTestSuite() { delete folder_; }
  static std::string model() { return *folder_ / "model.gguf"; }
  static std::string prompt() {
    std::string text;
    while (text.size() < 700) text += "Once upon a time there was a bound. ";
    return text;
  }
  static ProgramResult run(const std::string& path, std::vector<std::string> more) {
    more.insert(more.begin(), {"run", path, prompt(), "--threads", "1", "--tokens", "40",
                               "--temperature", "0", "--context", "1024"});
    return run_cadre(more);
  }
  static json plan(const std::string& path, int64_t memory) {
    const ProgramResult result = run_cadre(
        {"plan", path, "--json", "--context", "1024", "--memory", std::to_string(memory)});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json::parse(result.out);
  }

  static void expect_within(const ProgramResult& result, int64_t budget, const std::string& what) {
    if (kMemoryIsOurs) EXPECT_LE(result.peak_resident_bytes, budget) << what;
  }

  static TestFolder* folder_;
};
TestFolder* Memory::folder_ = nullptr;

TEST_F(Memory, ProcessStaysBelowEveryBudget) {
  const std::string pack = *folder_ / "model.cpk";
  ASSERT_EQ(run_cadre({"pack", model(), pack}).exit_code, 0);
  const std::string text = run(model(), {}).out;
  for (const std::string& path : {model(), pack}) {
    const auto least = plan(path, 1 << 30)["least"].get<int64_t>();
    for (const int64_t budget : {least, least + 16 * kMiB, least + 48 * kMiB, least + 100 * kMiB}) {
      const ProgramResult result = run(path, {"--memory", std::to_string(budget)});
      EXPECT_EQ(result.exit_code, 0) << result.err;
      EXPECT_EQ(result.out, text) << path << " in " << budget;
      expect_within(result, budget, path);
    }
    const ProgramResult less = run(path, {"--memory", std::to_string(least - 1)});
    EXPECT_EQ(less.exit_code, 2);
    EXPECT_THAT(less.err, HasSubstr("are the least"));
  }
}

TEST_F(Memory, EveryWayOfReadingStaysBelow) {
  const auto budget = plan(model(), 1 << 30)["least"].get<int64_t>() + 8 * kMiB;
  for (const char* storage : {"direct", "pread", "mmap"}) {
    const ProgramResult result =
        run(model(), {"--memory", std::to_string(budget), "--storage", storage});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    expect_within(result, budget, storage);
  }
}

TEST_F(Memory, ExpertMemoryCapsTheExperts) {
  const json everything = plan(model(), 1 << 30);
  const auto others =
      everything["total"].get<int64_t>() - everything["experts"]["bytes"].get<int64_t>();
  const ProgramResult result = run(model(), {"--expert-memory", "24MiB"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  expect_within(result, others + 24 * kMiB, model());
  EXPECT_EQ(result.out, run(model(), {}).out);
}

/// A control group of our own, where this user may make one.
class Group {
 public:
  explicit Group(int64_t bytes)
      : path_(fs::path("/sys/fs/cgroup/cadre-test-") += std::to_string(getpid())) {
    std::error_code refused;
    made_ = fs::create_directory(path_, refused);
    made_ = made_ && write("memory.max", std::to_string(bytes)) && write("memory.swap.max", "0");
  }
  ~Group() {
    if (fs::exists(path_)) ::rmdir(path_.c_str());
  }
  bool made() const { return made_; }
  std::string processes() const { return path_ / "cgroup.procs"; }

 private:
  bool write(const char* file, const std::string& text) const {
    std::ofstream stream(path_ / file);
    return static_cast<bool>(stream << text << std::flush);
  }
  fs::path path_;
  bool made_ = false;
};

TEST_F(Memory, TheKernelsLimitIsEnough) {
  if (!kMemoryIsOurs) GTEST_SKIP() << "a sanitizer's memory is counted with ours";
  const auto budget = plan(model(), 1 << 30)["least"].get<int64_t>() + 16 * kMiB;
  const Group group(budget);
  if (!group.made()) GTEST_SKIP() << "no control group with a memory limit can be made here";
  const std::vector<std::string> command = {"run",       model(),    prompt(),
                                            "--threads", "2",        "--tokens",
                                            "40",        "--memory", std::to_string(budget),
                                            "--context", "1024",     "--temperature",
                                            "0"};
  const ProgramResult result = run_cadre(command, {.group = group.processes()});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, run(model(), {}).out);
}

}  // namespace
}  // namespace cadre
