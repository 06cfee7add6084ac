#include "cadre/reshape/run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <limits>
#include <thread>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/base/test_memory.h"
#include "cadre/formats/test_folder.h"
#include "cadre/reshape/copy.h"
#include "cadre/reshape/merge.h"
#include "cadre/reshape/plan_file.h"
#include "cadre/reshape/test_checkpoints.h"

namespace cadre::reshape {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class Run : public ::testing::Test {
 protected:
  void SetUp() override {
    write_checkpoint(at("a"), dense_model(DType::kBF16, 1), dense_config());
    write_checkpoint(at("b"), dense_model(DType::kBF16, 2), dense_config());
    write_checkpoint(at("base"), dense_model(DType::kBF16, 3), dense_config());
    write_file(at("base") / "tokenizer.json", "{}");
  }
  void TearDown() override { set_num_threads(threads_); }

  fs::path at(const std::string& name) const { return folder_.path() / name; }
  std::vector<CheckpointPtr> open(const std::vector<std::string>& names) const {
    std::vector<CheckpointPtr> all;
    for (const std::string& name : names) all.push_back(open_checkpoint(at(name)));
    return all;
  }
  /// A merge with every kind of pass: ranks, ties, norms.
  Plan ties(const std::vector<CheckpointPtr>& inputs) const {
    const json document = {{"merge_method", "ties"},
                           {"base_model", "base"},
                           {"models", {{{"model", "a"}}, {{"model", "b"}}}},
                           {"parameters", {{"weight", 0.5}, {"density", 0.3}, {"rescale", true}}}};
    return plan_op(op_named("merge"), inputs, {{"config", document}}, nullptr, "test");
  }

  TestFolder folder_;
  const int threads_ = num_threads();
};

TEST_F(Run, CopiesBitForBitWithTokenizerAndRecord) {
  const auto inputs = open({"base"});
  const Plan plan = plan_op(op_named("copy"), inputs, json::object(), nullptr, "test");
  const RunReport report = run(plan, inputs, at("out"));
  EXPECT_EQ(bytes_in(at("out")), bytes_in(at("base")));
  EXPECT_EQ(read_file(at("out") / "tokenizer.json"), "{}");
  EXPECT_EQ(json::parse(read_file(at("out") / "config.json")), dense_config());
  const json record = json::parse(read_file(at("out") / "reshape.json"));
  EXPECT_EQ(record[0]["op"], "copy");
  EXPECT_EQ(record[0]["inputs"][0]["fingerprint"], inputs[0]->fingerprint());
  EXPECT_FALSE(fs::exists(at(".out.reshape")));
  EXPECT_EQ(report.before.total, report.after.total);
  EXPECT_EQ(report.bytes_written, report.after.bytes);
}

TEST_F(Run, GivesTheSameBytesWhateverThreadsShardsAndBudget) {
  const auto inputs = open({"a", "b", "base"});
  const Plan first = ties(inputs);
  run(first, inputs, at("one"));
  const auto expected = bytes_in(at("one"));
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    const std::string name = "threads-" + std::to_string(threads);
    run(ties(inputs), inputs, at(name), {.shard_bytes = 4000});
    EXPECT_EQ(bytes_in(at(name)), expected);
    EXPECT_TRUE(fs::exists(at(name) / "model.safetensors.index.json"));
  }
  const Plan plan = ties(inputs);
  const RunReport report =
      run(plan, inputs, at("tight"), {.budget_bytes = process_bytes(plan, inputs, 1)});
  EXPECT_EQ(report.threads, 1);
  EXPECT_EQ(bytes_in(at("tight")), expected);
}

TEST_F(Run, StreamsWhatIsComputedInMemory) {
  const auto inputs = open({"a", "b", "base"});
  run(ties(inputs), inputs, at("out"));
  const CheckpointPtr planned = planned_checkpoint(ties(inputs), inputs);
  for (const auto& [name, bytes] : bytes_in(at("out"))) {
    std::vector<std::byte> buffer;
    const SchemaTensor& tensor = planned->schema().require(name);
    const auto all = planned->bytes(tensor, 0, elements_of(tensor.info.shape), buffer);
    EXPECT_EQ(std::vector<std::byte>(all.begin(), all.end()), bytes) << name;
  }
}

TEST_F(Run, ChainedPlansAreThePlansOneAfterTheOther) {
  const auto inputs = open({"a", "b", "base"});
  run(ties(inputs), inputs, at("merged"));
  const std::vector<CheckpointPtr> merged = open({"merged"});
  run(plan_op(op_named("copy"), merged, {{"dtype", "F32"}}, nullptr, "test"), merged, at("apart"));
  const std::vector<CheckpointPtr> planned = {planned_checkpoint(ties(inputs), inputs)};
  run(plan_op(op_named("copy"), planned, {{"dtype", "F32"}}, nullptr, "test"), planned,
      at("chained"));
  EXPECT_EQ(bytes_in(at("chained")), bytes_in(at("apart")));
}

/// Thrown where a run is to stop.
struct Stop {};

TEST_F(Run, StoppedAnywhereAndResumedGivesTheSameBytes) {
  const auto inputs = open({"a", "b", "base"});
  run(ties(inputs), inputs, at("whole"));
  const auto expected = bytes_in(at("whole"));
  int calls = 0;
  run(ties(inputs), inputs, at("count"), {.progress = [&](int64_t) { ++calls; }});
  ASSERT_GT(calls, 10);
  for (int stop = 1; stop <= calls; stop += stop == calls ? 1 : std::min(3, calls - stop)) {
    int left = stop;
    const auto stopping = [&](int64_t) {
      if (--left == 0) throw Stop();
    };
    EXPECT_THROW(run(ties(inputs), inputs, at("out"), {.journal_seconds = 0, .progress = stopping}),
                 Stop);
    EXPECT_FALSE(fs::exists(at("out")));
    const RunReport report = run(ties(inputs), inputs, at("out"));
    if (stop == calls) {
      EXPECT_GT(report.steps_resumed, 0);
    }
    EXPECT_EQ(bytes_in(at("out")), expected) << stop;
    fs::remove_all(at("out"));
  }
}

TEST_F(Run, KilledAndResumedGivesTheSameBytes) {
  const auto inputs = open({"a", "b", "base"});
  run(ties(inputs), inputs, at("whole"));
  set_num_threads(1);  // no thread of OpenMP's team lives on in the child
  for (const int stop : {1, 7, 15}) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      int left = stop;
      const auto die = [&](int64_t) {
        if (--left == 0) kill(getpid(), SIGKILL);
      };
      run(ties(inputs), inputs, at("out"), {.journal_seconds = 0, .progress = die});
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    EXPECT_FALSE(fs::exists(at("out")));
    run(ties(inputs), inputs, at("out"));
    EXPECT_EQ(bytes_in(at("out")), bytes_in(at("whole")));
    fs::remove_all(at("out"));
  }
}

TEST_F(Run, OtherWorkDoesNotGoOnWithTheJournal) {
  const auto inputs = open({"base"});
  const Plan plan = plan_op(op_named("copy"), inputs, json::object(), nullptr, "test");
  const auto stop = [](int64_t bytes) {
    if (bytes > 5000) throw Stop();
  };
  EXPECT_THROW(run(plan, inputs, at("out"), {.journal_seconds = 0, .progress = stop}), Stop);
  write_checkpoint(at("base"), dense_model(DType::kBF16, 9), dense_config());
  const auto changed = open({"base"});
  const RunReport report = run(plan, changed, at("out"));
  EXPECT_EQ(report.steps_resumed, 0);
  EXPECT_EQ(bytes_in(at("out")), bytes_in(at("base")));
}

TEST_F(Run, RefusesBrokenWeightsAndNamesTheTensor) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    auto tensors = dense_model(DType::kBF16, 1);
    tensors[3].values[5] = bad;
    write_checkpoint(at("bad"), tensors, dense_config());
    const auto copied = open({"bad"});
    const Plan copy = plan_op(op_named("copy"), copied, json::object(), nullptr, "test");
    EXPECT_THAT([&] { run(copy, copied, at("out")); },
                ThrowsMessage<UsageError>(HasSubstr(tensors[3].info.name)));
    const auto merged = open({"bad", "b", "base"});
    EXPECT_THAT([&] { run(ties(merged), merged, at("out")); },
                ThrowsMessage<UsageError>(HasSubstr(tensors[3].info.name)));
    EXPECT_FALSE(fs::exists(at("out")));
  }
}

TEST_F(Run, RefusesResultsThatTheTypeCannotHold) {
  auto tensors = dense_model(DType::kF32, 1);
  tensors[0].values[0] = 1e6F;
  write_checkpoint(at("large"), tensors, dense_config());
  const auto inputs = open({"large"});
  const Plan plan = plan_op(op_named("copy"), inputs, {{"dtype", "F16"}}, nullptr, "test");
  EXPECT_THAT([&] { run(plan, inputs, at("out")); },
              ThrowsMessage<UsageError>(HasSubstr("beyond what F16 can store")));
}

TEST_F(Run, RefusesASourceAsTargetAndFoldersOfOtherThings) {
  const auto inputs = open({"a", "b", "base"});
  EXPECT_THAT([&] { run(ties(inputs), inputs, at("b")); },
              ThrowsMessage<UsageError>(HasSubstr("is read by this plan")));
  fs::create_directory(at("home"));
  write_file(at("home") / "letter.txt", "dear");
  EXPECT_THAT([&] { run(ties(inputs), inputs, at("home")); },
              ThrowsMessage<UsageError>(HasSubstr("other files")));
  EXPECT_EQ(read_file(at("home") / "letter.txt"), "dear");
}

TEST_F(Run, ReplacesAnOlderCheckpoint) {
  const auto inputs = open({"a", "b", "base"});
  run(ties(inputs), inputs, at("out"));
  write_checkpoint(at("old"), dense_model(DType::kF32, 8), dense_config());
  run(ties(inputs), inputs, at("old"));
  EXPECT_EQ(bytes_in(at("old")), bytes_in(at("out")));
}

TEST_F(Run, ChecksDiskAndMemoryBeforeTheFirstByte) {
  const auto inputs = open({"base"});
  Plan plan = {.steps = {{.out = {{"huge", DType::kF32, {int64_t{1} << 45}}},
                          .kernel = WholeKernel([](const Whole&) { FAIL(); })}},
               .config_out = json::object()};
  EXPECT_THAT([&] { run(plan, inputs, at("out")); },
              ThrowsMessage<UsageError>(HasSubstr("of memory")));
  EXPECT_THAT([&] { run(plan, inputs, at("out"), {.budget_bytes = int64_t{1} << 60}); },
              ThrowsMessage<IoError>(HasSubstr("are needed, its disk has")));
  EXPECT_FALSE(fs::exists(at(".out.reshape")));
}

TEST_F(Run, WholeMatricesComeOneByOneAndInGroups) {
  const auto inputs = open({"base"});
  Plan plan = {.config_out = dense_config()};
  for (const SchemaTensor& tensor : inputs[0]->schema().tensors())
    plan.steps.push_back({.out = {tensor.info, {tensor.info.name + ".count", DType::kI32, {1}}},
                          .in = {{.name = tensor.info.name}},
                          .kernel = WholeKernel([](const Whole& work) {
                            std::copy(work.in[0].begin(), work.in[0].end(), work.out[0].begin());
                            const auto count = static_cast<int32_t>(work.in[0].size());
                            std::memcpy(work.out_bytes[1].data(), &count, sizeof(count));
                          })});
  run(plan, inputs, at("out"));
  run(plan, inputs, at("small"), {.budget_bytes = process_bytes(plan, inputs, 1)});
  EXPECT_EQ(bytes_in(at("small")), bytes_in(at("out")));
  for (const auto& [name, bytes] : bytes_in(at("base")))
    EXPECT_EQ(bytes_in(at("out"))[name], bytes) << name;
}

/// Resident memory now, in bytes.
int64_t resident() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0, pages = 0;
  file >> size >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

/// A checkpoint of zeros, which takes no room on the disk.
void write_sparse(const fs::path& folder, int64_t tensors, int64_t rows) {
  fs::create_directories(folder);
  std::string header = "{";
  const int64_t bytes = rows * 1024 * 2;
  for (int64_t i = 0; i < tensors; ++i)
    header += (i == 0 ? "" : ",") + ("\"model.layers." + std::to_string(i)) +
              ".mlp.up_proj.weight\":{\"dtype\":\"BF16\",\"shape\":[" + std::to_string(rows) +
              ",1024],\"data_offsets\":[" + std::to_string(i * bytes) + "," +
              std::to_string((i + 1) * bytes) + "]}";
  header += "}";
  std::ofstream file(folder / "model.safetensors", std::ios::binary);
  const uint64_t length = header.size();
  file.write(reinterpret_cast<const char*>(&length), 8);
  file << header;
  file.close();
  fs::resize_file(folder / "model.safetensors",
                  8 + length + static_cast<uint64_t>(tensors * bytes));
  write_file(folder / "config.json", R"({"model_type": "llama"})");
}

TEST_F(Run, StaysWithinItsMemoryBudget) {
  if (!kMemoryIsOurs) GTEST_SKIP() << "a sanitizer's memory is counted with ours";
  // Three models of 256 MiB.
  for (const char* name : {"x", "y", "z"}) write_sparse(at(name), 16, 8192);
  const auto inputs = open({"x", "y", "z"});
  const json document = {{"merge_method", "ties"},
                         {"base_model", "z"},
                         {"models", {{{"model", "x"}}, {{"model", "y"}}}},
                         {"parameters", {{"weight", 0.5}, {"density", 0.3}}}};
  const Plan plan = plan_op(op_named("merge"), inputs, {{"config", document}}, nullptr, "test");
  const int64_t budget = process_bytes(plan, inputs, 2);
  EXPECT_LE(budget, int64_t{40} << 20);
  const int64_t before = resident();
  int64_t most = before;
  run(plan, inputs, at("out"),
      {.budget_bytes = budget, .progress = [&](int64_t) { most = std::max(most, resident()); }});
  EXPECT_LE(most - before, budget);
}

}  // namespace
}  // namespace cadre::reshape
