/// cadre compose and cadre run --ensemble: several models behind one router.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include <nlohmann/json.hpp>

#include "cadre/base/random.h"
#include "cadre/formats/file.h"
#include "cadre/formats/test_folder.h"
#include "tests/cli/run_program.h"
#include "tests/cli/small_gguf.h"

namespace cadre {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

/// Eight words of a vocabulary, a different choice for every `number`.
std::string prompt_of(const std::vector<std::string>& words, uint64_t number) {
  Random random(7, {number});
  std::string text;
  for (int i = 0; i < 8; ++i) text += (i > 0 ? " " : "") + words[random.below(words.size())];
  return text;
}
std::string code(uint64_t number) {
  return prompt_of({"x[i]", "==", "f(a,b)", "{", "}", "return", "const", "int", "++n;"}, number);
}
std::string prose(uint64_t number) {
  return prompt_of({"king", "the", "once", "upon", "lived", "queen", "mountain", "was"}, number);
}
const std::string kCode = code(1000), kProse = prose(1000);

class Ensembles : public testing::Test {
 protected:
  void SetUp() override {
    write_small_gguf(small_, {.hidden = 32});
    write_small_gguf(large_, {.layers = 3, .hidden = 64});
    std::ofstream file(prompts_);
    for (uint64_t i = 0; i < 60; ++i) {
      const double noise = 0.01 * static_cast<double>(i % 4);
      file << json{{"category", "code"},
                   {"prompt", code(i)},
                   {"losses", {{"large", 2.0}, {"small", 1.0 + noise}}}}
           << '\n'
           << json{{"category", "prose"},
                   {"prompt", prose(i)},
                   {"losses", {{"large", 1.0}, {"small", 2.5 - noise}}}}
           << '\n';
    }
  }
  ProgramResult compose(std::vector<std::string> more = {}) const {
    std::vector<std::string> all = {"compose", "--model",         "small=" + small_,
                                    "--model", "large=" + large_, "--prompts",
                                    prompts_,  "--out",           team_};
    all.insert(all.end(), more.begin(), more.end());
    return run_cadre(all);
  }
  ProgramResult run(std::vector<std::string> more) const {
    more.insert(more.begin(), {"run", "--threads", "2", "--tokens", "8", "--temperature", "0"});
    return run_cadre(more);
  }
  ProgramResult ask(const std::string& prompt, std::vector<std::string> more = {}) const {
    more.insert(more.begin(), {"--ensemble", team_, prompt});
    return run(more);
  }
  static void expect_error(const ProgramResult& result, const std::string& text) {
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_THAT(lines_of(result.err), SizeIs(1));
    EXPECT_THAT(result.err, HasSubstr(text));
    EXPECT_THAT(result.out, IsEmpty());
  }

  TestFolder folder_;
  std::string small_ = folder_ / "small.gguf", large_ = folder_ / "large.gguf";
  std::string prompts_ = folder_ / "prompts.jsonl", team_ = folder_ / "team.toml";
};

TEST_F(Ensembles, TheRouterChoosesAndTheTextIsThatModels) {
  const ProgramResult made = compose();
  ASSERT_EQ(made.exit_code, 0) << made.err;
  EXPECT_THAT(made.out, HasSubstr("router: 100.0 % of 40 validation prompts"));
  const ProgramResult code = ask(kCode), prose = ask(kProse);
  ASSERT_EQ(code.exit_code, 0) << code.err;
  EXPECT_THAT(code.err, HasSubstr("code, "));
  EXPECT_THAT(code.err, HasSubstr(": small, opened in"));
  EXPECT_EQ(code.out, run({small_, kCode}).out);
  EXPECT_THAT(prose.err, HasSubstr(": large, opened in"));
  EXPECT_EQ(prose.out, run({large_, kProse}).out);
  EXPECT_NE(prose.out, run({small_, kProse}).out);
}

TEST_F(Ensembles, StrangePromptsGoToTheGeneralModel) {
  ASSERT_EQ(compose({"--general", "small"}).exit_code, 0);
  const ProgramResult strange = ask("\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E", {"--json"});
  ASSERT_EQ(strange.exit_code, 0) << strange.err;
  EXPECT_THAT(strange.err, HasSubstr("not sure: the general model small"));
  const json answer = json::parse(strange.out);
  EXPECT_EQ(answer["reason"], "not sure");
  EXPECT_EQ(answer["model"], "small");
  EXPECT_EQ(json::parse(ask(kProse, {"--json"}).out)["reason"], "category");
}

TEST_F(Ensembles, ManyPromptsGiveTheAnswersOfEachAloneWithinTheMemory) {
  ASSERT_EQ(compose().exit_code, 0);
  std::ofstream lines(folder_ / "many.txt");
  for (int i = 0; i < 6; ++i) lines << kCode << '\n' << kProse << '\n';
  lines.close();
  const std::string many = folder_ / "many.txt";
  // Room for one of them: 40 MiB are the program's, the models have less than one.
  const std::string whole = read_file(team_);
  const std::string expected[] = {run({small_, kCode}).out, run({large_, kProse}).out};
  const auto loads = [&](const std::string& window) {
    std::string team = whole;
    team.replace(team.find("window = 16"), 11, "window = " + window);
    write_file(team_, team);
    const ProgramResult all = run({"--ensemble", team_, "--prompts", many, "--memory", "60MiB"});
    EXPECT_EQ(all.exit_code, 0) << all.err;
    const auto answers = lines_of(all.out);
    EXPECT_EQ(answers.size(), 12U);
    int64_t opened = 0;
    for (const std::string& line : answers) {
      const json answer = json::parse(line);
      EXPECT_EQ(answer["text"].get<std::string>() + "\n", expected[answer["index"].get<int>() % 2]);
      opened += answer["was_open"].get<bool>() ? 0 : 1;
    }
    return opened;
  };
  EXPECT_EQ(loads("0"), 12);
  EXPECT_LE(loads("16"), 4);
}

TEST_F(Ensembles, ABudgetChoosesModels) {
  const json all = json::parse(compose({"--json"}).out);
  EXPECT_EQ(all["categories"]["code"]["model"], "small");
  EXPECT_EQ(all["categories"]["prose"]["model"], "large");
  EXPECT_EQ(all["general"], "large");
  const int64_t small = all["model_bytes"]["small"];
  const json one = json::parse(compose({"--json", "--budget", std::to_string(small)}).out);
  EXPECT_EQ(one["categories"]["prose"]["model"], "small");
  EXPECT_EQ(one["bytes"], small);
  EXPECT_GE(one["loss"].get<double>(), all["loss"].get<double>());
}

TEST_F(Ensembles, APlanSaysWhatStaysOpenTogether) {
  ASSERT_EQ(compose().exit_code, 0);
  const auto plan = [&](const std::string& memory) {
    return run_cadre({"plan", "--ensemble", team_, "--memory", memory, "--json"});
  };
  const json ample = json::parse(plan("1GiB").out), tight = json::parse(plan("60MiB").out);
  EXPECT_EQ(ample["open_together"], 2);
  EXPECT_EQ(tight["open_together"], 1);
  EXPECT_EQ(ample["models"]["small"]["categories"], json::array({"code"}));
  EXPECT_EQ(ample["general"], "large");
  expect_error(plan("1MiB"), "are the least");
  expect_error(run_cadre({"plan"}), "give a model or --ensemble");
}

TEST_F(Ensembles, ModelsAreMeasuredOnAnswersWhenNoLossesCome) {
  std::ofstream file(prompts_);
  for (int i = 0; i < 9; ++i) {
    file << json{{"category", i % 2 == 0 ? "a" : "b"}, {"prompt", "say"}, {"answer", "yes"}}
         << '\n';
  }
  file.close();
  const ProgramResult made = compose({"--json"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  // Random weights over 256 bytes: about 8 bits a byte.
  const double loss = json::parse(made.out)["categories"]["a"]["losses"]["small"];
  EXPECT_GT(loss, 4);
  EXPECT_LT(loss, 16);
}

TEST_F(Ensembles, BadInputIsOneLine) {
  expect_error(compose({"--general", "smal"}), "no model is called 'smal': did you mean small?");
  expect_error(compose({"--model", "large"}), "'large' is not NAME=PATH");
  expect_error(compose({"--model", "small=" + large_}), "'small' twice");
  expect_error(compose({"--budget", "much"}), "--budget: 'much'");
  expect_error(compose({"--budget", "1KiB"}), "a budget of 1024");
  expect_error(compose({"--model", "other=" + std::string(folder_ / "none.gguf")}), "none.gguf");
  EXPECT_FALSE(std::filesystem::exists(team_));
  expect_error(run({"--ensemble", team_, kCode}), "team.toml");
  expect_error(run({kCode, "--prompts", prompts_}), "--prompts needs --ensemble");
  expect_error(run({}), "model is required");

  ASSERT_EQ(compose().exit_code, 0);
  expect_error(run({"--ensemble", team_, small_, kCode}), "give the prompt alone");
  expect_error(ask(kCode, {"--memory", "1MiB"}), "are the least");
  expect_error(ask(kCode, {"--expert-memory", "50%"}), "--expert-memory");
  expect_error(ask(kCode, {"--prompts", prompts_}), "not both");
  const std::string team = read_file(team_);
  std::string other = team;
  other.insert(other.find("code = "), "prosa = 'small'\n");
  write_file(team_, other);
  expect_error(ask(kCode), "[categories] has 'prosa'");
  write_file(team_, team);
  std::filesystem::remove(small_);
  expect_error(ask(kProse), "small.gguf");
}

}  // namespace
}  // namespace cadre
