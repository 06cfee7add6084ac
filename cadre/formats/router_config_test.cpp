#include "cadre/formats/router_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "cadre/base/error.h"
#include "cadre/formats/router_kinds.h"

namespace cadre {
namespace {

using nlohmann::json;

constexpr RouterShape kShape = {
    .hidden = 16, .experts = 8, .experts_per_token = 2, .vocabulary = 50, .layers = 3};

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

std::string parse_error(const std::string& text) {
  return message_of([&] { parse_router_config(json::parse(text), "c.json"); });
}

std::string misfit(const std::string& text) {
  return message_of(
      [&] { check_router(parse_router_config(json::parse(text), "c.json"), kShape); });
}

TEST(RouterConfig, EveryKindRoundTripsAndFitsAModel) {
  std::set<std::string_view> names;
  for (const RouterKind& kind : router_kinds()) {
    EXPECT_TRUE(names.insert(kind.name).second) << kind.name;
    const RouterConfig config = {.kind = std::string(kind.name)};
    const json j = to_json(config);
    EXPECT_EQ(to_json(parse_router_config(j, "here")), j);
    EXPECT_NO_THROW(check_router(config, kShape)) << kind.name;
    for (const RouterTensor& tensor : kind.tensors(config, kShape, 0)) {
      for (const int64_t size : tensor.shape) EXPECT_GT(size, 0) << kind.name << tensor.name;
    }
  }
}

/// The flag --router-p means one thing.
TEST(RouterConfig, OptionsOfOneNameHaveOneType) {
  std::map<std::string_view, size_t> types;
  for (const RouterKind& kind : router_kinds()) {
    for (const RouterOption& option : kind.options) {
      const auto [known, fresh] = types.emplace(option.name, option.fallback.index());
      EXPECT_EQ(known->second, option.fallback.index()) << kind.name << "." << option.name;
      EXPECT_NE(option.name, "kind");
    }
  }
}

TEST(RouterConfig, GivesWhatWasSetAndElseTheDefault) {
  RouterConfig config = parse_router_config({{"kind", "top_p"}, {"p", 1}}, "here");
  EXPECT_EQ(config.real("p"), 1.0) << "a whole number is a number";
  EXPECT_EQ(config.text("weights"), "raw");
  set_router_option(config, "p", "0.25");
  EXPECT_EQ(config.real("p"), 0.25);
  EXPECT_EQ(message_of([&] { config.integer("p"); }), "router top_p: option p is of another type");
  RouterConfig top_k = {.kind = "top_k"};
  EXPECT_EQ(slots_of(top_k, kShape), 2);
  set_router_option(top_k, "k", "5");
  EXPECT_EQ(slots_of(top_k, kShape), 5);
}

TEST(RouterConfig, WhatLooksAheadDecodesWithAFallbackOnly) {
  EXPECT_NO_THROW(check_decoding({}));
  for (const RouterKind& kind : router_kinds()) {
    RouterConfig config = {.kind = std::string(kind.name)};
    if (kind.causal) {
      EXPECT_NO_THROW(check_decoding(config)) << kind.name;
      continue;
    }
    EXPECT_THAT(message_of([&] { check_decoding(config); }), testing::HasSubstr("fallback"));
    set_router_option(config, "fallback", "top_k");
    EXPECT_NO_THROW(check_decoding(config)) << kind.name;
  }
  EXPECT_THAT(message_of([] {
                check_decoding({.kind = "top_k", .options = {{"capacity_factor", 1.25}}});
              }),
              testing::HasSubstr("capacity_factor to 0"));
}

TEST(RouterConfig, UnknownNamesNameTheNearest) {
  EXPECT_EQ(parse_error(R"({"kind": "topp"})"),
            "c.json: unknown router kind 'topp': did you mean top_p? (cadre list routers shows "
            "them)");
  EXPECT_EQ(parse_error(R"({"kind": "null_experts", "null": 3})"),
            "c.json: router null_experts has no option 'null': did you mean nulls? (cadre list "
            "routers shows them)");
}

TEST(RouterConfig, BadValuesAreNamed) {
  EXPECT_EQ(parse_error("[]"), "c.json: must be an object with a \"kind\"");
  EXPECT_EQ(parse_error("{}"), "c.json: must name its \"kind\"");
  EXPECT_EQ(parse_error(R"({"kind": "top_p", "p": "x"})"),
            "c.json: router top_p: p is \"x\", must be a number");
  EXPECT_EQ(parse_error(R"({"kind": "top_p", "p": 0})"),
            "c.json: router top_p: p is 0, must be above 0 and at most 1");
  EXPECT_EQ(parse_error(R"({"kind": "top_p", "p": 1.5})"),
            "c.json: router top_p: p is 1.5, must be above 0 and at most 1");
  EXPECT_EQ(parse_error(R"({"kind": "top_k", "k": 0})"),
            "c.json: router top_k: k is 0, must be at least 1 and at most 65536");
  EXPECT_EQ(parse_error(R"({"kind": "top_k", "squash": "soft|max"})"),
            "c.json: router top_k: squash is \"soft|max\", must be softmax, sigmoid");
  EXPECT_EQ(parse_error(R"({"kind": "top_k", "k": 18446744073709551615})"),
            "c.json: router top_k: k is 18446744073709551615, must be a whole number");
}

TEST(RouterConfig, WhatDoesNotFitTheModelIsNamed) {
  EXPECT_EQ(misfit(R"({"kind": "top_k", "k": 9})"),
            "router top_k: k is 9, must be from 1 to 8, the experts it may choose from");
  EXPECT_EQ(misfit(R"({"kind": "top_k", "groups": 3})"),
            "router top_k: 8 experts do not divide into 3 groups");
  EXPECT_EQ(misfit(R"({"kind": "null_experts", "nulls": 65536})"),
            "router null_experts: 8 experts and 65536 nulls are more than the 65536 ids there are");
  EXPECT_EQ(misfit(R"({"kind": "null_experts", "nulls": 2, "k": 11})"),
            "router null_experts: k is 11, must be from 1 to 10, the true and null experts");
  EXPECT_EQ(misfit(R"({"kind": "smoe_dropout", "k_min": 5, "k_max": 3})"),
            "router smoe_dropout: k goes from 5 to 3, must rise from at least 1 to at most 8, the "
            "experts");
}

}  // namespace
}  // namespace cadre
