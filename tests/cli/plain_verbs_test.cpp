/// The verbs that need no LibTorch, and `cadre` itself.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include <nlohmann/json.hpp>

#include "tests/cli/run_program.h"
#include "tests/cli/small_world.h"
#include "tools/common/verbs.h"

namespace cadre {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::SizeIs;

TEST(Cadre, ListsItsVerbs) {
  const ProgramResult help = run_cadre({"--help"});
  EXPECT_EQ(help.exit_code, 0);
  for (const Verb& verb : kVerbs) EXPECT_THAT(help.out, HasSubstr(std::string(verb.name) + " "));
  EXPECT_THAT(run_cadre({"--version"}).out, HasSubstr("cadre "));
  EXPECT_EQ(run_cadre({}).exit_code, 2);
}

TEST(Cadre, SuggestsTheNearestVerb) {
  const ProgramResult result = run_cadre({"trian"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("did you mean train?"));
  EXPECT_THAT(lines_of(result.err), SizeIs(1));
}

TEST(Cadre, OptionsAreExplainedAndCheckedByEveryVerb) {
  for (const std::string verb : {"inspect", "tokenizer"}) {
    EXPECT_EQ(run_cadre({verb, "--help"}).exit_code, 0) << verb;
    const ProgramResult result = run_cadre({verb, "--helpp"});
    EXPECT_EQ(result.exit_code, 2) << verb;
    EXPECT_THAT(lines_of(result.err), SizeIs(1)) << verb;
  }
}

TEST(Cadre, ManualPageAndCompletionKnowTheOptions) {
  EXPECT_THAT(run_cadre({"man"}).out, HasSubstr("\\-\\-tensors"));
  EXPECT_THAT(run_cadre({"completion"}).out, HasSubstr("--tensors"));
}

class Tokenizing : public testing::Test {
 protected:
  SmallWorld world_;
  std::string file_ = world_ / "tokenizer.json";
  ProgramResult train(const std::vector<std::string>& more = {}) {
    std::vector<std::string> words = {"tokenizer",    "train", world_ / "tales.txt", "--out", file_,
                                      "--vocabulary", "300"};
    words.insert(words.end(), more.begin(), more.end());
    return run_cadre(words);
  }
};

TEST_F(Tokenizing, TrainsEncodesDecodes) {
  EXPECT_EQ(json::parse(train({"--json"}).out)["vocabulary"], 300);
  const std::string text = "the fox \xF0\x9F\xA6\x8A ran\n";
  const ProgramResult ids = run_cadre({"tokenizer", "encode", file_}, {.input = text});
  EXPECT_EQ(ids.exit_code, 0);
  EXPECT_EQ(run_cadre({"tokenizer", "decode", file_}, {.input = ids.out}).out, text);
  const json both =
      json::parse(run_cadre({"tokenizer", "encode", file_, "--json"}, {.input = text}).out);
  EXPECT_EQ(both["ids"].size(), both["tokens"].size());
}

TEST_F(Tokenizing, MistakesAreOneLineAndExitTwo) {
  ASSERT_EQ(train().exit_code, 0);
  const auto expect_error = [](const ProgramResult& result, const std::string& text) {
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_THAT(lines_of(result.err), SizeIs(1));
    EXPECT_THAT(result.err, HasSubstr(text));
  };
  expect_error(run_cadre({"tokenizer", "decode", file_}, {.input = "12 x"}), "'x' is no token id");
  expect_error(run_cadre({"tokenizer", "decode", file_}, {.input = "999999"}), "999999");
  expect_error(run_cadre({"tokenizer", "encode", "/no/such.json"}), "/no/such.json");
  std::ofstream(world_ / "broken.json") << "{\"model\": ";
  expect_error(run_cadre({"tokenizer", "encode", world_ / "broken.json"}), "broken.json");
  expect_error(run_cadre({"tokenizer"}), "subcommand");
}

TEST(Inspect, RefusesWhatIsNoCheckpoint) {
  const SmallWorld world;
  for (const std::string& path :
       {std::string("/no/such"), (world / "sums.txt").string(), (world / ".").string()}) {
    const ProgramResult result = run_cadre({"inspect", path});
    EXPECT_EQ(result.exit_code, 2) << path;
    EXPECT_THAT(lines_of(result.err), SizeIs(1)) << path;
  }
}

}  // namespace
}  // namespace cadre
