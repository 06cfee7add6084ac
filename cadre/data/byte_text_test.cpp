#include "cadre/data/byte_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cadre/base/error.h"

namespace cadre {
namespace {

using testing::ElementsAre;
using testing::SizeIs;

/// Bytes that say where they stand.
std::string counting(int64_t size) {
  std::string text;
  for (int64_t i = 0; i < size; ++i) text.push_back(static_cast<char>(i % 251));
  return text;
}

TEST(ByteText, TargetsFollowInputsAndDomainsTakeTurns) {
  const ByteText text({{"a", counting(300), counting(100)}, {"b", counting(90), counting(60)}}, 4,
                      16, 3);
  const TokenBatch batch = text.at(5);
  EXPECT_TRUE(torch::equal(batch.targets.narrow(1, 0, 15), batch.inputs.narrow(1, 1, 15)));
  EXPECT_TRUE(torch::equal((batch.inputs + 1).remainder(251), batch.targets));
  EXPECT_TRUE(torch::equal(batch.domains, torch::tensor({0, 1, 0, 1}, torch::kInt64)));
  EXPECT_TRUE(torch::equal(batch.inputs, text.at(5).inputs));
  EXPECT_FALSE(torch::equal(batch.inputs, text.at(6).inputs));
  EXPECT_THAT(text.names(), ElementsAre("a", "b"));
}

TEST(ByteText, ValidationCoversTheHeldOutBytes) {
  const ByteText text({{"a", counting(300), counting(200)}}, 4, 16, 3);
  const auto validation = text.validation(6);
  ASSERT_THAT(validation, SizeIs(1));
  ASSERT_THAT(validation[0], SizeIs(2));
  EXPECT_EQ(validation[0][0].inputs[0][0].item<int64_t>(), 0);
  EXPECT_EQ(validation[0][1].targets[1][15].item<int64_t>(), 199);
}

TEST(ByteText, EveryTwentiethBlockIsHeldOutAndTheSizeKept) {
  const ByteDomain domain = byte_domain(
      {.name = "a", .documents = {std::string(100000, 'x'), std::string(100000, 'y')}}, 150000);
  EXPECT_EQ(domain.train.size() + domain.validation.size(), 150000);
  EXPECT_EQ(domain.validation.size(), 4096);
}

TEST(ByteText, RefusesWhatIsTooSmall) {
  EXPECT_THROW(ByteText({}, 1, 1, 1), UsageError);
  EXPECT_THROW(ByteText({{"a", counting(300), counting(16)}}, 4, 16, 3), UsageError);
  EXPECT_THROW(ByteText({{"a", counting(300), counting(30)}}, 0, 16, 3), UsageError);
}

}  // namespace
}  // namespace cadre
