/// Every router trains, is saved, goes on, is evaluated, looked at and generates, by its name.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cadre/formats/router_kinds.h"
#include "tests/cli/run_program.h"
#include "tests/cli/small_world.h"

namespace cadre {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json config_of(const std::filesystem::path& model) {
  std::ostringstream text;
  text << std::ifstream(model / "config.json").rdbuf();
  return json::parse(text.str());
}

class EveryRouter : public testing::TestWithParam<RouterKind> {};

TEST_P(EveryRouter, WorksFromTrainingToText) {
  const SmallWorld world;
  const std::string kind(GetParam().name);
  std::vector<std::string> words = {"--router", kind, "--steps", "20", "--json"};
  if (!GetParam().causal) words.insert(words.end(), {"--router-fallback", "top_k"});
  const ProgramResult trained = run_cadre(world.train(words));
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  const std::string model = world / "run/model";
  EXPECT_EQ(config_of(model)["cadre"]["router"]["kind"], kind);

  const ProgramResult evaluated =
      run_cadre({"eval", model, "--data", world / "run/data", "--length", "16", "--sequences", "4",
                 "--batch", "2", "--json"});
  ASSERT_EQ(evaluated.exit_code, 0) << evaluated.err;
  if (GetParam().batch_invariant) {
    EXPECT_NEAR(json::parse(evaluated.out)["loss"].get<double>(),
                json::parse(trained.out)["validation_loss"].get<double>(), 1e-5)
        << "the checkpoint holds all that the router learned";
  }
  const ProgramResult routes =
      run_cadre({"routes", model, "--data", world / "run/data", "--length", "16", "--json"});
  EXPECT_EQ(routes.exit_code, 0) << routes.err;
  const ProgramResult text = run_cadre({"generate", model, "the fox", "--tokens", "4"});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_THAT(text.out, testing::StartsWith("the fox"));
}

INSTANTIATE_TEST_SUITE_P(All, EveryRouter,
                         testing::ValuesIn(router_kinds().begin(), router_kinds().end()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Routers, ConfigFileAndFlagsSayTheSame) {
  const SmallWorld world;
  std::ofstream(world / "p.toml") << "[router]\nkind = \"top_p\"\np = 0.7\n[model]\n"
                                     "objective = [\"router_entropy=0.01\"]\n";
  const auto flags = run_cadre(world.train(
      {"--router", "top_p", "--router-p", "0.7", "--objective", "router_entropy=0.01", "--json"}));
  ASSERT_EQ(flags.exit_code, 0) << flags.err;
  auto words = world.train({"--config", world / "p.toml", "--json"});
  words[2] = world / "other";
  const auto file = run_cadre(words);
  ASSERT_EQ(file.exit_code, 0) << file.err;
  EXPECT_EQ(json::parse(flags.out)["validation_loss"], json::parse(file.out)["validation_loss"]);
  const json own = config_of(world / "other/model")["cadre"];
  EXPECT_EQ(own["router"], json({{"kind", "top_p"}, {"p", 0.7}, {"weights", "raw"}}));
  EXPECT_EQ(own["objectives"], json({{"router_entropy", 0.01}}));
}

TEST(Routers, OptionsOfSeveralWordsTakeDashes) {
  const SmallWorld world;
  std::ofstream(world / "keys.toml") << "[router]\nkind = \"top_k\"\ngroups = 2\n"
                                        "groups_used = 1\n";
  const std::vector<std::vector<std::string>> ways = {
      {"--router", "top_k", "--router-groups", "2", "--router-groups-used", "1"},
      {"--router", "top_k", "--router-groups", "2", "--router-groups_used", "1"},
      {"--config", world / "keys.toml"}};
  for (size_t i = 0; i < ways.size(); ++i) {
    auto words = world.train(ways[i]);
    words[2] = world / std::to_string(i);
    words.insert(words.end(), {"--steps", "1"});
    const auto trained = run_cadre(words);
    ASSERT_EQ(trained.exit_code, 0) << trained.err;
    const json router = config_of(std::filesystem::path(words[2]) / "model")["cadre"]["router"];
    EXPECT_EQ(router["groups"], 2);
    EXPECT_EQ(router["groups_used"], 1);
  }
  // The file that a run leaves says it again.
  auto again = world.train({"--config", world / "0/train.toml"});
  again[2] = world / "again";
  EXPECT_EQ(run_cadre(again).exit_code, 0);
}

TEST(Routers, ConsistencyHoldsTwoDrawsTogether) {
  const SmallWorld world;
  const auto trained =
      run_cadre(world.train({"--router", "stochastic", "--consistency", "5", "--steps", "5"}));
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  std::ifstream metrics(world / "run/model/metrics.jsonl");
  std::string line;
  ASSERT_TRUE(std::getline(metrics, line));
  EXPECT_GT(json::parse(line)["aux"]["consistency"].get<double>(), 0);
}

TEST(Routers, AStoppedRunGoesOnToTheSameNumbers) {
  const SmallWorld whole, parts;
  const std::vector<std::string> words = {"--router", "smoe_dropout", "--json"};
  const auto once = run_cadre(whole.train(words));
  ASSERT_EQ(once.exit_code, 0) << once.err;
  Program program(parts.train(words));
  while (program.running() && !std::filesystem::exists(parts / "run/model/state")) {
  }
  program.signal(SIGKILL);
  program.wait();
  const auto resumed = run_cadre(parts.train(words));
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_EQ(json::parse(resumed.out)["validation_loss"], json::parse(once.out)["validation_loss"]);
}

TEST(Routers, BadChoicesAreOneLine) {
  const SmallWorld world;
  const auto error_of = [&](const std::vector<std::string>& more) {
    const ProgramResult result = run_cadre(world.train(more));
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_EQ(lines_of(result.err).size(), 1U) << result.err;
    return result.err;
  };
  EXPECT_THAT(error_of({"--router", "topp"}), HasSubstr("did you mean top_p?"));
  EXPECT_THAT(error_of({"--router-p", "0.5"}), HasSubstr("--router-p needs --router KIND"));
  EXPECT_THAT(error_of({"--router", "top_p", "--router-nulls", "3"}),
              HasSubstr("router top_p has no option 'nulls'"));
  EXPECT_THAT(error_of({"--router", "top_p", "--router-p", "1.5"}),
              HasSubstr("p is 1.5, must be above 0 and at most 1"));
  EXPECT_THAT(error_of({"--router", "null_experts", "--router-k", "0"}),
              HasSubstr("k is 0, must be at least 1"));
  EXPECT_THAT(error_of({"--router", "null_experts", "--router-k", "99"}),
              HasSubstr("k is 99, must be from 1 to 12"));
  EXPECT_THAT(error_of({"--router-groups-used", "2"}),
              HasSubstr("--router-groups-used needs --router KIND"));
  EXPECT_THAT(error_of({"--router", "top_k", "--consistency", "5"}),
              HasSubstr("the router top_k draws nothing"));
  EXPECT_THAT(error_of({"--objective", "lod=1"}), HasSubstr("did you mean load?"));
  EXPECT_THAT(error_of({"--objective", "load=x"}), HasSubstr("must be a number"));
}

TEST(Routers, AreListed) {
  const ProgramResult result = run_cadre({"list", "routers"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  for (const RouterKind& kind : router_kinds()) {
    EXPECT_THAT(result.out, HasSubstr(std::string(kind.name)));
  }
  EXPECT_EQ(json::parse(run_cadre({"list", "routers", "--json"}).out).size(),
            router_kinds().size());
  EXPECT_THAT(run_cadre({"list", "objectives"}).out, HasSubstr("router_entropy"));
  EXPECT_THAT(run_cadre({"list", "router"}).err, HasSubstr("did you mean routers?"));
}

}  // namespace
}  // namespace cadre
