/// DeepSeekMoE: many small routed experts and a few shared ones, at unchanged size and work.
///
/// Read from top to bottom: the task, the layers, training, the two ablations, the recipe.

#include <fmt/format.h>

#include <set>

#include "cadre/data/skills.h"
#include "cadre/routing/top_k_router.h"
#include "cadre/training/routes.h"
#include "recipes/harness/byte_lm.h"
#include "recipes/harness/small_moe.h"
#include "recipes/recipes.h"

namespace cadre::recipes {
namespace {

// ---- The task: three of 64 small skills a sample, and one skill common to all.

Skills task(uint64_t seed) {
  return Skills({.skills = 64,
                 .inner = 12,
                 .common_inner = 24,
                 .hard_share = 1,
                 .hard_skills = 3,
                 .combine = SkillsOptions::Combine::kRootSum},
                seed);
}

constexpr int64_t kBatch = 512, kTestRows = 8192;
constexpr uint64_t kTestBatch = 1'000'000;  // an index that no training step has

// ---- The layers: 1024 hidden units of which 128 work on each sample, cut in different ways.

struct Layer {
  int64_t experts, inner, k, shared_inner;
  int64_t active_units() const { return inner * k + shared_inner; }
  int64_t units() const { return inner * experts + shared_inner; }
};
constexpr Layer kGshard = {.experts = 16, .inner = 64, .k = 2, .shared_inner = 0};
constexpr Layer kFine = {.experts = 64, .inner = 16, .k = 8, .shared_inner = 0};
/// Two shared experts, which are one of twice the width.
constexpr Layer kDeepseek = {.experts = 62, .inner = 16, .k = 6, .shared_inner = 32};
constexpr double kBalance = 0.01;

std::shared_ptr<SmallMoe> make_layer(const Layer& layer, const Skills& skills) {
  const SmallMoeOptions options = {.experts = {.in = skills.inputs(),
                                               .inner = layer.inner,
                                               .out = skills.options().outputs,
                                               .experts = layer.experts},
                                   .shared_inner = layer.shared_inner,
                                   .objectives = {balance_expert(kBalance)}};
  // Raw softmax weights over the routed experts (eq. 10), k of them.
  const TopK top_k = {.k = layer.k, .weights = Weights::kRaw};
  return std::make_shared<SmallMoe>(
      options, std::make_shared<TopKRouter>(skills.inputs(), layer.experts, top_k));
}

// ---- Training: 4 x squared error + balance.

FitOptions training(const ArmRun& run) { return {.steps = run.smoke() ? 400 : 2000}; }

torch::Tensor task_loss(const torch::Tensor& prediction, const torch::Tensor& y) {
  return 4 * (prediction - y).square().mean();
}

// ---- Ablations on a trained layer.

/// Each sample is refused the eighth of the experts that it wants most, and takes its k from the
/// rest: how badly they are missed says how little others can stand in for them.
Routing masked(SmallMoe& moe, const Layer& layer, const torch::Tensor& x) {
  const int64_t refused = layer.experts / 8;
  const Routing wide =
      moe.router->route({.hidden = x, .knobs = {.k = refused + layer.k}});  // in order of score
  const auto pick = [&](const torch::Tensor& pairs) {
    return pairs.view({x.size(0), refused + layer.k}).narrow(1, refused, layer.k).contiguous();
  };
  return routing_from_dense(layer.experts, pick(wide.expert), pick(wide.weight));
}

double error_when_masked(SmallMoe& moe, const Layer& layer, const SkillsBatch& test) {
  auto y = moe.routed(test.x, masked(moe, layer, test.x));
  if (moe.shared) y = y + moe.shared->forward(test.x);
  return normalized_error(y, test.y);
}

/// Without the shared experts, and as many routed ones more.
double error_without_shared(SmallMoe& moe, const Layer& layer, const SkillsBatch& test) {
  const int64_t more = layer.shared_inner / layer.inner;
  const Routing routing = moe.router->route({.hidden = test.x, .knobs = {.k = layer.k + more}});
  return normalized_error(moe.routed(test.x, routing), test.y);
}

/// Cuts every expert in `parts`, the bias stays with the first: all parts of a chosen expert, with
/// its weight, must give what it gave. The largest difference over the largest output.
double segmentation_error(SmallMoe& moe, const Layer& layer, int64_t parts,
                          const torch::Tensor& x) {
  const ExpertMlp& whole = *moe.experts;
  const int64_t inner = layer.inner / parts, count = layer.experts * parts;
  const auto [in, out] = std::pair(whole.options().in, whole.options().out);
  ExpertMlp cut({.in = in, .inner = inner, .out = out, .experts = count});
  cut.up = whole.up.reshape({count, inner, in});
  cut.up_bias = whole.up_bias.reshape({count, inner});
  cut.down = whole.down.reshape({layer.experts, out, parts, inner})
                 .permute({0, 2, 1, 3})
                 .reshape({count, out, inner});
  cut.down_bias = torch::zeros({layer.experts, parts, out});
  cut.down_bias.select(1, 0).copy_(whole.down_bias);
  cut.down_bias = cut.down_bias.reshape({count, out});

  const Routing routing = moe.router->route({.hidden = x});
  const auto ids = routing.expert.view({x.size(0), layer.k, 1});
  const auto weights = routing.weight.view({x.size(0), layer.k, 1});
  const Routing finer = routing_from_dense(
      count, (ids * parts + torch::arange(parts, torch::kInt32)).reshape({x.size(0), -1}),
      weights.expand({-1, -1, parts}).reshape({x.size(0), -1}));
  const auto expected = moe.routed(x, routing);
  return ((cut.forward(x, finer) - expected).abs().max() / expected.abs().max()).item<double>();
}

/// How many different sets of experts the samples are given.
int64_t distinct_sets(const Routing& routing, int64_t k) {
  const auto sets = std::get<0>(routing.expert.view({-1, k}).to(torch::kInt64).sort(1));
  std::set<std::vector<int64_t>> seen;
  for (int64_t t = 0; t < sets.size(0); ++t) {
    const int64_t* row = sets[t].data_ptr<int64_t>();
    seen.emplace(row, row + k);
  }
  return static_cast<int64_t>(seen.size());
}

Measurements measure_layer(const ArmRun& run, const Layer& layer) {
  const Skills skills = task(run.seed);
  const auto moe = make_layer(layer, skills);
  Measurements result;
  result.curves["loss"] = fit(run, *moe, training(run), [&](int64_t step) {
    const SkillsBatch batch = skills.batch(kBatch, step);
    const auto prediction = moe->forward(batch.x);
    return task_loss(prediction, batch.y) + moe->aux;
  });

  const torch::NoGradGuard no_grad;
  const SkillsBatch test = skills.batch(kTestRows, kTestBatch);
  const double nmse = normalized_error(moe->forward(test.x), test.y);
  result.values = {{"nmse", nmse},
                   {"balance", expert_balance(moe->routing, {}).item<double>()},
                   {"active_units", static_cast<double>(layer.active_units())},
                   {"units", static_cast<double>(layer.units())},
                   {"masked", error_when_masked(*moe, layer, test) / nmse},
                   {"unshared", error_without_shared(*moe, layer, test) / nmse},
                   {"sets", static_cast<double>(distinct_sets(moe->routing, layer.k))},
                   {"segmented", segmentation_error(*moe, layer, 4, test.x)}};
  return result;
}

/// The stub leaves the idea out: experts are not cut, none is shared.
Measurements measure_idea(const ArmRun& run, const Layer& layer) {
  return measure_layer(run, run.sabotaged() ? kGshard : layer);
}

/// A dense network of the size that works on one sample.
Measurements measure_dense(const ArmRun& run) {
  const Skills skills = task(run.seed);
  Mlp mlp(skills.inputs(), kGshard.active_units(), skills.options().outputs);
  Measurements result;
  result.curves["loss"] = fit(run, mlp, training(run), [&](int64_t step) {
    const SkillsBatch batch = skills.batch(kBatch, step);
    return task_loss(mlp.forward(batch.x), batch.y);
  });
  const torch::NoGradGuard no_grad;
  const SkillsBatch test = skills.batch(kTestRows, kTestBatch);
  const auto units = static_cast<double>(kGshard.active_units());
  result.values = {{"nmse", normalized_error(mlp.forward(test.x), test.y)},
                   {"active_units", units},
                   {"units", units}};
  return result;
}

// ---- Reported beside it: the same three layers in a byte-level language model.

Measurements measure_lm(const ArmRun& run, int64_t experts, int64_t inner, int64_t k,
                        int64_t shared) {
  ModelConfig config = byte_lm_config();
  config.experts = experts;
  config.expert_intermediate = inner;
  config.experts_per_token = k;
  config.shared_experts = shared;
  config.balance_coefficient = kBalance;
  ByteLm lm = train_byte_lm(run, config, {.steps = 120});
  const RoutesReport routes = collect_routes(*lm.model, lm.domains, lm.validation);
  Measurements result = std::move(lm.measured);
  for (const LayerRoutes& layer : routes.layers) {
    result.values["specialization"] +=
        layer.specialization / static_cast<double>(routes.layers.size());
  }
  for (size_t d = 0; d < routes.domains.size(); ++d) {
    Curve& use = result.curves["use/" + routes.domains[d]];
    for (const double share : routes.layers.back().share[d]) {
      use.x.push_back(static_cast<double>(use.x.size()));
      use.y.push_back(share);
    }
  }
  return result;
}

Arm lm_arm(const std::string& name, const std::string& help, int64_t experts, int64_t inner,
           int64_t k, int64_t shared) {
  return {.name = name,
          .help = help,
          .measure = [=](const ArmRun& run) { return measure_lm(run, experts, inner, k, shared); },
          .seeds = 1};
}

const std::vector<std::string> kLayerArms = {"gshard", "fine", "deepseekmoe", "dense"};
const std::vector<std::string> kLmArms = {"lm-gshard", "lm-fine", "lm-deepseekmoe"};

// ---- What counts.

double ratio(const At& at, const std::string& arm, const std::string& value) {
  return at(arm, value) / at("gshard", value);
}

Figure figure(const std::string& arm, const std::string& value) {
  return [=](const At& at) { return at(arm, value); };
}

/// That the arms do equal work, that their load is balanced, and that cutting is exact.
void accept_conditions(Criterion& criterion, const std::vector<std::string>& arms) {
  for (const std::string& arm : arms) {
    const std::string what = "balance of " + arm;
    criterion.every_seed(what, figure(arm, "balance"), at_least(0.9));
    criterion.every_seed(what, figure(arm, "balance"), at_most(3));
    criterion.every_seed("active units of " + arm, figure(arm, "active_units"),
                         at_most(static_cast<double>(kGshard.active_units())));
  }
  criterion.every_seed("change of outputs when experts are cut, relative",
                       figure("gshard", "segmented"), at_most(1e-5));
}

void accept(Criterion& criterion) {
  const auto fine = [](const At& at) { return ratio(at, "fine", "nmse"); };
  const auto both = [](const At& at) { return ratio(at, "deepseekmoe", "nmse"); };
  const auto masked = [](const At& at) { return ratio(at, "deepseekmoe", "masked"); };
  const std::string unshared = "NMSE without the shared experts / with them";
  if (criterion.smoke()) {
    criterion.every_seed("NMSE deepseekmoe / gshard", both, at_most(0.98));
    criterion.every_seed(unshared, figure("deepseekmoe", "unshared"), at_least(1.2));
    accept_conditions(criterion, {"gshard", "deepseekmoe"});
    return;
  }
  criterion.every_seed("NMSE fine / gshard", fine, at_most(0.9));
  criterion.every_seed("NMSE deepseekmoe / gshard", both, at_most(0.85));
  criterion.every_seed(unshared, figure("deepseekmoe", "unshared"), at_least(2));
  criterion.every_seed("rise of NMSE when an eighth is masked, deepseekmoe / gshard", masked,
                       more_than(1));
  accept_conditions(criterion, {"gshard", "fine", "deepseekmoe"});
}

std::vector<Picture> pictures(const Results& results) {
  const bool smoke = results.setting().size == Size::kSmoke;
  const std::vector<std::string> shown =
      smoke ? std::vector<std::string>{"gshard", "deepseekmoe"} : kLayerArms;
  std::vector<Picture> list = {
      {"loss.svg", LineChart{.title = "compositional skills: loss in training",
                             .x_label = "step",
                             .y_label = "loss",
                             .series = results.series(shown, "loss"),
                             .y_scale = Scale::kLogarithmic}}};
  if (!results.has("lm-deepseekmoe", "bits_per_byte")) return list;
  HeatMap map = {.title = "byte-level model, last layer: share of a domain's work",
                 .x_label = "routed expert",
                 .y_label = "domain"};
  for (const RunResult& run : results.runs()) {
    if (run.arm != "lm-deepseekmoe") continue;
    for (const auto& [name, use] : run.measured.curves) {
      if (!name.starts_with("use/")) continue;
      map.row_labels.push_back(name.substr(4));
      map.values.insert(map.values.end(), use.y.begin(), use.y.end());
      map.column_labels.resize(use.y.size());
    }
  }
  for (size_t e = 0; e < map.column_labels.size(); ++e) map.column_labels[e] = fmt::format("{}", e);
  list.push_back({"experts-by-domain.svg", map});
  return list;
}

std::vector<std::string> remarks(const Results& results) {
  if (results.setting().size == Size::kSmoke) return {};
  std::vector<std::string> list = {fmt::format(
      "A dense network of the active size is beside them: NMSE deepseekmoe / dense {:.2f}.",
      results.mean("deepseekmoe", "nmse") / results.mean("dense", "nmse"))};
  if (!results.has("lm-gshard", "bits_per_byte")) {
    list.push_back(fmt::format("The byte-level models did not run: no text here (install {}).",
                               kByteTextPackages));
  }
  return list;
}

}  // namespace

Recipe deepseekmoe(const Setting& setting) {
  const Arm gshard = {.name = "gshard",
                      .help = "16 experts of 64 hidden units, top-2",
                      .measure = [](const ArmRun& run) { return measure_layer(run, kGshard); }};
  const Arm fine = {.name = "fine",
                    .help = "64 experts of 16, top-8: cut in four",
                    .measure = [](const ArmRun& run) { return measure_idea(run, kFine); }};
  const Arm both = {.name = "deepseekmoe",
                    .help = "2 shared and 62 routed experts of 16, top-6",
                    .measure = [](const ArmRun& run) { return measure_idea(run, kDeepseek); }};
  const Arm dense = {.name = "dense",
                     .help = "one network of the 128 units that work on a sample",
                     .measure = measure_dense};
  Recipe recipe = {
      .stub = "experts are not cut and none is shared: fine and deepseekmoe are gshard again",
      .arms = {gshard, both},
      .tables = {{.title = "Compositional skills, 8192 fresh samples",
                  .arms = kLayerArms,
                  .columns = {{"nmse", "NMSE", 3},
                              {"units", "units", 0},
                              {"active_units", "active", 0},
                              {"balance", "balance", 2},
                              {"sets", "expert sets", 0},
                              {"masked", "masked 1/8: NMSE x", 2},
                              {"unshared", "unshared: NMSE x", 2}}}},
      .accept = accept,
      .pictures = pictures,
      .remarks = remarks};
  if (setting.size == Size::kSmoke) return recipe;
  recipe.arms = {gshard, fine, both, dense};
  if (!byte_text_is_here()) return recipe;
  recipe.arms.push_back(
      lm_arm("lm-gshard", "byte-level model, 8 experts of 512, top-2", 8, 512, 2, 0));
  recipe.arms.push_back(lm_arm("lm-fine", "32 experts of 128, top-8", 32, 128, 8, 0));
  recipe.arms.push_back(
      lm_arm("lm-deepseekmoe", "2 shared and 30 routed experts of 128, top-6", 30, 128, 6, 2));
  recipe.tables.push_back({.title = "Byte-level language model, bits per byte (one seed, no gate)",
                           .arms = kLmArms,
                           .columns = {{"bits_per_byte", "mean", 3},
                                       {"bits_per_byte/code", "code", 3},
                                       {"bits_per_byte/manual", "manual", 3},
                                       {"bits_per_byte/literature", "literature", 3},
                                       {"bits_per_byte/dictionary", "dictionary", 3},
                                       {"specialization", "specialization", 3}}});
  return recipe;
}

}  // namespace cadre::recipes
