/// Dynamic routing: as many experts as it takes for the router's probabilities to pass p, so that
/// hard samples get more.
///
/// Read from top to bottom: the task, the routers, training and measuring, the language model, the
/// recipe.

#include <fmt/format.h>

#include <algorithm>

#include "cadre/data/skills.h"
#include "cadre/objectives/objectives.h"
#include "cadre/routing/top_k_router.h"
#include "cadre/routing/top_p_router.h"
#include "recipes/harness/byte_lm.h"
#include "recipes/harness/small_moe.h"
#include "recipes/recipes.h"

namespace cadre::recipes {
namespace {

// ---- The task: 70 % of the samples need one of 16 skills, 30 % the mean of three.

constexpr int64_t kBatch = 512, kTestRows = 8192;
constexpr uint64_t kTestBatch = 1'000'000;  // an index that no training step has
constexpr int64_t kExperts = 16, kInner = 24;

/// 4 x mean over samples of (number of skills) x squared error: the mean of three skills has a
/// third of the variance, so easy and hard samples count alike.
torch::Tensor task_loss(const torch::Tensor& prediction, const SkillsBatch& batch) {
  const auto error = (prediction - batch.y).square().mean(1);
  return 4 * (error * batch.skills.to(torch::kFloat32)).mean();
}

// ---- The routers: the idea, its stub, and fixed k.

using RouterMaker = std::function<std::shared_ptr<Router>(int64_t inputs)>;

RouterMaker top_k(int64_t k, Weights weights) {
  return [=](int64_t inputs) {
    return std::make_shared<TopKRouter>(inputs, kExperts, TopK{.k = k, .weights = weights});
  };
}

RouterMaker top_p(double p) {
  return
      [=](int64_t inputs) { return std::make_shared<TopPRouter>(inputs, kExperts, TopP{.p = p}); };
}

/// Balance whose load sums to the mean k, and the entropy penalty that keeps a router from being
/// flat everywhere.
std::vector<RoutingObjective> objectives() {
  return {make_objective("balance_per_token", 0.01), make_objective("router_entropy", 1e-4)};
}

// ---- Training and measuring.

torch::Tensor experts_per_token(const Routing& routing) {
  return routing.offsets.diff().to(torch::kFloat32);
}

Measurements measure(const ArmRun& run, const RouterMaker& make_router) {
  const Skills skills({}, run.seed);
  SmallMoe moe({.experts = {.in = skills.inputs(),
                            .inner = kInner,
                            .out = skills.options().outputs,
                            .experts = kExperts},
                .objectives = objectives()},
               make_router(skills.inputs()));
  Measurements result;
  Curve& mean_k = result.curves["k"];
  const auto loss = [&](int64_t step) {
    const SkillsBatch batch = skills.batch(kBatch, step);
    const auto prediction = moe.forward(batch.x);
    if (step % 20 == 0) {
      mean_k.x.push_back(static_cast<double>(step));
      mean_k.y.push_back(experts_per_token(moe.routing).mean().item<double>());
    }
    return task_loss(prediction, batch) + moe.aux;
  };
  const Curve losses = fit(run, moe, {.steps = run.smoke() ? 300 : 2000}, loss);

  const torch::NoGradGuard no_grad;
  const SkillsBatch test = skills.batch(kTestRows, kTestBatch);
  const auto y = moe.forward(test.x);
  const auto k = experts_per_token(moe.routing);
  const auto rows = [&](bool hard) { return torch::nonzero((test.skills > 1) == hard).squeeze(1); };
  const auto nmse_of = [&](const torch::Tensor& ids) {
    return normalized_error(y.index_select(0, ids), test.y.index_select(0, ids));
  };
  const auto mean_k_of = [&](const torch::Tensor& ids) {
    return k.index_select(0, ids).mean().item<double>();
  };
  const auto easy = rows(false), hard = rows(true);
  result.values = {{"nmse_easy", nmse_of(easy)},
                   {"nmse_hard", nmse_of(hard)},
                   {"nmse", (nmse_of(easy) + nmse_of(hard)) / 2},
                   {"k", k.mean().item<double>()},
                   {"k_easy", mean_k_of(easy)},
                   {"k_hard", mean_k_of(hard)},
                   {"k_least", k.min().item<double>()},
                   {"loss_share", losses.y.back() / losses.y.front()}};
  result.curves["loss"] = losses;
  return result;
}

/// The stub gives every sample two experts, whatever the router's probabilities say.
Measurements measure_idea(const ArmRun& run, double p) {
  return measure(run, run.sabotaged() ? top_k(2, Weights::kRaw) : top_p(p));
}

Arm fixed(const std::string& name, const std::string& help, int64_t k, Weights weights) {
  return {name, help, [=](const ArmRun& run) { return measure(run, top_k(k, weights)); }};
}

Arm dynamic(const std::string& name, double p) {
  return {name, fmt::format("top-p routing, p = {}, raw weights", p),
          [=](const ArmRun& run) { return measure_idea(run, p); }};
}

// ---- Reported beside it: a byte-level language model with top-2 and with p = 0.4.

/// True where a byte begins a word: a letter after something that is none. inputs [B, T].
torch::Tensor begins_word(const torch::Tensor& inputs) {
  const auto lower = inputs.bitwise_or(0x20);  // the ASCII letters in one range
  const auto letter = (lower >= 'a') & (lower <= 'z');
  auto before = torch::zeros_like(letter);
  before.narrow(1, 1, inputs.size(1) - 1).copy_(letter.narrow(1, 0, inputs.size(1) - 1));
  return letter & before.logical_not();
}

/// Mean experts per token by layer, by domain (over layers), and of bytes that begin a word or do
/// not.
void measure_use(ByteLm& lm) {
  auto& values = lm.measured.values;
  const auto& layers = lm.model->expert_layers();
  std::vector<double> by_layer(layers.size());
  double tokens = 0, first = 0, first_k = 0, all_k = 0;
  for (size_t d = 0; d < lm.domains.size(); ++d) {
    double domain_k = 0, domain_tokens = 0;
    for (const TokenBatch& batch : lm.validation[d]) {
      lm.model->evaluate(batch.inputs, batch.targets);
      const auto begins = begins_word(batch.inputs).reshape(-1).to(torch::kFloat32);
      for (size_t i = 0; i < layers.size(); ++i) {
        const auto k = experts_per_token(layers[i].second->last_routing());
        const double sum = k.sum().item<double>();
        by_layer[i] += sum;
        domain_k += sum / static_cast<double>(layers.size());
        first_k += (k * begins).sum().item<double>() / static_cast<double>(layers.size());
      }
      first += begins.sum().item<double>();
      domain_tokens += static_cast<double>(batch.inputs.numel());
    }
    values["k/" + lm.domains[d]] = domain_k / domain_tokens;
    tokens += domain_tokens;
    all_k += domain_k;
  }
  values["k"] = all_k / tokens;
  values["k_first"] = first_k / first;
  values["k_rest"] = (all_k - first_k) / (tokens - first);
  for (size_t i = 0; i < layers.size(); ++i) {
    lm.measured.curves["k_by_layer"].x.push_back(static_cast<double>(i));
    lm.measured.curves["k_by_layer"].y.push_back(by_layer[i] / tokens);
  }
}

Measurements measure_lm(const ArmRun& run, const RouterConfig& router) {
  ModelConfig config = byte_lm_config();
  config.experts = 8;
  config.experts_per_token = 2;
  config.expert_intermediate = 256;
  config.router = router;
  config.balance_coefficient = 0.01;
  if (!router.is_standard()) config.objectives = {{"router_entropy", 1e-4}};
  Curve mean_k;
  const auto note = [&](LanguageModel& model, int64_t step) {
    if (step % 5 != 0) return;
    double k = 0;
    for (const auto& [layer, experts] : model.expert_layers()) k += experts->stats().mean_k;
    mean_k.x.push_back(static_cast<double>(step));
    mean_k.y.push_back(k / static_cast<double>(model.expert_layers().size()));
  };
  ByteLm lm = train_byte_lm(run, config, {.steps = 200}, note);
  measure_use(lm);
  lm.measured.curves["k"] = mean_k;
  return lm.measured;
}

const std::vector<std::string> kSkillArms = {"top1", "top2", "top2-raw", "top3", "p0.4", "p0.6"};
const std::vector<std::string> kLmArms = {"lm-top2", "lm-p0.4"};

// ---- What counts.

void accept(Criterion& criterion) {
  const auto more_for_hard = [](const At& at) {
    return at("p0.4", "k_hard") - at("p0.4", "k_easy");
  };
  if (criterion.smoke()) {
    criterion.every_seed("experts of hard - easy samples, p0.4", more_for_hard, at_least(0.1));
    criterion.every_seed(
        "fewest experts of a sample, p0.4", [](const At& at) { return at("p0.4", "k_least"); },
        at_least(1));
    criterion.every_seed(
        "loss at the end / at the beginning, p0.4",
        [](const At& at) { return at("p0.4", "loss_share"); }, at_most(0.8));
    return;
  }
  criterion.every_seed(
      "mean experts, p0.4", [](const At& at) { return at("p0.4", "k"); }, at_most(2.3));
  criterion.every_seed("experts of hard - easy samples, p0.4", more_for_hard, at_least(0.7));
  criterion.every_seed(
      "NMSE p0.4 / the better top-2",
      [](const At& at) {
        const double top2 = std::min(at("top2", "nmse"), at("top2-raw", "nmse"));
        return at("p0.4", "nmse") / top2;
      },
      at_most(0.75));
}

LineChart chart(const Results& results, const std::string& title, const std::string& x_label,
                const std::vector<std::string>& arms, const std::string& curve) {
  return {.title = title,
          .x_label = x_label,
          .y_label = "experts per token",
          .series = results.series(arms, curve)};
}

std::vector<Picture> pictures(const Results& results) {
  if (results.setting().size == Size::kSmoke) {
    return {{"experts.svg", chart(results, "skills: experts per sample", "step", {"p0.4"}, "k")}};
  }
  std::vector<Picture> list = {{"experts.svg", chart(results, "skills: experts per sample", "step",
                                                     {"top2", "p0.4", "p0.6"}, "k")}};
  if (!results.has("lm-p0.4", "k")) return list;
  list.push_back(
      {"lm-experts.svg",
       chart(results, "byte-level model: experts per token in training", "step", kLmArms, "k")});
  list.push_back({"lm-layers.svg", chart(results, "byte-level model: experts per token by layer",
                                         "layer", kLmArms, "k_by_layer")});
  return list;
}

std::vector<std::string> remarks(const Results& results) {
  if (results.setting().size == Size::kSmoke || results.has("lm-p0.4", "k")) return {};
  return {fmt::format("The byte-level models did not run: no text here (install {}).",
                      kByteTextPackages)};
}

}  // namespace

Recipe dynamic_routing(const Setting& setting) {
  Recipe recipe = {.stub = "every sample gets two experts, whatever its probabilities",
                   .arms = {fixed("top2", "top-2, weights normalised", 2, Weights::kNormalized),
                            dynamic("p0.4", 0.4)},
                   .tables = {{.title = "Skills, 8192 fresh samples",
                               .arms = kSkillArms,
                               .columns = {{"nmse", "NMSE", 3},
                                           {"nmse_easy", "easy", 3},
                                           {"nmse_hard", "hard", 3},
                                           {"k", "experts", 2},
                                           {"k_easy", "easy", 2},
                                           {"k_hard", "hard", 2}}}},
                   .accept = accept,
                   .pictures = pictures,
                   .remarks = remarks};
  if (setting.size == Size::kSmoke) return recipe;
  recipe.arms = {fixed("top1", "top-1, raw weight", 1, Weights::kRaw),
                 fixed("top2", "top-2, weights normalised", 2, Weights::kNormalized),
                 fixed("top2-raw", "top-2, raw weights", 2, Weights::kRaw),
                 fixed("top3", "top-3, raw weights", 3, Weights::kRaw),
                 dynamic("p0.4", 0.4),
                 dynamic("p0.6", 0.6)};
  if (!byte_text_is_here()) return recipe;
  recipe.arms.push_back({"lm-top2", "byte-level model, 8 experts of 256, top-2",
                         [](const ArmRun& run) { return measure_lm(run, {}); }, 1});
  recipe.arms.push_back({"lm-p0.4", "the same with top-p routing, p = 0.4",
                         [](const ArmRun& run) {
                           return measure_lm(run, {.kind = "top_p", .options = {{"p", 0.4}}});
                         },
                         1});
  recipe.tables.push_back({.title = "Byte-level language model (one seed, no gate)",
                           .arms = kLmArms,
                           .columns = {{"bits_per_byte", "bits/byte", 3},
                                       {"k", "experts", 2},
                                       {"k_first", "word begins", 2},
                                       {"k_rest", "other bytes", 2},
                                       {"k/code", "code", 2},
                                       {"k/manual", "manual", 2},
                                       {"k/literature", "literature", 2},
                                       {"k/dictionary", "dictionary", 2}}});
  return recipe;
}

}  // namespace cadre::recipes
