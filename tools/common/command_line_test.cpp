#include "tools/common/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "cadre/base/error.h"
#include "cadre/base/text.h"
#include "cadre/formats/test_folder.h"
#include "tools/common/verbs.h"

namespace cadre {
namespace {

using testing::HasSubstr;

struct Values {
  int64_t hidden = 256;
  double lr = 1e-3;
  std::vector<std::string> domains;
  bool fast = false;
};

/// Parses the arguments of a program with four options in three groups.
struct Program {
  Values values;
  CommandLine line{"train"};

  Program() {
    line.accept_config_file();
    line.add(kModelGroup, "--hidden", values.hidden, "width")->check(CLI::PositiveNumber);
    line.add(kTrainingGroup, "--lr", values.lr, "learning rate");
    line.add(kDataGroup, "--domain", values.domains, "text")->allow_extra_args(false);
    line.add_flag(kTrainingGroup, "--fast", values.fast, "hurry");
  }
  void parse(std::vector<std::string> words) {
    words.insert(words.begin(), "cadre-train");
    std::vector<char*> argv;
    for (auto& word : words) argv.push_back(word.data());
    line.parse(static_cast<int>(argv.size()), argv.data());
  }
  std::string error_of(const std::vector<std::string>& words) {
    try {
      parse(words);
    } catch (const UsageError& error) {
      return error.what();
    }
    return "no error";
  }
};

class ConfigFile : public testing::Test {
 protected:
  std::string write(const std::string& text) {
    const std::string path = folder_ / "run.toml";
    std::ofstream(path) << text;
    return path;
  }
  TestFolder folder_;
};

TEST(CommandLine, NamesTheNearestOption) {
  EXPECT_THAT(Program().error_of({"--hiden", "3"}), HasSubstr("did you mean --hidden?"));
  EXPECT_THAT(Program().error_of({"--hidden", "-3"}), HasSubstr("--hidden"));
  EXPECT_THAT(Program().error_of({"stray"}), HasSubstr("unexpected argument 'stray'"));
}

TEST_F(ConfigFile, GivesTheSameOptionsAsFlagsAndFlagsWin) {
  const std::string path = write(
      "[model]\nhidden = 512\n[training]\nlr = 0.5\nfast = true\n[data]\ndomain = ['a=/x', "
      "'b=/y']\n");
  Program program;
  program.parse({"--config", path, "--lr", "0.25"});
  EXPECT_EQ(program.values.hidden, 512);
  EXPECT_EQ(program.values.lr, 0.25);
  EXPECT_TRUE(program.values.fast);
  EXPECT_THAT(program.values.domains, testing::ElementsAre("a=/x", "b=/y"));
}

TEST_F(ConfigFile, RefusesWhatItDoesNotKnow) {
  const auto error_for = [&](const std::string& text) {
    return Program().error_of({"--config", write(text)});
  };
  EXPECT_THAT(error_for("[model]\nhiden = 5\n"),
              HasSubstr("line 2: unknown key 'hiden': did you mean hidden?"));
  EXPECT_THAT(error_for("[modle]\nhidden = 5\n"), HasSubstr("did you mean model?"));
  EXPECT_THAT(error_for("[training]\nhidden = 5\n"), HasSubstr("belongs under [model]"));
  EXPECT_THAT(error_for("[model]\nhidden = {a = 1}\n"), HasSubstr("must be a number"));
  EXPECT_THAT(error_for("[model\n"), HasSubstr("line 1"));
  EXPECT_THAT(error_for("[model]\nhidden = 'wide'\n"), HasSubstr("hidden"));
  EXPECT_THAT(Program().error_of({"--config", "/no/such.toml"}), HasSubstr("/no/such.toml"));
}

TEST_F(ConfigFile, ResolvedOptionsReadBackTheSame) {
  Program first;
  first.parse({"--hidden", "64", "--domain", "a=/x", "--domain", "b=/y y", "--fast"});
  Program second;
  second.parse({"--config", write(first.line.resolved_toml())});
  EXPECT_EQ(second.values.hidden, 64);
  EXPECT_EQ(second.values.lr, 1e-3);
  EXPECT_EQ(second.values.domains, first.values.domains);
  EXPECT_TRUE(second.values.fast);
  EXPECT_EQ(second.line.resolved_toml(), first.line.resolved_toml());
}

TEST(Verbs, NearestByEditDistance) {
  EXPECT_EQ(nearest("trian", {"train", "eval"}), "train");
  EXPECT_EQ(nearest("zzzzzz", {"train", "eval"}), "");
  EXPECT_EQ(nearest("", {"train"}), "");
  EXPECT_THROW(verb_named("trian"), UsageError);
  EXPECT_EQ(verb_named("eval").name, "eval");
}

}  // namespace
}  // namespace cadre
