#include "cadre/formats/json.h"

#include <gmock/gmock.h>

#include <functional>

#include "cadre/base/error.h"

namespace cadre {
namespace {

using testing::HasSubstr;

std::string message_of(const std::string& text) {
  try {
    parse_json(text, "x.json");
  } catch (const FormatError& error) {
    return error.what();
  }
  return "no FormatError";
}

std::string nested(const std::string& open, int depth) {
  std::string text;
  for (int i = 0; i < depth; ++i) text += open;
  return text;
}

TEST(ParseJson, ReadsOrdinaryJson) {
  const auto json = parse_json(R"({"a": [1, {"a": 2}], "b": {"a": "é\n"}})", "x.json");
  EXPECT_EQ(json["a"][1]["a"], 2);
  EXPECT_EQ(json["b"]["a"], "é\n");
}

TEST(ParseJson, NamesTheFileAndTheByte) {
  EXPECT_THAT(message_of("{\"a\": }"), HasSubstr("x.json: broken JSON at byte 7"));
  EXPECT_THAT(message_of(""), HasSubstr("broken JSON"));
  EXPECT_THAT(message_of("{} {}"), HasSubstr("broken JSON"));
  EXPECT_THAT(message_of("\"\xff\""), HasSubstr("broken JSON"));
  EXPECT_THAT(message_of("[1e999]"), testing::Not(HasSubstr("no FormatError")));
}

TEST(ParseJson, RefusesAKeyThatIsThereTwice) {
  EXPECT_THAT(message_of(R"({"a": 1, "b": {"c": 1}, "a": 2})"),
              HasSubstr("key \"a\" is there twice"));
  EXPECT_THAT(message_of(R"({"ab": 1, "\u0061b": 2})"), HasSubstr("key \"ab\" is there twice"));
}

TEST(ParseJson, RefusesDeepNestingWithoutUsingTheStack) {
  for (const std::string open : {"[", "{\"a\":", "[{\"a\":["}) {
    EXPECT_THAT(message_of(nested(open, 1000000)), HasSubstr("nested deeper"));
  }
  EXPECT_NO_THROW(parse_json(nested("[", 64) + nested("]", 64), "x.json"));
}

TEST(Quote, KeepsAMessageOnOneLine) {
  EXPECT_EQ(quote("a\n\"b\""), R"("a\n\"b\"")");
  EXPECT_EQ(quote("\xff"), "\"\uFFFD\"");
}

}  // namespace
}  // namespace cadre
