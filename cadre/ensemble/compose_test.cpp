#include "cadre/ensemble/compose.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/engine/test_models.h"
#include "cadre/formats/test_folder.h"

namespace cadre::ensemble {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// Letters for "code", digits for "prose"; in turns.
std::vector<LabelledPrompt> some_prompts(int64_t count) {
  Random random(5);
  std::vector<LabelledPrompt> prompts;
  for (int64_t i = 0; i < count; ++i) {
    const bool code = i % 2 == 0;
    std::string text;
    for (int j = 0; j < 30; ++j) {
      text += static_cast<char>((code ? 'a' : '0') + static_cast<int>(random.below(10)));
    }
    prompts.push_back({.category = code ? "code" : "prose", .prompt = text, .answer = "x"});
  }
  return prompts;
}

const std::vector<ComposeModel> kModels = {{"coder", 30}, {"poet", 50}, {"clerk", 40}};

/// The coder is good at code, the poet at prose, the clerk fair at both.
double loss_of(int64_t model, const LabelledPrompt& prompt) {
  const bool code = prompt.category == "code";
  const double noise = 0.01 * static_cast<double>(prompt.prompt[0] % 3);
  return noise + (model == 2 ? 2 : (model == 0) == code ? 1 : 4);
}

TEST(Compose, EachCategoryGoesToWhoIsBestAtIt) {
  const Composition made = compose(some_prompts(90), kModels, loss_of);
  EXPECT_THAT(made.categories.names, ElementsAre("code", "prose"));
  EXPECT_THAT(made.map.model, ElementsAre(0, 1));
  EXPECT_EQ(made.general, 2);  // the least mean loss
  EXPECT_EQ(made.map.size, 120);
  EXPECT_EQ(made.accuracy, 1);
  EXPECT_EQ(made.trained, 60);
  EXPECT_EQ(made.validated, 30);
  EXPECT_THAT(made.stability,
              ElementsAre(testing::DoubleNear(1, 1e-9), testing::DoubleNear(1, 1e-9)));
  EXPECT_EQ(made.categories.router.route("gfedcba").category, 0);
}

TEST(Compose, ABudgetLeavesOutWhoGainsLeast) {
  const Composition made = compose(some_prompts(90), kModels, loss_of, {.budget = 75});
  EXPECT_EQ(made.general, 2);
  EXPECT_THAT(made.map.model, ElementsAre(0, 2));
  EXPECT_LE(made.map.size, 75);
  const Composition one = compose(some_prompts(90), kModels, loss_of, {.budget = 30});
  EXPECT_THAT(one.map.model, ElementsAre(0, 0));  // all that fits
}

TEST(Compose, MeasuresOnValidationPromptsOnly) {
  int64_t calls = 0;
  compose(some_prompts(90), kModels, [&](int64_t model, const LabelledPrompt& prompt) {
    ++calls;
    return loss_of(model, prompt);
  });
  EXPECT_EQ(calls, 3 * 30);
}

std::string complaint(const std::vector<LabelledPrompt>& prompts, const ComposeOptions& options,
                      double loss = 1) {
  try {
    compose(
        prompts, kModels, [=](int64_t, const LabelledPrompt&) { return loss; }, options);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "none";
}

TEST(Compose, SaysWhatIsMissing) {
  EXPECT_THAT(complaint(some_prompts(5), {}), HasSubstr("category 'prose' has 2 prompts"));
  EXPECT_THAT(complaint(some_prompts(1), {}), HasSubstr("1 categories"));
  EXPECT_THAT(complaint(some_prompts(30), {.general = "clark"}), HasSubstr("did you mean clerk?"));
  EXPECT_THAT(complaint(some_prompts(30), {.budget = 20}), HasSubstr("30 would"));
  EXPECT_THAT(complaint(some_prompts(30), {}, NAN), HasSubstr("model coder"));
}

TEST(LabelledPrompts, AreOneObjectALine) {
  const auto prompts = parse_labelled_prompts(
      R"({"category": "code", "prompt": "int", "answer": " x;"}

{"category": "prose", "prompt": "Once", "losses": {"small": 2, "large": 1.5}})",
      "p.jsonl");
  ASSERT_EQ(prompts.size(), 2U);
  EXPECT_EQ(prompts[0].answer, " x;");
  EXPECT_EQ(prompts[1].losses.at("large"), 1.5);
}

TEST(LabelledPrompts, ErrorsNameTheLine) {
  const auto complaint = [](const std::string& text) -> std::string {
    try {
      parse_labelled_prompts(text, "p.jsonl");
    } catch (const FormatError& error) {
      return error.what();
    }
    return "none";
  };
  const std::string good = "{\"category\": \"c\", \"prompt\": \"p\", \"answer\": \"a\"}\n";
  EXPECT_THAT(complaint(good + "{\"category\": \"c\", \"prompt\": \"p\"}"),
              HasSubstr("p.jsonl:2: answer must be a text"));
  EXPECT_THAT(complaint(good + "{"), HasSubstr("p.jsonl:2"));
  EXPECT_THAT(complaint(good + "3"), HasSubstr("p.jsonl:2: must be a JSON object"));
  EXPECT_THAT(complaint("\n\n"), HasSubstr("no prompts"));
}

}  // namespace
}  // namespace cadre::ensemble
