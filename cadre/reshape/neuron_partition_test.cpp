#include "cadre/reshape/neuron_partition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "cadre/base/error.h"
#include "cadre/base/random.h"

namespace cadre::reshape {
namespace {

using ::testing::ElementsAre;

void expect_covers_once(const NeuronPartition& partition, int64_t neurons) {
  auto order = partition.order;
  std::sort(order.begin(), order.end());
  ASSERT_EQ(static_cast<int64_t>(order.size()), neurons);
  for (int32_t i = 0; i < neurons; ++i) ASSERT_EQ(order[static_cast<size_t>(i)], i);
  for (int64_t e = 0; e < partition.experts; ++e) {
    EXPECT_TRUE(std::is_sorted(partition.of(e).begin(), partition.of(e).end()));
  }
}

TEST(NeuronPartition, EveryPolicyCoversEachNeuronOnce) {
  Random random(1);
  std::vector<float> features(48 * 5);
  for (float& f : features) f = random.normal();
  for (const int64_t experts : {1, 2, 4, 48}) {
    expect_covers_once(partition_contiguous(48, experts), 48);
    expect_covers_once(partition_random(48, experts, 2), 48);
    expect_covers_once(partition_kmeans(48, 5, features.data(), experts, 3), 48);
  }
  std::fill(features.begin(), features.end(), 0.0F);
  expect_covers_once(partition_kmeans(48, 5, features.data(), 4, 3), 48);
  EXPECT_THROW(partition_contiguous(48, 5), UsageError);
  EXPECT_NE(partition_random(48, 4, 2).order, partition_random(48, 4, 3).order);
  EXPECT_EQ(partition_random(48, 4, 2).order, partition_random(48, 4, 2).order);
}

TEST(NeuronPartition, KmeansFindsPlantedClusters) {
  const int64_t neurons = 60, width = 8, experts = 3;
  for (uint64_t seed = 0; seed < 5; ++seed) {
    Random random(seed, {9});
    std::vector<float> features(static_cast<size_t>(neurons * width));
    for (int64_t i = 0; i < neurons; ++i) {
      for (int64_t j = 0; j < width; ++j) {
        features[static_cast<size_t>(i * width + j)] =
            0.2F * random.normal() + (j == i % experts ? 2.0F : 0.0F);
      }
    }
    const auto partition = partition_kmeans(neurons, width, features.data(), experts, seed);
    for (int64_t e = 0; e < experts; ++e) {
      for (const int32_t i : partition.of(e)) {
        EXPECT_EQ(i % experts, partition.of(e)[0] % experts) << "seed " << seed;
      }
    }
  }
}

TEST(NeuronPartition, MasksKeepExactlyTheRate) {
  const std::vector<double> activity = {5, 4, 3, 2, 1, 0,  //
                                        5, 0, 3, 4, 1, 2};
  const DomainMasks masks = mask_by_activity(2, 6, activity.data(), 0.5);
  EXPECT_THAT(masks.shared, ElementsAre(0, 2));
  EXPECT_THAT(masks.specific[0], ElementsAre(1));
  EXPECT_THAT(masks.specific[1], ElementsAre(3));
  const std::vector<double> ties(12, 1.0);
  EXPECT_THAT(mask_by_activity(2, 6, ties.data(), 0.5).shared, ElementsAre(0, 1, 2));
  EXPECT_EQ(mask_by_activity(2, 6, activity.data(), 1).shared.size(), 6U);
  EXPECT_THROW(mask_by_activity(2, 6, activity.data(), 0), UsageError);
}

}  // namespace
}  // namespace cadre::reshape
