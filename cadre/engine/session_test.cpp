#include "cadre/engine/session.h"
#include "cadre/engine/streaming_provider.h"
#include "cadre/engine/tensor_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "cadre/engine/test_models.h"
#include "cadre/formats/file.h"
#include "cadre/formats/test_folder.h"

namespace cadre::engine {
namespace {

using kernels::BlockType;
using ::testing::HasSubstr;
using Want = Model::Slice::Want;

/// What is left between floats and doubles: mostly keys and values on the edge between two BF16.
constexpr double kNear = 1e-3;

std::shared_ptr<Model> open(const TestFolder& folder, TinyModel& tiny,
                            BlockType type = BlockType::kF32, ModelOptions options = {}) {
  write_gguf(tiny, folder / "model.gguf", type);
  if (options.threads == 0) options.threads = 2;
  return Model::open(folder / "model.gguf", options);
}

std::vector<float> all_logits(Model& model, Session& session, const std::vector<TokenId>& tokens) {
  const Model::Slice slice = {&session, tokens, Want::kAll};
  return model.forward({&slice, 1});
}

/// Largest difference, relative to the logits' spread.
double difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double most = 0, squares = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::fabs(double{a[i]} - b[i]));
    squares += double{b[i]} * b[i];
  }
  return most / std::sqrt(squares / static_cast<double>(b.size()));
}

/// The median token's difference: rounding turns the choice of an expert for a few.
double usual_difference(const std::vector<float>& a, const std::vector<float>& b) {
  std::vector<double> each;
  for (size_t at = 0; at < b.size(); at += 96) {
    const auto from = static_cast<int64_t>(at);
    each.push_back(difference({a.begin() + from, a.begin() + from + 96},
                              {b.begin() + from, b.begin() + from + 96}));
  }
  std::nth_element(each.begin(), each.begin() + static_cast<int64_t>(each.size() / 2), each.end());
  return each[each.size() / 2];
}

std::string complaint(const std::filesystem::path& path) {
  try {
    Model::open(path, {.threads = 1});
  } catch (const FormatError& error) {
    return error.what();
  }
  return "no complaint";
}

class EveryArchitecture : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryArchitecture, LogitsAgreeWithPlainComputation) {
  const TestFolder folder;
  TinyModel tiny = tiny_model(GetParam());
  const auto model = open(folder, tiny);
  const auto tokens = some_tokens(70, 1);  // beyond one page of the cache
  Session session(model);
  EXPECT_LT(difference(all_logits(*model, session, tokens), plain_logits(tiny, tokens)), kNear);
}

TEST_P(EveryArchitecture, QuantisedLogitsAreNear) {
  const TestFolder folder;
  TinyModel tiny = tiny_model(GetParam());
  const auto model = open(folder, tiny, BlockType::kQ8_0);
  const auto tokens = some_tokens(12, 2);
  Session session(model);
  EXPECT_LT(usual_difference(all_logits(*model, session, tokens), plain_logits(tiny, tokens)), 0.2);
}

TEST_P(EveryArchitecture, EightBitKeysAndValuesAreNear) {
  const TestFolder folder;
  TinyModel tiny = tiny_model(GetParam());
  const auto model = open(folder, tiny, BlockType::kF32, {.kv_type = KvType::kQ8});
  const auto tokens = some_tokens(70, 1);
  Session session(model);
  const auto logits = all_logits(*model, session, tokens);
  EXPECT_LT(usual_difference(logits, plain_logits(tiny, tokens)), 0.05);
  const auto exact = Model::open(folder / "model.gguf", {.threads = 2});
  Session other(exact);
  EXPECT_NE(logits, all_logits(*exact, other, tokens)) << "nothing was rounded";
}

void expect_bits_of_one_thread(const std::string& architecture, KvType kv_type) {
  const TestFolder folder;
  TinyModel tiny = tiny_model(architecture);
  const auto model =
      open(folder, tiny, BlockType::kQ8_0, {.threads = 3, .prefill = 50, .kv_type = kv_type});
  const auto single = Model::open(folder / "model.gguf", {.threads = 1, .kv_type = kv_type});
  const auto tokens = some_tokens(70, 3), other = some_tokens(40, 4);
  Session whole(single);
  const auto expected = all_logits(*single, whole, tokens);
  const int64_t vocabulary = single->spec().vocabulary;

  Session chunked(model);
  EXPECT_EQ(all_logits(*model, chunked, tokens), expected);

  Session stepwise(model);
  std::vector<float> steps;
  for (const TokenId token : tokens) {
    const auto logits = stepwise.feed({&token, 1});
    steps.insert(steps.end(), logits.begin(), logits.end());
  }
  EXPECT_EQ(steps, expected);

  Session batched(model), neighbour(model), decoding(model);
  decoding.feed(std::span(tokens).first(69));
  const std::vector<Model::Slice> slices = {{&neighbour, other, Want::kNone},
                                            {&batched, tokens, Want::kLast},
                                            {&decoding, std::span(tokens).last(1), Want::kLast}};
  const auto last = model->forward(slices);
  const std::vector<float> wanted(expected.end() - vocabulary, expected.end());
  EXPECT_EQ(std::vector<float>(last.begin(), last.begin() + vocabulary), wanted);
  EXPECT_EQ(std::vector<float>(last.begin() + vocabulary, last.end()), wanted);
}

TEST_P(EveryArchitecture, BitsDoNotDependOnChunksBatchesOrThreads) {
  expect_bits_of_one_thread(GetParam(), KvType::kBf16);
  expect_bits_of_one_thread(GetParam(), KvType::kQ8);
}

TEST_P(EveryArchitecture, StreamedExpertsGiveTheSameBits) {
  const TestFolder folder;
  TinyModel tiny = tiny_model(GetParam());
  const auto resident = open(folder, tiny, BlockType::kQ8_0);
  if (resident->spec().experts == 0) return;  // a dense model streams nothing
  const auto tokens = some_tokens(40, 7);
  Session whole(resident);
  const auto expected = all_logits(*resident, whole, tokens);
  const auto source = open_source(folder / "model.gguf");
  const int64_t least = least_streaming_bytes(find_expert_files(*source));
  for (const char* predictor : {"gate", "coactivation", "none"}) {
    const auto streamed = Model::open(
        folder / "model.gguf", {.expert_memory = least, .threads = 2, .predictor = predictor});
    Session chunk(streamed), stepwise(streamed);
    EXPECT_EQ(all_logits(*streamed, chunk, tokens), expected) << predictor;
    std::vector<float> steps;
    for (const TokenId token : tokens) {
      const auto logits = stepwise.feed({&token, 1});
      steps.insert(steps.end(), logits.begin(), logits.end());
    }
    EXPECT_EQ(steps, expected) << predictor;
    EXPECT_GT(streamed->expert_counters().misses, 0) << predictor;
  }
}

INSTANTIATE_TEST_SUITE_P(Engine, EveryArchitecture, ::testing::ValuesIn(tiny_model_names()),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

class EveryType : public ::testing::TestWithParam<BlockType> {};

TEST_P(EveryType, LogitsAreNearPlainComputation) {
  const TestFolder folder;
  TinyModel tiny = wide_model("olmoe");
  const auto model = open(folder, tiny, GetParam());
  const auto tokens = some_tokens(9, 5);
  Session session(model);
  EXPECT_LT(usual_difference(all_logits(*model, session, tokens), plain_logits(tiny, tokens)), 0.2);
}

INSTANTIATE_TEST_SUITE_P(Engine, EveryType,
                         ::testing::Values(BlockType::kF16, BlockType::kBF16, BlockType::kQ8_0,
                                           BlockType::kQ4_0, BlockType::kQ4_K, BlockType::kQ6_K),
                         [](const auto& info) {
                           return std::string(kernels::block_info(info.param).name);
                         });

TEST(Session, LongContextsMergeChunksInOneOrder) {
  const TestFolder folder;
  TinyModel tiny = tiny_model("qwen3");
  const auto model = open(folder, tiny, BlockType::kF32, {.threads = 3});
  const auto single = Model::open(folder / "model.gguf", {.threads = 1});
  const auto tokens = some_tokens(1100, 6);
  Session whole(single), split(model);
  const auto expected = whole.feed(tokens);
  split.feed(std::span(tokens).first(700));
  split.feed(std::span(tokens).subspan(700, 399));
  EXPECT_EQ(split.feed(std::span(tokens).last(1)), expected);
  const auto plain = plain_logits(tiny, tokens);
  EXPECT_LT(difference(expected, {plain.end() - 96, plain.end()}), kNear);
}

TEST(Session, PlannedContextChoosesTheFactorsOfRotaryPositions) {
  const TestFolder folder;
  const auto tokens = some_tokens(20, 6);
  const auto logits = [&](const std::map<std::string, float>& factors, int64_t context) {
    TinyModel tiny = tiny_model("phimoe");
    const auto pairs = static_cast<size_t>(tiny.config.head_width / 2);
    for (const auto& [name, factor] : factors) {
      tiny.tensors["rope_" + name + ".weight"] = {{tiny.config.head_width / 2},
                                                  std::vector<float>(pairs, factor)};
    }
    tiny.keys["rope.scaling.original_context_length"] = uint32_t{64};
    const auto model = open(folder, tiny, BlockType::kF32, {.context = context});
    return Session(model).feed(tokens);
  };
  const std::map<std::string, float> both = {{"factors_short", 2.0F}, {"factors_long", 5.0F}};
  EXPECT_EQ(logits(both, 64), logits({{"freqs", 2.0F}}, 64));
  EXPECT_EQ(logits(both, 65), logits({{"freqs", 5.0F}}, 65));
  EXPECT_NE(logits(both, 64), logits(both, 65));
}

TEST(Session, TruncateAndForkContinueAsIfFresh) {
  for (const std::string name : {"olmoe", "gpt-oss"}) {
    const TestFolder folder;
    TinyModel tiny = tiny_model(name);
    const auto model = open(folder, tiny);
    const auto tokens = some_tokens(200, 7), other = some_tokens(30, 8);
    Session session(model), fresh(model);
    session.feed(tokens);
    Session child = session.fork(150);
    session.truncate(100);
    const auto after = session.feed(other);
    fresh.feed(std::span(tokens).first(100));
    EXPECT_EQ(after, fresh.feed(other)) << name;
    Session second(model);
    second.feed(std::span(tokens).first(150));
    EXPECT_EQ(child.feed(other), second.feed(other)) << name;
    EXPECT_EQ(child.tokens().size(), 180u);
  }
}

TEST(Session, RefusesWhatItCannotDo) {
  const TestFolder folder;
  TinyModel tiny = tiny_model("olmoe");
  const auto model = open(folder, tiny, BlockType::kF32, {.context = 10});
  Session session(model);
  EXPECT_THROW(session.feed({}), UsageError);
  EXPECT_THROW(session.feed(std::vector<TokenId>{96}), UsageError);
  EXPECT_THROW(session.feed(std::vector<TokenId>{-1}), UsageError);
  EXPECT_THROW(session.feed(some_tokens(11, 1)), UsageError);
  session.feed(some_tokens(10, 1));
  EXPECT_THROW(session.feed(some_tokens(1, 1)), UsageError);
  EXPECT_THROW(session.truncate(11), UsageError);
  Session twice(model);
  const auto tokens = some_tokens(2, 1);
  const std::vector<Model::Slice> same = {{&twice, tokens, Want::kLast},
                                          {&twice, tokens, Want::kLast}};
  EXPECT_THROW(model->forward(same), UsageError);
  model->routing.experts_per_token = 9;
  EXPECT_THROW(twice.feed(tokens), UsageError);
  EXPECT_THROW(Model::open(folder / "model.gguf", {.context = 100000}), UsageError);
  EXPECT_THROW(Model::open(folder / "model.gguf", {.threads = -1}), UsageError);
  EXPECT_THROW(Model::open(folder / "absent.gguf"), IoError);
}

TEST(Session, RoutesAreHeard) {
  const TestFolder folder;
  TinyModel tiny = tiny_model("deepseek");
  const auto model = open(folder, tiny);
  Session session(model);
  int64_t heard = 0;
  model->on_route = [&](int64_t layer, int64_t position, const Session* from,
                        std::span<const int32_t> experts, std::span<const float> weights) {
    EXPECT_EQ(layer, 1);
    EXPECT_EQ(position, heard++);
    EXPECT_EQ(from, &session);
    EXPECT_EQ(experts.size(), 2u);
    EXPECT_GE(weights[0], weights[1]);
  };
  session.feed(some_tokens(5, 9));
  EXPECT_EQ(heard, 5);
  EXPECT_GT(model->expert_counters().hits, 0);
}

TEST(Session, FewerExpertsChangeLittleAndDeterministically) {
  const TestFolder folder;
  TinyModel tiny = tiny_model("qwen3moe");
  const auto model = open(folder, tiny);
  const auto tokens = some_tokens(6, 10);
  model->routing.experts_per_token = 1;
  Session one(model);
  const auto logits = one.feed(tokens);
  model->routing = {.top_p = 0.01F};  // the best expert alone holds as much
  Session least(model);
  EXPECT_EQ(least.feed(tokens), logits);
}

TEST(Model, NamesWhatIsWrongWithAFile) {
  const TestFolder folder;
  const auto path = folder / "bad.gguf";
  const auto with = [&](const std::string& name, auto change) {
    TinyModel tiny = tiny_model(name);
    change(tiny);
    write_gguf(tiny, path);
    return complaint(path);
  };
  EXPECT_THAT(with("olmoe", [](TinyModel& m) { m.remove("blk.1.attn_k.weight"); }),
              HasSubstr("\"blk.1.attn_k.weight\" is missing"));
  EXPECT_THAT(with("olmoe", [](TinyModel& m) { m.remove("blk.0.ffn_up_exps.weight"); }),
              HasSubstr("blk.0.ffn_up_exps.weight"));
  EXPECT_THAT(with("qwen2", [](TinyModel& m) { m.remove("blk.0.attn_q.bias"); }),
              HasSubstr("blk.0.attn_q.bias"));
  EXPECT_THAT(with("olmoe", [](TinyModel& m) { m.keys.erase("block_count"); }),
              HasSubstr("\"olmoe.block_count\" is missing"));
  EXPECT_THAT(with("olmoe", [](TinyModel& m) { m.keys["expert_used_count"] = uint32_t{9}; }),
              HasSubstr("expert_used_count"));
  EXPECT_THAT(with("llama", [](TinyModel& m) { m.architecture = "mamba"; }),
              HasSubstr("\"mamba\" is not supported"));
  EXPECT_THAT(with("llama",
                   [](TinyModel& m) {
                     m.tensors["blk.0.attn_q.weight"].shape = {32, 128};
                   }),
              HasSubstr("must be [64, 64]"));
  EXPECT_THAT(with("llama",
                   [](TinyModel& m) {
                     m.tensors["blk.0.attn_q_norm.weight"] = {{16}, std::vector<float>(16)};
                   }),
              HasSubstr("blk.0.attn_q_norm.weight"));
}

TEST(Model, EveryTruncationIsRefused) {
  const TestFolder folder;
  TinyModel tiny = tiny_model("olmoe");
  write_gguf(tiny, folder / "model.gguf");
  const std::string bytes = read_file(folder / "model.gguf");
  for (size_t size = 0; size < bytes.size(); size += 1 + bytes.size() / 50) {
    write_file(folder / "cut.gguf", std::string_view(bytes).substr(0, size));
    EXPECT_NE(complaint(folder / "cut.gguf"), "no complaint") << size;
  }
}

TEST(Model, WeightsThatAreNotFiniteAreNamed) {
  const TestFolder folder;
  TinyModel tiny = tiny_model("olmoe");
  tiny.tensors["blk.1.attn_norm.weight"].values[3] = NAN;
  const auto model = open(folder, tiny);
  Session session(model);
  try {
    session.feed(some_tokens(3, 1));
    FAIL() << "no complaint";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("layer 1"));
  }
  EXPECT_TRUE(session.tokens().empty());
}

}  // namespace
}  // namespace cadre::engine
