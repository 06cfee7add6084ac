#include "cadre/ensemble/ensemble_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/ensemble/ensemble_router.h"
#include "cadre/formats/file.h"
#include "cadre/formats/test_folder.h"

namespace cadre::ensemble {
namespace {

using testing::HasSubstr;

constexpr const char* kWhole = R"(
router = "router.safetensors"
general = "large"
memory = "4GiB"
window = 3
[models]
large = "../models/large.gguf"
small = "small"
[categories]
code = "small"
prose = "large"
)";

std::string complaint(const std::string& toml) {
  try {
    parse_ensemble_file(toml, "team.toml", "/here");
  } catch (const UsageError& error) {
    return error.what();
  }
  return "none";
}

std::string with(const std::string& from, const std::string& to) {
  std::string text = kWhole;
  return text.replace(text.find(from), from.size(), to);
}

TEST(EnsembleFile, SaysModelsRouterAndWhoAnswersWhat) {
  const EnsembleFile file = parse_ensemble_file(kWhole, "team.toml", "/here");
  ASSERT_EQ(file.models.size(), 2U);
  EXPECT_EQ(file.models[0].name, "large");
  EXPECT_EQ(file.models[0].path, "/here/../models/large.gguf");
  EXPECT_EQ(file.router, "/here/router.safetensors");
  EXPECT_EQ(file.general, 0);
  EXPECT_EQ(file.memory, int64_t{4} << 30);
  EXPECT_EQ(file.window, 3);
  EXPECT_EQ(file.categories.at("code"), 1);
  EXPECT_EQ(file.categories.at("prose"), 0);
}

TEST(EnsembleFile, IsWrittenAsItIsRead) {
  const EnsembleFile file = parse_ensemble_file(kWhole, "team.toml", "/here");
  const EnsembleFile again = parse_ensemble_file(to_toml(file), "team.toml", "/elsewhere");
  EXPECT_EQ(again.router, file.router);  // absolute by now
  EXPECT_EQ(again.models[1].path, file.models[1].path);
  EXPECT_EQ(again.categories, file.categories);
  EXPECT_EQ(again.memory, file.memory);
  EXPECT_EQ(again.window, file.window);
}

TEST(EnsembleFile, SaysWhatIsWrongAndWhere) {
  EXPECT_THAT(complaint(with("window = 3", "windw = 3")),
              HasSubstr("team.toml:5: unknown key 'windw': did you mean window?"));
  EXPECT_THAT(complaint(with("code = \"small\"", "code = \"smal\"")),
              HasSubstr("team.toml:10: code: no model 'smal' under [models]: did you mean small?"));
  EXPECT_THAT(complaint(with("general = \"large\"", "")), HasSubstr("general is missing"));
  EXPECT_THAT(complaint(with("\"4GiB\"", "\"much\"")), HasSubstr("team.toml:4: memory"));
  EXPECT_THAT(complaint(with("window = 3", "window = -1")), HasSubstr("team.toml:5: window"));
  EXPECT_THAT(complaint(with("small = \"small\"", "small = 3")), HasSubstr("team.toml:8: small"));
  EXPECT_THAT(complaint(with("[models]", "[models")), HasSubstr("team.toml:6"));
  EXPECT_THAT(complaint("router = \"r\"\n[models]\n"), HasSubstr("[models] is empty"));
}

/// Letters for code, digits for prose.
NamedCategories small_router() {
  const std::vector<std::string> texts = {"abcabc", "012012", "cabbac", "120021"};
  const std::vector<int64_t> labels = {0, 1, 0, 1};
  CategoryRouter router(texts, labels, {.ngrams = {.features = 64, .longest = 2}});
  router.calibrate(texts, labels, 1);
  return {.router = std::move(router), .names = {"code", "prose"}};
}

class EnsembleRouting : public testing::Test {
 protected:
  EnsembleFile file(const std::string& toml = kWhole) const {
    return parse_ensemble_file(toml, "team.toml", std::filesystem::path(folder_ / ""));
  }
  std::string complaint(const std::string& toml) const {
    try {
      EnsembleRouter{file(toml)};
    } catch (const UsageError& error) {
      return error.what();
    }
    return "none";
  }
  void SetUp() override { write_category_router(folder_ / "router.safetensors", small_router()); }
  TestFolder folder_;
};

TEST_F(EnsembleRouting, TheStoredRouterIsTheSame) {
  const NamedCategories before = small_router();
  const NamedCategories after = read_category_router(folder_ / "router.safetensors");
  EXPECT_EQ(after.names, before.names);
  EXPECT_EQ(after.router.threshold(), before.router.threshold());
  EXPECT_EQ(after.router.temperature(), before.router.temperature());
  for (const char* text : {"aa", "11", "?!", ""}) {
    EXPECT_EQ(after.router.probabilities(text), before.router.probabilities(text)) << text;
  }
}

TEST_F(EnsembleRouting, LooksTheCategoryUpAndFallsBackOnTheGeneralModel) {
  const EnsembleRouter router(file());
  const EnsembleChoice code = router.choose("abcabc");
  EXPECT_EQ(code.model, 1);
  EXPECT_EQ(code.category, "code");
  EXPECT_GT(code.probability, 0.5);
  EXPECT_EQ(code.reason, EnsembleChoice::Reason::kCategory);
  EXPECT_EQ(router.choose("012012").model, 0);
  // The general model is now the one that answers code.
  const EnsembleRouter other(file(with("general = \"large\"", "general = \"small\"")));
  const EnsembleChoice strange = other.choose("");
  EXPECT_EQ(strange.reason, EnsembleChoice::Reason::kUnsure);
  EXPECT_EQ(strange.model, 1);
}

TEST_F(EnsembleRouting, WantsAModelForEveryCategoryAndNoOthers) {
  EXPECT_THAT(complaint(with("code = \"small\"\n", "")), HasSubstr("knows category 'code'"));
  EXPECT_THAT(complaint(with("code = ", "codes = \"small\"\ncode = ")),
              HasSubstr("[categories] has 'codes'"));
  EXPECT_THAT(complaint(with("router.safetensors", "other.safetensors")),
              HasSubstr("other.safetensors"));
  write_file(folder_ / "router.safetensors", "no router");
  EXPECT_THAT(complaint(kWhole), HasSubstr("router.safetensors"));
}

}  // namespace
}  // namespace cadre::ensemble
