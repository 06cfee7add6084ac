/// The generated data sets: skills and routing memory.

#include <gtest/gtest.h>

#include <cmath>

#include "cadre/base/error.h"
#include "cadre/data/rotation.h"
#include "cadre/data/routing_memory.h"
#include "cadre/data/skills.h"

namespace cadre {
namespace {

TEST(RandomRotation, IsOrthogonal) {
  const auto q = random_rotation(9, Random(3));
  EXPECT_LT((q.matmul(q.t()) - torch::eye(9)).abs().max().item<float>(), 1e-5);
}

TEST(Skills, AreAPureFunctionOfSeedAndIndex) {
  const Skills one({}, 5), same({}, 5), other({}, 6);
  EXPECT_TRUE(torch::equal(one.batch(20, 3).x, same.batch(20, 3).x));
  EXPECT_TRUE(torch::equal(one.batch(20, 3).y, same.batch(20, 3).y));
  EXPECT_FALSE(torch::equal(one.batch(20, 3).x, one.batch(20, 4).x));
  EXPECT_FALSE(torch::equal(one.batch(20, 3).y, other.batch(20, 3).y));
}

TEST(Skills, InputsHoldTheSkillsAndHardSamplesAreAShareOfAll) {
  const Skills skills({.noise = 0}, 1);
  const auto batch = skills.batch(4000, 0);
  EXPECT_EQ(batch.x.sizes(), (std::vector<int64_t>{4000, 32}));
  EXPECT_EQ(batch.y.sizes(), (std::vector<int64_t>{4000, 8}));
  EXPECT_NEAR((batch.skills == 3).to(torch::kFloat32).mean().item<float>(), 0.3, 0.03);
  EXPECT_TRUE(((batch.skills == 3) | (batch.skills == 1)).all().item<bool>());
  // |x|^2 = |z|^2 + 4 whatever the number of skills: the rotation keeps lengths.
  EXPECT_NEAR(batch.x.square().sum(1).mean().item<float>(), 16 + 4, 0.5);
}

TEST(Skills, MeanAndRootSumDifferByRootOfTheNumber) {
  SkillsOptions options{.hard_share = 1, .hard_skills = 4};
  const Skills mean(options, 2);
  options.combine = SkillsOptions::Combine::kRootSum;
  const Skills root(options, 2);
  EXPECT_LT((mean.batch(10, 0).y * 2 - root.batch(10, 0).y).abs().max().item<float>(), 1e-5);
}

TEST(Skills, TheCommonTeacherIsAddedToAll) {
  SkillsOptions options{.hard_share = 1, .hard_skills = 1};
  const Skills without(options, 2);
  options.common_inner = 24;
  const Skills with(options, 2);
  EXPECT_TRUE(torch::equal(without.batch(10, 0).x, with.batch(10, 0).x));
  EXPECT_GT((without.batch(10, 0).y - with.batch(10, 0).y).square().mean().item<float>(), 0.05);
  EXPECT_THROW(Skills({.skills = 2, .hard_skills = 3}, 1), UsageError);
  EXPECT_THROW(Skills({.skills = 0}, 1), UsageError);
}

TEST(RoutingMemory, TheTagDecidesTheTarget) {
  const RoutingMemory memory({}, 4);
  const auto batch = memory.batch(500, 1);
  EXPECT_TRUE(torch::equal(batch.y, memory.batch(500, 1).y));
  EXPECT_FALSE(torch::equal(batch.y, memory.batch(500, 2).y));
  EXPECT_EQ(batch.tag_hot.sum().item<float>(), 2 * 500);
  EXPECT_TRUE(torch::equal(batch.tag_hot.argmax(1), batch.tag));
  EXPECT_EQ(batch.tag.max().item<int64_t>(), 7);
  // Four steps of at most 1 each.
  const float moved = (batch.y - batch.z).abs().max().item<float>();
  EXPECT_GT(moved, 1);
  EXPECT_LE(moved, 4);
  EXPECT_THROW(RoutingMemory({.tags = 0}, 1), UsageError);
}

}  // namespace
}  // namespace cadre
