/// The verbs that run a model: run, bench, perplexity.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include <nlohmann/json.hpp>

#include "cadre/formats/test_folder.h"
#include "cadre/formats/utf8.h"
#include "tests/cli/run_program.h"
#include "tests/cli/small_gguf.h"

namespace cadre {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

class Running : public testing::Test {
 protected:
  void SetUp() override { write_small_gguf(model_); }
  ProgramResult run(std::vector<std::string> more, const RunOptions& options = {}) const {
    more.insert(more.begin(), {"run", model_, "--threads", "2", "--tokens", "12"});
    return run_cadre(more, options);
  }
  static void expect_error(const ProgramResult& result, const std::string& text) {
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_THAT(lines_of(result.err), SizeIs(1));
    EXPECT_THAT(result.err, HasSubstr(text));
    EXPECT_THAT(result.out, IsEmpty());
  }

  TestFolder folder_;
  std::string model_ = folder_ / "small.gguf";
};

TEST_F(Running, WritesTheTextAloneToStandardOutput) {
  const ProgramResult greedy = run({"Once", "--temperature", "0"});
  ASSERT_EQ(greedy.exit_code, 0) << greedy.err;
  EXPECT_THAT(greedy.err, HasSubstr("12 written at"));
  EXPECT_THAT(greedy.err, HasSubstr("of experts from memory"));
  const json described = json::parse(run({"Once", "--temperature", "0", "--json"}).out);
  EXPECT_EQ(described["text"].get<std::string>() + "\n", greedy.out);
  EXPECT_EQ(described["tokens"].size(), 12U);
  EXPECT_EQ(described["finish"], "tokens");
  EXPECT_EQ(find_invalid_utf8(greedy.out), -1);
}

TEST_F(Running, PromptComesFromArgumentFileOrPipe) {
  const std::string expected = run({"Once", "--temperature", "0"}).out;
  std::ofstream(folder_ / "prompt.txt") << "Once\n";
  const std::string file = folder_ / "prompt.txt";
  EXPECT_EQ(run({"--file", file, "--temperature", "0"}).out, expected);
  EXPECT_EQ(run({"--temperature", "0"}, {.input = "Once\n"}).out, expected);
  EXPECT_EQ(run({"-", "--temperature", "0"}, {.input = "Once"}).out, expected);
}

TEST_F(Running, SeedsThreadsAndExpertMemoryDoWhatTheySay) {
  const std::string text = run({"Once", "--temperature", "2", "--seed", "3"}).out;
  EXPECT_EQ(run({"Once", "--temperature", "2", "--seed", "3"}).out, text);
  EXPECT_NE(run({"Once", "--temperature", "2", "--seed", "4"}).out, text);
  EXPECT_EQ(run({"Once", "--temperature", "2", "--seed", "3", "--threads", "1"}).out, text);
  EXPECT_EQ(run({"Once", "--temperature", "2", "--seed", "3", "--expert-memory", "50%"}).out, text);
}

TEST_F(Running, PacksAnswerLikeTheirOriginals) {
  const std::string text = run({"Once", "--temperature", "0"}).out;
  const std::string pack = folder_ / "small.cpk";
  ASSERT_EQ(run_cadre({"pack", model_, pack}).exit_code, 0);
  const std::vector<std::string> command = {"run",           pack, "Once", "--tokens", "12",
                                            "--temperature", "0"};
  EXPECT_EQ(run_cadre(command).out, text);
  std::vector<std::string> half = command;
  half.insert(half.end(), {"--expert-memory", "50%"});
  const ProgramResult streamed = run_cadre(half);
  EXPECT_EQ(streamed.out, text);
  EXPECT_THAT(streamed.err, Not(HasSubstr("100.0 % of experts")));
  EXPECT_EQ(run_cadre({"plan", pack}).exit_code, 0);
  const json shown = json::parse(run_cadre({"inspect", pack, "--json"}).out);
  EXPECT_EQ(shown["keys"]["cadre.pack.version"], 1);
  EXPECT_THAT(run_cadre({"inspect", model_, "--tensors"}).out,
              HasSubstr("blk.1.ffn_up_exps.weight"));
  EXPECT_EQ(run_cadre({"bench", pack, "--prompt-tokens", "9", "--tokens", "2", "--repeat", "1"})
                .exit_code,
            0);
}

TEST_F(Running, RoutesAreRecordedForReplay) {
  const std::string trace = folder_ / "routes.safetensors";
  const ProgramResult traced = run({"Once", "--temperature", "0", "--trace", trace});
  ASSERT_EQ(traced.exit_code, 0) << traced.err;
  EXPECT_EQ(traced.out, run({"Once", "--temperature", "0"}).out);
  const ProgramResult replayed = run_cadre({"replay", trace, "--capacity", "25%,50%", "--json"});
  ASSERT_EQ(replayed.exit_code, 0) << replayed.err;
  const json routes = json::parse(replayed.out);
  EXPECT_EQ(routes["tokens"], 11) << "the last of 12 is not fed";
  EXPECT_EQ(routes["experts"], 8);
  EXPECT_EQ(run_cadre({"plan", model_, "--trace", trace}).exit_code, 0);
}

TEST_F(Running, RemembersHowExpertsWereUsedAndDoesWithout) {
  const std::string cache = "XDG_CACHE_HOME=" + (folder_ / "cache").string();
  const std::vector<std::string> half = {"Once", "--expert-memory", "50%", "--temperature", "0"};
  const ProgramResult first = run(half, {.environment = {cache}});
  EXPECT_EQ(first.exit_code, 0) << first.err;
  EXPECT_FALSE(std::filesystem::is_empty(folder_ / "cache" / "cadre"));
  const ProgramResult refused = run(half, {.environment = {"XDG_CACHE_HOME=/proc/no"}});
  EXPECT_EQ(refused.exit_code, 0);
  EXPECT_EQ(refused.out, first.out);
  EXPECT_THAT(refused.err, Not(HasSubstr("/proc/no")));
}

TEST_F(Running, StopsBeforeAStopString) {
  const json full = json::parse(run({"Once", "--temperature", "0", "--json"}).out);
  const auto text = full["text"].get<std::string>();
  const size_t from = utf8_boundary(text, text.size() / 2);
  const std::string stop = text.substr(from, utf8_length(text.substr(from)));
  const json cut = json::parse(run({"Once", "--temperature", "0", "--json", "--stop", stop}).out);
  EXPECT_EQ(cut["finish"], "stop");
  EXPECT_EQ(cut["text"], text.substr(0, text.find(stop)));
}

TEST_F(Running, ChatsInTheModelsForm) {
  const json own = json::parse(run({"Hi", "--json", "--temperature", "0", "--chat"}).out);
  const json named =
      json::parse(run({"Hi", "--json", "--temperature", "0", "--chat", "chatml"}).out);
  EXPECT_EQ(own["text"], named["text"]);
  EXPECT_GT(own["prompt_tokens"], 10) << "the form's marks are part of the prompt";
  expect_error(run({"Hi", "--chat", "no-such-form"}), "chatml");
}

TEST_F(Running, MistakesAreOneLineAndExitTwo) {
  expect_error(run({""}, {.input = ""}), "empty");
  expect_error(run({}, {.input = ""}), "empty");
  expect_error(run({"a\xFF"}), "not UTF-8");
  expect_error(run({"--file", "/no/such.txt"}), "/no/such.txt");
  expect_error(run({"both", "--file", "/no/such.txt"}), "not both");
  expect_error(run({"a", "--top-p", "1.5"}), "top-p");
  expect_error(run({"a", "--memory", "much"}), "--memory");
  expect_error(run({"a", "--expert-memory", "150%"}), "--expert-memory");
  expect_error(run({"a", "--storage", "tape"}), "storage");
  expect_error(run({"a", "--cache-policy", "magic"}), "score, lru, lfu, plec");
  expect_error(run({"a", "--predictor", "magic"}), "coactivation");
  expect_error(run_cadre({"run", "/no/such.gguf", "Once"}), "/no/such.gguf");
  std::ofstream(folder_ / "broken.gguf") << "GGUF and then nothing";
  expect_error(run_cadre({"run", folder_ / "broken.gguf", "Once"}), "broken.gguf");
  const ProgramResult longer = run({std::string(200, 'a')});
  EXPECT_EQ(longer.exit_code, 2);
  EXPECT_THAT(longer.err, HasSubstr("--context"));
}

TEST_F(Running, BenchMeasures) {
  const ProgramResult result = run_cadre({"bench", model_, "--prompt-tokens", "40", "--tokens", "8",
                                          "--repeat", "2", "--json", "--threads", "1"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json measured = json::parse(result.out);
  EXPECT_EQ(measured["runs"].size(), 2U);
  EXPECT_GT(measured["prefill_tokens_per_second"], 0);
  EXPECT_GT(measured["decode_tokens_per_second"], 0);
  EXPECT_GT(measured["peak_resident_bytes"], 1 << 20);
  EXPECT_THAT(run_cadre({"bench", model_, "--prompt-tokens", "9", "--tokens", "2"}).out,
              HasSubstr("tokens/s"));
  const ProgramResult longer = run_cadre({"bench", model_, "--prompt-tokens", "4000"});
  EXPECT_EQ(longer.exit_code, 2);
}

TEST_F(Running, PerplexityOfATextAndItsPriceInExperts) {
  std::ofstream(folder_ / "text.txt") << std::string(300, 'a');
  const std::string text = folder_ / "text.txt";
  const ProgramResult result =
      run_cadre({"perplexity", model_, "--text", text, "--context", "64", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json all = json::parse(result.out);
  EXPECT_EQ(all["tokens"], 4 * 32);
  EXPECT_GT(all["perplexity"], 1);
  const json one = json::parse(run_cadre({"perplexity", model_, "--text", text, "--context", "64",
                                          "--json", "--experts-per-token", "1"})
                                   .out);
  EXPECT_NE(one["perplexity"], all["perplexity"]);
  const json best = json::parse(run_cadre({"perplexity", model_, "--text", text, "--context", "64",
                                           "--json", "--top-p", "0.01"})
                                    .out);
  EXPECT_EQ(best["perplexity"], one["perplexity"]) << "one expert holds a hundredth";
  std::ofstream(folder_ / "binary") << "\xFF\xFE";
  expect_error(run_cadre({"perplexity", model_, "--text", folder_ / "binary"}), "not UTF-8");
}

TEST_F(Running, TuneWeighsLossAgainstWork) {
  std::ofstream(folder_ / "long.txt") << std::string(300, 'a');
  const ProgramResult result =
      run_cadre({"tune", model_, "--text", folder_ / "long.txt", "--context", "64", "--loss-budget",
                 "100", "--picture", folder_ / "f.svg", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json report = json::parse(result.out);
  const json& first = report["settings"][0];
  EXPECT_EQ(first["options"], "");
  double least = 1e30;
  for (const json& setting : report["settings"]) {
    EXPECT_GT(setting["tokens_per_second"], 0);
    least = std::min(least, setting["active_flops"].get<double>());
  }
  EXPECT_EQ(report["best"]["active_flops"], least) << "the budget allows everything";
  EXPECT_LT(report["best"]["experts_per_token"], first["experts_per_token"]);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "f.svg"));
  expect_error(run_cadre({"tune", model_, "--text", folder_ / "long.txt", "--loss-budget", "-1"}),
               "--loss-budget");
}

/// What a program is linked with, as the loader sees it.
std::string libraries_of(const std::string& program) {
  std::string text;
  std::FILE* pipe = popen(("ldd " CADRE_BIN_DIR "/" + program).c_str(), "r");
  if (pipe == nullptr) return text;
  char buffer[4096];
  for (size_t n = 0; (n = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) text.append(buffer, n);
  pclose(pipe);
  return text;
}

TEST(RunWing, LinksNeitherTorchNorOneDnn) {
  for (const std::string program : {"cadre-run", "cadre-bench", "cadre-perplexity", "cadre-plan",
                                    "cadre-pack", "cadre-replay", "cadre-tune"}) {
    const std::string libraries = libraries_of(program);
    EXPECT_THAT(libraries, HasSubstr("libstdc++")) << program;
    EXPECT_THAT(libraries, Not(HasSubstr("torch"))) << program;
    EXPECT_THAT(libraries, Not(HasSubstr("dnnl"))) << program;
  }
}

}  // namespace
}  // namespace cadre
