#include "cadre/data/token_batches.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>

#include "cadre/base/error.h"
#include "cadre/data/test_tokens.h"
#include "cadre/formats/test_folder.h"

namespace cadre {
namespace {

using testing::HasSubstr;

/// Tokens that say where they stand: domain d holds 100 * d, 100 * d + 1, ...
std::shared_ptr<const TokenFile> counting(const TestFolder& folder, int64_t d, int64_t size) {
  std::vector<TokenId> ids;
  for (int64_t i = 0; i < size; ++i) ids.push_back(static_cast<TokenId>(100 * d + i));
  return write_test_tokens(folder / std::to_string(d), ids, 1000);
}

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const UsageError& error) {
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

class TokenBatchesTest : public testing::Test {
 protected:
  TokenBatches make(int64_t batch, std::vector<double> weights = {}, uint64_t seed = 1) {
    return TokenBatches({{"a", counting(folder_, 0, 41), nullptr},
                         {"b", counting(folder_, 1, 25), nullptr},
                         {"c", counting(folder_, 2, 9), nullptr}},
                        batch, 8, seed, std::move(weights));
  }
  TestFolder folder_;
};

TEST_F(TokenBatchesTest, TargetsAreTheNextTokens) {
  const TokenBatch batch = make(5).at(3);
  EXPECT_EQ(batch.inputs.sizes(), (torch::IntArrayRef{5, 8}));
  EXPECT_TRUE(batch.targets.equal(batch.inputs + 1));
  EXPECT_TRUE(batch.inputs.select(1, 0).div(100, "floor").equal(batch.domains));
}

TEST_F(TokenBatchesTest, DomainsTakeEqualShares) {
  const TokenBatches batches = make(6);
  for (int64_t i = 0; i < 10; ++i) {
    EXPECT_TRUE(torch::bincount(batches.at(i).domains).equal(torch::tensor({2, 2, 2})));
  }
  EXPECT_THAT(batches.shares(), testing::Each(testing::DoubleNear(1.0 / 3, 1e-12)));
}

TEST_F(TokenBatchesTest, EveryPassUsesEverySequenceOnceInAnewOrder) {
  const TokenBatches batches = make(3);
  std::vector<std::vector<int64_t>> passes(4);
  for (int64_t pass = 0; pass < 4; ++pass) {
    for (int64_t i = 0; i < 5; ++i) {
      passes[pass].push_back(batches.at(pass * 5 + i).inputs[0][0].item<int64_t>());
    }
    EXPECT_THAT(passes[pass], testing::UnorderedElementsAre(0, 8, 16, 24, 32));
  }
  EXPECT_GT(std::set(passes.begin(), passes.end()).size(), 1U);
}

TEST_F(TokenBatchesTest, OrderIsAFunctionOfTheSeed) {
  EXPECT_TRUE(make(4).at(7).inputs.equal(make(4).at(7).inputs));
  EXPECT_FALSE(make(30).at(0).inputs.equal(make(30, {}, 2).at(0).inputs));
}

TEST_F(TokenBatchesTest, MicroBatchesAreTheBigBatch) {
  const TokenBatches small = make(4), big = make(8);
  EXPECT_TRUE(torch::cat({small.at(4).inputs, small.at(5).inputs}).equal(big.at(2).inputs));
}

TEST_F(TokenBatchesTest, WeightsSetTheShares) {
  const TokenBatches batches = make(1024, {6, 1, 1});
  const torch::Tensor counts = torch::bincount(batches.at(0).domains);
  EXPECT_TRUE(counts.equal(torch::tensor({768, 128, 128}))) << counts;
}

TEST_F(TokenBatchesTest, BadInputIsNamed) {
  const auto a = counting(folder_, 0, 41);
  const auto construct = [](std::vector<DomainTokens> domains, std::vector<double> weights = {}) {
    return [=] { TokenBatches(domains, 2, 8, 1, weights); };
  };
  EXPECT_THAT(
      message_of(construct({{"a", a, nullptr}, {"tiny", counting(folder_, 1, 8), nullptr}})),
      HasSubstr("domain 'tiny' has 8 training tokens, one sequence needs 9"));
  EXPECT_THAT(message_of(construct({{"none", counting(folder_, 1, 0), nullptr}})),
              HasSubstr("domain 'none' has 0 training tokens"));
  EXPECT_THAT(message_of(construct({})), HasSubstr("no domain"));
  EXPECT_THAT(message_of(construct({{"a", a, nullptr}}, {1, 2})), HasSubstr("2 weights for 1"));
  EXPECT_THAT(message_of(construct({{"a", a, nullptr}}, {0.0})), HasSubstr("must be above 0"));
  EXPECT_THAT(message_of([&] {
                TokenBatches({{"a", a, nullptr}}, 0, 8, 1);
              }),
              HasSubstr("batch is 0"));
  EXPECT_THAT(message_of([&] {
                TokenBatches({{"a", a, nullptr}}, 1, 0, 1);
              }),
              HasSubstr("length is 0"));
  const auto other = write_test_tokens(folder_ / "other", {1, 2, 3, 4, 5, 6, 7, 8, 9}, 999);
  EXPECT_THAT(message_of(construct({{"a", a, nullptr}, {"b", other, nullptr}})),
              HasSubstr("'a' and 'b' were encoded with different tokenizers"));
}

TEST_F(TokenBatchesTest, ValidationIsSpreadOverTheFile) {
  const DomainTokens domain{"a", nullptr, counting(folder_, 0, 81)};
  const auto batches = validation_batches(domain, 4, 2, 8, 5);
  ASSERT_EQ(batches.size(), 3U);
  EXPECT_EQ(batches.back().inputs.size(0), 1);
  std::vector<int64_t> starts;
  for (const TokenBatch& batch : batches) {
    EXPECT_TRUE(batch.domains.eq(4).all().item<bool>());
    for (int64_t row = 0; row < batch.inputs.size(0); ++row) {
      starts.push_back(batch.inputs[row][0].item<int64_t>());
    }
  }
  EXPECT_THAT(starts, testing::ElementsAre(0, 16, 32, 48, 64));
}

TEST_F(TokenBatchesTest, ShortValidationGivesOneShorterSequence) {
  const auto batches = validation_batches({"a", nullptr, counting(folder_, 0, 5)}, 0, 2, 8, 5);
  ASSERT_EQ(batches.size(), 1U);
  EXPECT_EQ(batches[0].inputs.sizes(), (torch::IntArrayRef{1, 4}));
  EXPECT_THAT(message_of([&] {
                validation_batches({"a", nullptr, counting(folder_, 1, 1)}, 0, 2, 8, 5);
              }),
              HasSubstr("domain 'a' has 1 validation tokens"));
  EXPECT_THAT(message_of([&] {
                validation_batches({"a", nullptr, nullptr}, 0, 2, 8, 5);
              }),
              HasSubstr("domain 'a' has 0 validation tokens"));
}

}  // namespace
}  // namespace cadre
