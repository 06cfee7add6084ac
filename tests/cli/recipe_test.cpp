/// cadre recipe and cadre data: lists, reports, fetching without a network. That the recipes
/// themselves work is what the tests labelled `recipes` show.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include <nlohmann/json.hpp>

#include "cadre/formats/file.h"
#include "cadre/formats/test_folder.h"
#include "tests/cli/run_program.h"

namespace cadre {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::SizeIs;
namespace fs = std::filesystem;

void expect_mistake(const ProgramResult& result, const std::string& text) {
  EXPECT_EQ(result.exit_code, 2) << result.err;
  EXPECT_THAT(lines_of(result.err), SizeIs(1));
  EXPECT_THAT(result.err, HasSubstr(text));
}

TEST(RecipeVerb, ListsAndReports) {
  EXPECT_THAT(run_cadre({"recipe", "list"}).out, HasSubstr("deepseekmoe"));
  const json list = json::parse(run_cadre({"recipe", "list", "--json"}).out);
  EXPECT_GE(list.size(), 2);

  const TestFolder folder;
  fs::create_directory(folder / "deepseekmoe");
  write_file(folder / "deepseekmoe" / "results.json",
             R"({"criterion": [{"text": "error <= 1", "values": [0.5, null], "passed": false}],
                 "passed": false, "command": "cadre recipe deepseekmoe", "seconds": 90,
                 "date": "2025-01-31", "machine": "a machine"})");
  const std::string zoo = folder / "zoo.md";
  const std::vector<std::string> report = {"recipe", "report",    "--out",
                                           zoo,      "--recipes", folder.path().string()};
  EXPECT_EQ(run_cadre(report).exit_code, 0);
  EXPECT_THAT(read_file(zoo), HasSubstr("FAILS: error <= 1 (0.5, nan)"));
  EXPECT_THAT(read_file(zoo), HasSubstr("**fails**"));
  EXPECT_THAT(read_file(zoo), HasSubstr("not measured yet"));
  write_file(folder / "deepseekmoe" / "results.json", "{}");
  expect_mistake(run_cadre(report), "not a recipe's results");
}

TEST(RecipeVerb, MistakesAreOneLine) {
  expect_mistake(run_cadre({"recipe", "deepseekmoo"}), "did you mean deepseekmoe?");
  expect_mistake(run_cadre({"recipe", "deepseekmoe", "--seeds", "-1"}), "--seeds");
  expect_mistake(run_cadre({"recipe", "deepseekmoe", "--data", "/no/such"}), "is no folder");
  expect_mistake(run_cadre({"recipe"}), "recipe");
}

TEST(DataVerb, ListsSetsAndKnowsTheGenerated) {
  EXPECT_THAT(run_cadre({"data", "list"}).out, HasSubstr("digits"));
  EXPECT_GE(json::parse(run_cadre({"data", "list", "--json"}).out).size(), 4);
  EXPECT_THAT(run_cadre({"data", "get", "skills"}).out, HasSubstr("generated"));
  expect_mistake(run_cadre({"data", "get", "digit"}), "did you mean digits?");
}

TEST(DataVerb, TakesFilesOutOfAPackage) {
  const TestFolder folder;
  const fs::path inside =
      folder / "package/usr/lib/python3/dist-packages/sklearn/datasets/data/digits.csv.gz";
  fs::create_directories(inside.parent_path());
  fs::create_directory(folder / "package/DEBIAN");
  write_file(inside, "digits");
  write_file(folder / "package/DEBIAN/control",
             "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: p\n");
  const std::string deb = folder / "p.deb";
  ASSERT_EQ(std::system(fmt::format("dpkg-deb --build {} {} >/dev/null 2>&1",
                                    (folder / "package").string(), deb)
                            .c_str()),
            0);
  const RunOptions options = {.environment = {"CADRE_DATA=" + (folder / "data").string()}};
  EXPECT_EQ(run_cadre({"data", "get", "digits", "--from", deb}, options).exit_code, 0);
  EXPECT_EQ(read_file(folder / "data/digits/digits.csv.gz"), "digits");
  EXPECT_THAT(run_cadre({"data", "list"}, options).out,
              HasSubstr((folder / "data/digits").string()));
  // The package of another set.
  expect_mistake(run_cadre({"data", "get", "fashion-mnist", "--from", deb}, options), "has no");
  EXPECT_FALSE(fs::exists(folder / "data/fashion-mnist"));
}

TEST(DataVerb, AWrongChecksumKeepsNothing) {
  const TestFolder folder;
  write_file(folder / "other.txt", "other");
  const std::string url = "file://" + (folder / "other.txt").string();
  const std::string out = folder / "out";
  const ProgramResult result =
      run_cadre({"data", "get", "tinyshakespeare", "--from", url, "--out", out});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("SHA-256"));
  EXPECT_FALSE(fs::exists(out));
}

}  // namespace
}  // namespace cadre
