#include "cadre/engine/expert_store.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <map>

#include "cadre/engine/faulty_reader.h"
#include "cadre/engine/test_experts.h"

namespace cadre::engine {
namespace {

using Priority = ExpertStore::Priority;

struct Way {
  ReadMethod method;
  ExpertFiles::Form form;
};

/// A store with a slot for every expert.
class Bench {
 public:
  Bench(const Way& way, const Faults& faults = {}, const ExpertStore::Options& options = {})
      : experts(way.form),
        slab(experts.files.grid.size() * experts.files.slot_bytes()),
        store(experts.files,
              std::make_unique<FaultyReader>(
                  open_file_reader(experts.files.paths, way.method, options.in_flight), faults),
              options) {}

  std::byte* slot(int64_t id) { return slab.data() + id * experts.files.slot_bytes(); }
  void submit(int64_t id, Priority priority = Priority::kDemand) {
    store.submit(id, slot(id), priority);
  }
  bool right(int64_t id) {
    return std::memcmp(slot(id), experts.panels[id].data(), experts.panels[id].size()) == 0;
  }
  /// Everything that arrives until nothing is pending: errors by expert.
  std::map<int64_t, std::string> drain() {
    std::map<int64_t, std::string> arrivals;
    while (store.pending() > 0)
      for (const auto& arrival : store.wait())
        EXPECT_TRUE(arrivals.emplace(arrival.id, arrival.error).second) << "arrived twice";
    return arrivals;
  }

  TestExperts experts;
  Slab slab;
  ExpertStore store;
};

class ExpertStoreWays : public testing::TestWithParam<Way> {};

TEST_P(ExpertStoreWays, BringsEveryExpertAsPanels) {
  Bench bench(GetParam());
  for (int64_t id = 0; id < bench.experts.files.grid.size(); ++id) bench.submit(id);
  const auto arrivals = bench.drain();
  ASSERT_EQ(arrivals.size(), bench.experts.panels.size());
  for (const auto& [id, error] : arrivals) {
    EXPECT_EQ(error, "");
    EXPECT_TRUE(bench.right(id)) << id;
  }
  EXPECT_EQ(bench.store.demanded(), 0);
  EXPECT_GT(bench.store.statistics().bytes_read, 0);
}

TEST_P(ExpertStoreWays, ATeamSharesTheRepacking) {
  Team team(3);
  Bench bench(GetParam(), {}, {.team = &team});
  for (int64_t id = 0; id < bench.experts.files.grid.size(); ++id) bench.submit(id);
  for (const auto& [id, error] : bench.drain()) EXPECT_TRUE(bench.right(id)) << id << error;
}

TEST_P(ExpertStoreWays, ShortAndLateReadsChangeNothing) {
  Bench bench(GetParam(), {.short_read = 0.6, .delay = 0.5, .seed = 3});
  for (int64_t id = 0; id < bench.experts.files.grid.size(); ++id)
    bench.submit(id, id % 3 == 0 ? Priority::kGuess : Priority::kDemand);
  for (const auto& [id, error] : bench.drain()) {
    EXPECT_EQ(error, "");
    EXPECT_TRUE(bench.right(id)) << id;
  }
}

TEST_P(ExpertStoreWays, AFailedReadIsThatExpertsAlone) {
  Bench bench(GetParam(), {.error = 0.2, .short_read = 0.2, .delay = 0.3, .seed = 5});
  for (int round = 0; round < 3; ++round) {
    for (int64_t id = 0; id < bench.experts.files.grid.size(); ++id) bench.submit(id);
    int64_t failed = 0;
    for (const auto& [id, error] : bench.drain()) {
      if (error.empty()) {
        EXPECT_TRUE(bench.right(id)) << id;
        continue;
      }
      ++failed;
      EXPECT_NE(error.find("Input/output error"), std::string::npos) << error;
      EXPECT_NE(error.find("experts"), std::string::npos) << "names the file: " << error;
    }
    EXPECT_GT(failed, 0);
    EXPECT_LT(failed, bench.experts.files.grid.size());
  }
}

TEST_P(ExpertStoreWays, AFileThatWasCutOffIsAnError) {
  Bench bench(GetParam());
  const int64_t last = bench.experts.files.grid.size() - 1;
  if (GetParam().method == ReadMethod::kMapped)
    GTEST_SKIP() << "the map is as long as the file was";
  std::filesystem::resize_file(bench.experts.files.paths[0],
                               bench.experts.files.parts[last][0].offset + 100);
  bench.submit(0);
  bench.submit(last);
  const auto arrivals = bench.drain();
  EXPECT_EQ(arrivals.at(0), "");
  EXPECT_NE(arrivals.at(last).find("cut off"), std::string::npos) << arrivals.at(last);
}

std::string way_name(const testing::TestParamInfo<Way>& info) {
  const char* methods[] = {"Ring", "Threads", "Mapped"};
  return std::string(methods[static_cast<int>(info.param.method)]) +
         (info.param.form == ExpertFiles::Form::kRows ? "Rows" : "Panels");
}

INSTANTIATE_TEST_SUITE_P(All, ExpertStoreWays,
                         testing::Values(Way{ReadMethod::kRing, ExpertFiles::Form::kRows},
                                         Way{ReadMethod::kRing, ExpertFiles::Form::kPanels},
                                         Way{ReadMethod::kThreads, ExpertFiles::Form::kRows},
                                         Way{ReadMethod::kThreads, ExpertFiles::Form::kPanels},
                                         Way{ReadMethod::kMapped, ExpertFiles::Form::kRows},
                                         Way{ReadMethod::kMapped, ExpertFiles::Form::kPanels}),
                         way_name);

constexpr Way kPacked = {ReadMethod::kThreads, ExpertFiles::Form::kPanels};

TEST(ExpertStore, AFlippedBitInAPackIsFound) {
  Bench bench(kPacked, {.flip = 0.3, .seed = 2});
  for (int64_t id = 0; id < bench.experts.files.grid.size(); ++id) bench.submit(id);
  int64_t found = 0;
  for (const auto& [id, error] : bench.drain()) {
    EXPECT_EQ(error.empty(), bench.right(id)) << id;
    if (!error.empty()) ++found;
  }
  EXPECT_GT(found, 0);
}

/// Keeps reads until they are let go, in any order the test likes.
class HeldReader final : public FileReader {
 public:
  explicit HeldReader(std::vector<FileRead>& reads) : reads_(reads) {}
  void start(std::span<const FileRead> reads) override {
    reads_.insert(reads_.end(), reads.begin(), reads.end());
    waiting_.insert(waiting_.end(), reads.begin(), reads.end());
  }
  void collect(Wait wait, std::vector<FileReadResult>& results) override {
    if (wait == Wait::kNo || waiting_.empty()) return;
    results.push_back({.tag = waiting_.front().tag, .got = waiting_.front().bytes});
    waiting_.erase(waiting_.begin());
  }
  std::string_view name() const override { return "held"; }

 private:
  std::vector<FileRead>& reads_;
  std::vector<FileRead> waiting_;
};

TEST(ExpertStore, DemandOvertakesGuessesAndFewAreInFlight) {
  TestExperts experts(ExpertFiles::Form::kPanels);
  experts.files.checksums.clear();
  Slab slab(experts.files.slot_bytes() * 8);
  std::vector<FileRead> reads;
  ExpertStore store(experts.files, std::make_unique<HeldReader>(reads),
                    {.in_flight = 4, .guesses_in_flight = 2});
  const auto expert = [](const FileRead& read) { return static_cast<int64_t>(read.tag >> 2); };
  const auto submit = [&](int64_t id, Priority priority) {
    store.submit(id, slab.data() + id * experts.files.slot_bytes(), priority);
  };
  for (const int64_t id : {0, 1, 2}) submit(id, Priority::kGuess);
  store.poll();
  ASSERT_EQ(reads.size(), 2U) << "guesses may not fill the disk's queue";
  submit(3, Priority::kDemand);
  submit(4, Priority::kDemand);
  store.poll();
  ASSERT_EQ(reads.size(), 4U);
  EXPECT_EQ(expert(reads[2]), 3);
  store.promote(2);
  EXPECT_TRUE(store.cancel(1)) << "not begun";
  EXPECT_FALSE(store.cancel(0)) << "in flight: it will arrive";
  std::vector<int64_t> order;
  while (store.pending() > 0)
    for (const auto& arrival : store.wait()) order.push_back(arrival.id);
  EXPECT_EQ(order, (std::vector<int64_t>{0, 3, 4, 2}));
}

TEST(ExpertStore, MayBeDestroyedWithReadsInFlight) {
  for (const ReadMethod method : {ReadMethod::kRing, ReadMethod::kThreads}) {
    Bench bench({method, ExpertFiles::Form::kPanels});
    for (int64_t id = 0; id < 8; ++id) bench.submit(id);
    bench.store.poll();
  }
}

TEST(Checksum, IsCrc32c) {
  const std::string text = "123456789";
  const auto bytes = std::as_bytes(std::span(text));
  EXPECT_EQ(crc32c(bytes), 0xE3069283U);
  EXPECT_EQ(crc32c_reference(bytes), 0xE3069283U);
  EXPECT_EQ(crc32c(bytes.subspan(4), crc32c(bytes.first(4))), 0xE3069283U);
}

TEST(OpenFileReader, AMissingFileIsNamed) {
  try {
    open_file_reader({"/nowhere/model.gguf"}, ReadMethod::kRing, 2);
    FAIL();
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()).find("/nowhere/model.gguf"), std::string::npos);
  }
}

}  // namespace
}  // namespace cadre::engine
