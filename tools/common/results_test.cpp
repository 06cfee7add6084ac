#include "tools/common/results.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tools/common/html.h"
#include "tools/common/routes_view.h"
#include "tools/common/train_display.h"

namespace cadre {
namespace {

using testing::HasSubstr;

TEST(Results, LossBetweenPointsOfTheCurve) {
  const std::vector<TrainResult::Point> curve = {
      {.step = 1, .tokens = 10, .seconds = 2, .loss = 4},
      {.step = 2, .tokens = 20, .seconds = 4, .loss = 3}};
  EXPECT_DOUBLE_EQ(loss_at(curve, 3), 3.5);
  EXPECT_DOUBLE_EQ(loss_at(curve, 2), 4);
  EXPECT_DOUBLE_EQ(loss_at(curve, 0), 4) << "before the first point";
  EXPECT_DOUBLE_EQ(loss_at(curve, 99), 3) << "after the last point";
}

TEST(Results, TableHasARowForEachDomainAndTheMean) {
  const Evaluation a{.domains = {{.domain = "code", .loss = 2}, {.domain = "verse", .loss = 4}},
                     .mean = 3};
  const std::string text = losses_table({{"moe", a}, {"dense", a}}).str();
  EXPECT_THAT(text, HasSubstr("verse"));
  EXPECT_THAT(text, HasSubstr("3.0000"));
}

TEST(LoadBars, MeanIsHalfHeightAndNarrowDisplaysShowTheBusiest) {
  EXPECT_EQ(load_bars({0.25, 0.25, 0.25, 0.25}, 16), "▅▅▅▅");
  EXPECT_EQ(load_bars({1, 0, 0, 0}, 16), "█▁▁▁");
  EXPECT_EQ(load_bars({0, 1, 0, 0}, 2), "█▁");
  EXPECT_EQ(load_bars({}, 16), "");
}

RoutesReport two_domains() {
  return {.domains = {"code", "verse"},
          .experts = 3,
          .experts_per_token = 1,
          .tokens = 8,
          .layers = {{.layer = 5,
                      .share = {{0.9, 0.1, 0}, {0.45, 0.5, 0.05}},
                      .entropy = {0, 0},
                      .specialization = 0.45}}};
}

TEST(Routes, SpecialistsWorkForOneDomainAndWorkEnough) {
  const std::vector<Specialist> found = specialists_of(two_domains(), 10);
  ASSERT_EQ(found.size(), 2U) << "the third expert hardly works";
  EXPECT_EQ(found[0].domain, "verse");
  EXPECT_EQ(found[0].expert, 1);
  EXPECT_NEAR(found[0].of_its_work, 0.5 / 0.6, 1e-12);
  EXPECT_EQ(found[1].expert, 0);
  EXPECT_EQ(specialists_of(two_domains(), 1).size(), 1U);
}

TEST(Routes, MapsHaveARowForEachLayerAndDomain) {
  EXPECT_EQ(whole_map(two_domains()).values.size(), 6U);
  EXPECT_THAT(whole_map(two_domains()).row_labels, testing::ElementsAre("5 code", "5 verse"));
  EXPECT_THAT(routes_text(two_domains()), HasSubstr("layer 5: specialization 0.45"));
}

TEST(Html, EscapesAndEmbeds) {
  EXPECT_EQ(escape_html("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
  const std::string page = html_page("A & B", routes_html(two_domains()));
  EXPECT_THAT(page, HasSubstr("<title>A &amp; B</title>"));
  EXPECT_THAT(page, HasSubstr("<svg"));
  EXPECT_THAT(page, testing::Not(HasSubstr("<?xml")));
}

}  // namespace
}  // namespace cadre
