/// AdaMoE: null experts that cost nothing, and a larger k, make a trained top-k layer spend on each
/// token what it needs.
///
/// Read from top to bottom: the task, the trained layer, its conversion, fine-tuning, the recipe.

#include <fmt/format.h>

#include "cadre/data/skills.h"
#include "cadre/objectives/balance_forms.h"
#include "cadre/routing/affinity.h"
#include "cadre/routing/null_experts_router.h"
#include "cadre/routing/top_k_router.h"
#include "recipes/harness/small_moe.h"
#include "recipes/recipes.h"

namespace cadre::recipes {
namespace {

// ---- The task: 70 % of the samples need one of 16 skills, 30 % the mean of three.

constexpr int64_t kBatch = 512, kTestRows = 8192;
constexpr uint64_t kTestBatch = 1'000'000;  // an index that no training step has
constexpr int64_t kExperts = 16, kInner = 24;

/// Mean squared error: what the balance coefficients, which are the paper's, are measured against.
/// (dynamic-routing weighs samples by their skills, 6.4 on average, under which they are too weak.)
torch::Tensor task_loss(const torch::Tensor& prediction, const SkillsBatch& batch) {
  return (prediction - batch.y).square().mean();
}

// ---- The trained layer that everything starts from: top-2, balanced.

SmallMoeOptions layer_options(const Skills& skills, std::vector<RoutingObjective> objectives) {
  return {.experts = {.in = skills.inputs(),
                      .inner = kInner,
                      .out = skills.options().outputs,
                      .experts = kExperts},
          .objectives = std::move(objectives)};
}

std::shared_ptr<SmallMoe> top_k_layer(const Skills& skills, int64_t k) {
  return std::make_shared<SmallMoe>(
      layer_options(skills, {balance_expert(0.01)}),
      std::make_shared<TopKRouter>(skills.inputs(), kExperts,
                                   TopK{.k = k, .weights = Weights::kNormalized}));
}

std::shared_ptr<SmallMoe> pretrained(const ArmRun& run, const Skills& skills) {
  const auto moe = top_k_layer(skills, 2);
  fit(run, *moe, {.steps = run.smoke() ? 100 : 1500, .lr = 3e-3}, [&](int64_t step) {
    const SkillsBatch batch = skills.batch(kBatch, step);
    return task_loss(moe->forward(batch.x), batch) + moe->aux;
  });
  return moe;
}

// ---- Its conversion: the same experts, the router's rows copied to the null experts.

void copy_experts(const ExpertMlp& from, ExpertMlp& to) {
  const torch::NoGradGuard no_grad;
  to.up.copy_(from.up);
  to.up_bias.copy_(from.up_bias);
  to.down.copy_(from.down);
  to.down_bias.copy_(from.down_bias);
}

const torch::Tensor& gate_of(const SmallMoe& moe) {
  return dynamic_cast<const TopKRouter&>(*moe.router).weight;
}

std::shared_ptr<SmallMoe> with_top_k(const SmallMoe& trained, const Skills& skills, int64_t k) {
  const auto moe = top_k_layer(skills, k);
  copy_experts(*trained.experts, *moe->experts);
  const torch::NoGradGuard no_grad;
  dynamic_cast<TopKRouter&>(*moe->router).weight.copy_(gate_of(trained));
  return moe;
}

std::shared_ptr<SmallMoe> with_nulls(const SmallMoe& trained, const Skills& skills,
                                     const NullExperts& options, const RoutingObjective& balance) {
  const auto router = std::make_shared<NullExpertsRouter>(skills.inputs(), kExperts, options);
  const auto moe = std::make_shared<SmallMoe>(layer_options(skills, {balance}), router);
  copy_experts(*trained.experts, *moe->experts);
  const torch::NoGradGuard no_grad;
  router->weight.copy_(gate_of(trained));
  router->tile_nulls();
  return moe;
}

// ---- Balance: the nulls' load pooled, or, for the ablation, each null for itself. The coefficient
// is the step's.

RoutingObjective pooled() {
  return {"pooled", 1,
          [](const Routing& routing, const RouteInput&) { return balance_pooled_nulls(routing); }};
}

RoutingObjective unpooled(int64_t k) {
  return {"unpooled", 1, [k](const Routing& routing, const RouteInput&) {
            const int64_t ids = routing.probs.size(1);
            const auto slots = row_top_k(routing.probs.detach(), k).view(-1).to(torch::kInt64);
            const auto share = torch::bincount(slots, {}, ids).to(torch::kFloat32) /
                               static_cast<double>(slots.numel());
            return ids * (share * routing.probs.mean(0)).sum();
          }};
}

/// First the load is established, then tokens choose.
double coefficient(const ArmRun& run, int64_t step, int64_t steps) {
  if (run.smoke()) return 1;
  return step < steps / 2 ? 0.02 : 1e-4;
}

// ---- Fine-tuning and measuring.

torch::Tensor experts_per_token(const SmallMoe& moe) {
  return moe.routing.offsets.diff().to(torch::kFloat32);
}

/// `weight` of the layer's auxiliary loss at a step.
Measurements fine_tune(const ArmRun& run, const Skills& skills, SmallMoe& moe,
                       const std::function<double(int64_t step, int64_t steps)>& weight) {
  const int64_t steps = run.smoke() ? 60 : 1000;
  Measurements result;
  Curve& used = result.curves["experts"];
  const Curve losses = fit(run, moe, {.steps = steps, .lr = 1e-3}, [&](int64_t step) {
    // Batches that pretraining has not seen.
    const SkillsBatch batch = skills.batch(kBatch, 10'000 + step);
    const auto prediction = moe.forward(batch.x);
    if (step % 20 == 0) {
      used.x.push_back(static_cast<double>(step));
      used.y.push_back(experts_per_token(moe).mean().item<double>());
    }
    return task_loss(prediction, batch) + weight(step, steps) * moe.aux;
  });
  result.curves["loss"] = losses;

  const torch::NoGradGuard no_grad;
  const SkillsBatch test = skills.batch(kTestRows, kTestBatch);
  const auto y = moe.forward(test.x);
  const auto k = experts_per_token(moe);
  const auto rows = [&](bool hard) { return torch::nonzero((test.skills > 1) == hard).squeeze(1); };
  const auto easy = rows(false), hard = rows(true);
  const auto nmse_of = [&](const torch::Tensor& ids) {
    return normalized_error(y.index_select(0, ids), test.y.index_select(0, ids));
  };
  const auto k_of = [&](const torch::Tensor& ids) {
    return k.index_select(0, ids).mean().item<double>();
  };
  result.values = {{"nmse", (nmse_of(easy) + nmse_of(hard)) / 2},
                   {"nmse_easy", nmse_of(easy)},
                   {"nmse_hard", nmse_of(hard)},
                   {"k", k.mean().item<double>()},
                   {"k_easy", k_of(easy)},
                   {"k_hard", k_of(hard)},
                   {"k_deviation", k.std().item<double>()},
                   {"empty", 100 * (k == 0).to(torch::kFloat32).mean().item<double>()},
                   {"loss", losses.y.back()}};
  return result;
}

Measurements measure_top_k(const ArmRun& run, int64_t k) {
  const Skills skills({}, run.seed);
  const auto moe = with_top_k(*pretrained(run, skills), skills, k);
  return fine_tune(run, skills, *moe, [](int64_t, int64_t) { return 1.0; });
}

/// The stub takes the nulls away: two true experts for every token.
Measurements measure_nulls(const ArmRun& run, NullExperts options,
                           const std::function<RoutingObjective(int64_t k)>& balance) {
  if (run.sabotaged()) options = {.nulls = 0, .k = 2};
  const Skills skills({}, run.seed);
  const auto trained = pretrained(run, skills);
  const auto moe = with_nulls(*trained, skills, options, balance(options.k));
  torch::Tensor difference;
  {
    const torch::NoGradGuard no_grad;
    const auto x = skills.batch(kBatch, kTestBatch).x;
    moe->eval();
    difference = (moe->forward(x) - trained->forward(x)).abs().max();
  }
  Measurements result = fine_tune(run, skills, *moe, [&run](int64_t step, int64_t steps) {
    return coefficient(run, step, steps);
  });
  result.values["conversion"] = difference.item<double>();
  return result;
}

Arm nulls(const std::string& name, const std::string& help, const NullExperts& options,
          const std::function<RoutingObjective(int64_t k)>& balance) {
  return {name, help, [=](const ArmRun& run) { return measure_nulls(run, options, balance); }};
}

Arm plain(const std::string& name, const std::string& help, int64_t k) {
  return {name, help, [k](const ArmRun& run) { return measure_top_k(run, k); }};
}

RoutingObjective pooled_for(int64_t) { return pooled(); }

// ---- What counts.

void accept_smoke(Criterion& criterion) {
  criterion.every_seed(
      "deviation of experts over samples",
      [](const At& at) { return at("nulls16", "k_deviation"); }, at_least(0.1));
  criterion.every_seed(
      "distance of the mean experts from k E / (E + M) = 2 under full balance",
      [](const At& at) { return std::abs(at("nulls16", "k") - 2); }, at_most(0.3));
  criterion.every_seed(
      "loss with the balance in it", [](const At& at) { return at("nulls16", "loss"); },
      at_most(100));
}

void accept(Criterion& criterion) {
  criterion.every_seed(
      "outputs change at the conversion, nulls16",
      [](const At& at) { return at("nulls16", "conversion"); }, at_most(1e-5));
  if (criterion.smoke()) return accept_smoke(criterion);
  for (const std::string arm : {"nulls16", "nulls8"}) {
    criterion.every_seed(
        "mean experts, " + arm, [arm](const At& at) { return at(arm, "k"); }, at_most(1.98));
    criterion.every_seed(
        "experts of hard - easy samples, " + arm,
        [arm](const At& at) { return at(arm, "k_hard") - at(arm, "k_easy"); }, at_least(0.4));
    criterion.every_seed(
        "NMSE " + arm + " / top2",
        [arm](const At& at) { return at(arm, "nmse") / at("top2", "nmse"); }, at_most(0.97));
  }
}

std::vector<Picture> pictures(const Results& results) {
  const std::vector<std::string> arms = results.setting().size == Size::kSmoke
                                            ? std::vector<std::string>{"nulls16"}
                                            : std::vector<std::string>{"nulls16", "nulls8"};
  return {{"experts.svg", LineChart{.title = "skills: experts per sample in fine-tuning",
                                    .x_label = "step",
                                    .y_label = "experts",
                                    .series = results.series(arms, "experts")}}};
}

}  // namespace

Recipe adamoe(const Setting& setting) {
  Recipe recipe = {
      .stub = "no null experts: every sample gets two",
      .arms = {plain("top2", "fine-tuned as it is", 2),
               nulls("nulls16", "16 null experts, k = 4", {.nulls = 16, .k = 4}, pooled_for)},
      .tables = {{.title = "Skills, 8192 fresh samples, one pretrained layer fine-tuned",
                  .columns = {{"nmse", "NMSE", 3},
                              {"nmse_easy", "easy", 3},
                              {"nmse_hard", "hard", 3},
                              {"k", "experts", 2},
                              {"k_easy", "easy", 2},
                              {"k_hard", "hard", 2},
                              {"empty", "% without", 2}}}},
      .accept = accept,
      .pictures = pictures};
  if (setting.size == Size::kSmoke) return recipe;
  recipe.arms.push_back(nulls("nulls8", "8 null experts, k = 3", {.nulls = 8, .k = 3}, pooled_for));
  recipe.arms.push_back(nulls("unpooled", "16 null experts, k = 4, each balanced for itself",
                              {.nulls = 16, .k = 4}, unpooled));
  recipe.arms.push_back(plain("top1", "fine-tuned with one expert", 1));
  return recipe;
}

}  // namespace cadre::recipes
