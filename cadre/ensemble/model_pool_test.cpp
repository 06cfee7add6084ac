#include "cadre/ensemble/model_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/engine/test_models.h"
#include "cadre/ensemble/grouped_queue.h"
#include "cadre/formats/test_folder.h"

namespace cadre::ensemble {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(LruBudget, TheLeastRecentlyUsedLeaves) {
  LruBudget room(20);
  EXPECT_THAT(room.take(1, 10), IsEmpty());
  EXPECT_THAT(room.take(2, 10), IsEmpty());
  EXPECT_THAT(room.take(1, 10), IsEmpty());
  EXPECT_THAT(room.take(3, 10), ElementsAre(2));
  EXPECT_THAT(room.take(4, 15), ElementsAre(1, 3));
  EXPECT_THAT(room.take(5, 100), ElementsAre(4));  // gets all there is
  EXPECT_EQ(room.used(), 20);
}

TEST(LruBudget, ACycleOfThreeInRoomForTwoHitsNever) {
  LruBudget room(2);
  for (int i = 0; i < 9; ++i) {
    EXPECT_FALSE(room.holds(i % 3)) << i;
    room.take(i % 3, 1);
  }
}

TEST(LruBudget, NeverExceedsItsBudget) {
  Random random(1);
  LruBudget room(100);
  std::map<int64_t, int64_t> there;
  for (int i = 0; i < 2000; ++i) {
    const auto item = static_cast<int64_t>(random.below(12));
    const int64_t size = 5 + 9 * item;
    for (const int64_t left : room.take(item, size)) EXPECT_EQ(there.erase(left), 1U);
    there[item] = std::min<int64_t>(size, 100);
    int64_t sum = 0;
    for (const auto& [id, bytes] : there) {
      EXPECT_TRUE(room.holds(id));
      sum += bytes;
    }
    EXPECT_EQ(room.used(), sum);
    EXPECT_LE(sum, 100);
  }
}

/// Loads that 200 prompts for 6 models cost with room for 2, and the most that overtook one.
struct Served {
  int64_t loads = 0, most_overtaken = 0;
  std::vector<int64_t> order;
};
Served serve(int64_t window, uint64_t seed) {
  Random random(seed);
  GroupedQueue queue(window);
  for (int64_t id = 0; id < 200; ++id) queue.push({id, static_cast<int64_t>(random.below(6))});
  LruBudget room(2);
  Served served;
  while (!queue.empty()) {
    const auto item = queue.pop([&](int64_t model) { return room.holds(model); });
    served.loads += room.holds(item.model) ? 0 : 1;
    room.take(item.model, 1);
    served.order.push_back(item.id);
  }
  for (size_t i = 0; i < served.order.size(); ++i) {
    const auto later =
        std::count_if(served.order.begin(), served.order.begin() + static_cast<int64_t>(i),
                      [&](int64_t id) { return id > served.order[i]; });
    served.most_overtaken = std::max<int64_t>(served.most_overtaken, later);
  }
  return served;
}

TEST(GroupedQueue, SavesLoadsAndNobodyWaitsBeyondTheWindow) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    const Served by_arrival = serve(0, seed), grouped = serve(16, seed);
    EXPECT_EQ(by_arrival.most_overtaken, 0);
    EXPECT_TRUE(std::is_sorted(by_arrival.order.begin(), by_arrival.order.end()));
    EXPECT_LE(static_cast<double>(grouped.loads), 0.6 * static_cast<double>(by_arrival.loads));
    EXPECT_LE(grouped.most_overtaken, 16);
    EXPECT_GT(grouped.most_overtaken, 8);
    EXPECT_EQ(std::set<int64_t>(grouped.order.begin(), grouped.order.end()).size(), 200U);
  }
}

class ModelPoolTest : public testing::Test {
 protected:
  ModelPoolTest() {
    for (const char* name : {"llama", "olmoe", "qwen2"}) {
      const std::filesystem::path path = folder_ / (std::string(name) + ".gguf");
      engine::TinyModel model = engine::tiny_model(name);
      engine::write_gguf(model, path);
      paths_.push_back(path);
    }
  }
  static engine::ModelOptions options(int64_t memory) { return {.memory = memory, .threads = 1}; }
  std::vector<float> alone(size_t model) const {
    engine::Session session(engine::Model::open(paths_[model], options(0)));
    return session.feed(prompt_);
  }
  std::vector<float> from(ModelPool& pool, int64_t model) const {
    engine::Session session(pool.get(model).model);
    return session.feed(prompt_);
  }
  /// A budget with room for the two first models.
  int64_t room_for_two() const {
    const ModelPool ample(paths_, options(int64_t{1} << 40));
    return ample.process() + ample.need(0).resident + ample.need(1).resident;
  }

  TestFolder folder_;
  std::vector<std::filesystem::path> paths_;
  std::vector<TokenId> prompt_ = engine::some_tokens(12, 7);
};

TEST_F(ModelPoolTest, OpensWhatIsAskedForAndClosesTheLeastRecentlyUsed) {
  ModelPool pool(paths_, options(room_for_two()));
  EXPECT_FALSE(pool.get(0).was_open);
  EXPECT_FALSE(pool.get(1).was_open);
  EXPECT_TRUE(pool.get(0).was_open);
  EXPECT_THAT(pool.get(2).left, Contains(1));
  EXPECT_FALSE(pool.is_open(1));
  EXPECT_TRUE(pool.is_open(2));
  EXPECT_EQ(pool.loads(), 3);
}

TEST_F(ModelPoolTest, AnswersAreThoseOfTheModelsAlone) {
  ModelPool pool(paths_, options(room_for_two()));
  for (const int64_t model : {0, 1, 2, 0, 2, 1}) {
    EXPECT_EQ(from(pool, model), alone(static_cast<size_t>(model))) << model;
    EXPECT_LE(pool.used(), pool.budget());
  }
  EXPECT_GT(pool.loads(), 3);
}

TEST_F(ModelPoolTest, AModelThatLeavesGivesItsMemoryBack) {
  ModelPool pool(paths_, options(room_for_two()));
  const std::weak_ptr<engine::Model> first = pool.get(0).model;
  EXPECT_FALSE(first.expired());
  pool.get(1);
  pool.get(2);
  EXPECT_TRUE(first.expired());
}

TEST_F(ModelPoolTest, RefusesABudgetThatAModelCannotRunIn) {
  try {
    ModelPool(paths_, options(int64_t{1} << 20));
    FAIL() << "1 MiB should be too few";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("llama.gguf: 1 MiB of memory are too few"));
  }
  paths_.push_back(folder_ / "missing.gguf");
  EXPECT_THROW(ModelPool(paths_, options(0)), IoError);
}

TEST_F(ModelPoolTest, AModelThatCannotBeOpenedLeavesThePoolUsable) {
  ModelPool pool(paths_, options(0));
  std::filesystem::remove(paths_[1]);
  EXPECT_THROW(pool.get(1), IoError);
  EXPECT_FALSE(pool.is_open(1));
  EXPECT_EQ(pool.used(), 0);
  EXPECT_EQ(from(pool, 0), alone(0));
}

}  // namespace
}  // namespace cadre::ensemble
