#include "cadre/reshape/schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cadre/base/error.h"

namespace cadre::reshape {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr DType kType = DType::kBF16;

TEST(Schema, OneExpertIsTheSameRowsHoweverItIsStored) {
  const int64_t experts = 3, inner = 5, hidden = 4;
  std::vector<TensorInfo> apart;
  for (int64_t e = 0; e < experts; ++e)
    for (const Role role : {Role::kExpertGate, Role::kExpertUp})
      apart.push_back({tensor_name("olmoe", role, 2, e), kType, {inner, hidden}});
  const Schema own({{"model_type", "olmoe"}}, apart, "own");
  const Schema fused({{"model_type", "qwen3_moe"}},
                     {{"model.layers.2.mlp.experts.gate_up_proj", kType, {3, 10, 4}}}, "fused");
  const Schema stacked({{"model_type", "qwen3_moe"}},
                       {{"model.layers.2.mlp.experts.up_proj", kType, {3, 5, 4}}}, "stacked");
  for (const Schema* schema : {&own, &fused, &stacked}) {
    EXPECT_EQ(schema->experts_of(2), experts);
    EXPECT_EQ(schema->expert_shape(Role::kExpertUp, 2, 1), (std::vector<int64_t>{inner, hidden}));
  }
  EXPECT_EQ(own.expert_matrix(Role::kExpertUp, 2, 1).first_row, 0);
  EXPECT_EQ(fused.expert_matrix(Role::kExpertGate, 2, 1).first_row, 10);
  EXPECT_EQ(fused.expert_matrix(Role::kExpertUp, 2, 1).first_row, 15);
  EXPECT_EQ(fused.expert_matrix(Role::kExpertUp, 2, 1).rows, inner);
  EXPECT_EQ(stacked.expert_matrix(Role::kExpertUp, 2, 1).first_row, 5);
  EXPECT_THAT([&] { fused.expert_matrix(Role::kExpertDown, 2, 1); },
              ThrowsMessage<UsageError>(HasSubstr("expert_down")));
}

TEST(Schema, NamesAndRolesAreInverse) {
  for (const char* type : {"llama", "mixtral", "olmoe", "deepseek", "qwen2_moe", "qwen3_moe"})
    for (const Role role :
         {Role::kEmbedding, Role::kHead, Role::kFinalNorm, Role::kQuery, Role::kAttentionOutput,
          Role::kFeedForwardNorm, Role::kRouter, Role::kExpertGate, Role::kExpertUp,
          Role::kExpertDown, Role::kSharedUp}) {
      if (std::string_view(type) == "mixtral" && role == Role::kSharedUp) continue;
      const std::string name = tensor_name(type, role, 7, 3);
      const Schema schema({{"model_type", type}}, {{name, kType, {2, 2}}}, "x");
      EXPECT_EQ(schema.tensors()[0].role, role) << name;
      EXPECT_EQ(role_named(name_of(role)), role);
    }
}

TEST(Schema, CountsWhatWorksOnAToken) {
  std::vector<TensorInfo> tensors = {{"model.embed_tokens.weight", kType, {10, 4}}};
  for (int64_t e = 0; e < 4; ++e)
    tensors.push_back({tensor_name("mixtral", Role::kExpertUp, 0, e), kType, {6, 4}});
  const Schema apart({{"model_type", "mixtral"}, {"num_experts_per_tok", 2}}, tensors, "x");
  EXPECT_EQ(apart.counts().total, 40 + 4 * 24);
  EXPECT_EQ(apart.counts().active, 40 + 2 * 24);
  EXPECT_EQ(apart.counts().experts, 4);
  const Schema stacked({{"num_experts_per_tok", 2}},
                       {{"model.layers.0.mlp.experts.up_proj", kType, {4, 6, 4}}}, "x");
  EXPECT_EQ(stacked.counts().active, 2 * 24);
}

TEST(Schema, UnknownTensorsAreKeptAsOthers) {
  const Schema schema(nlohmann::json::object(), {{"visual.blocks.0.weight", kType, {2}}}, "x");
  EXPECT_EQ(schema.tensors()[0].role, Role::kOther);
  EXPECT_EQ(schema.tensors()[0].layer, -1);
  EXPECT_THAT([&] { schema.require(Role::kHead); },
              ThrowsMessage<UsageError>(HasSubstr("has no head weight")));
}

}  // namespace
}  // namespace cadre::reshape
