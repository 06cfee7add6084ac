/// M-SMoE and MC-SMoE: fewer experts by what the router says about them, and smaller ones.
///
/// Read from top to bottom: the data, the classifier, how experts are merged, recovery, low rank, a
/// language model merged as a checkpoint and run by the engine, the recipe.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "cadre/base/random.h"
#include "cadre/data/labelled.h"
#include "cadre/experts/expert_mlp.h"
#include "cadre/nn/linear.h"
#include "cadre/objectives/distillation.h"
#include "cadre/reshape/align.h"
#include "cadre/reshape/calibrate.h"
#include "cadre/reshape/expert_groups.h"
#include "cadre/reshape/low_rank_sparse.h"
#include "cadre/routing/top_k_router.h"
#include "recipes/harness/digits_net.h"
#include "recipes/harness/engine_lm.h"
#include "recipes/harness/small_moe.h"
#include "recipes/recipes.h"

namespace cadre::recipes {
namespace {

using reshape::ExpertGroups;
using reshape::MemberWeights;
using torch::Tensor;

// ---- The data: Fashion-MNIST in its 64 principal components, each of unit variance; a smoke run
// draws classes of four clouds each instead.

constexpr int64_t kWidth = 64, kClasses = 10;

using Images = TrainAndTest;

LabelledRows clouds(const Tensor& centres, int64_t rows) {
  const Tensor cloud = torch::arange(rows) % centres.size(0);
  return {.x = centres.index_select(0, cloud) + 0.6 * torch::randn({rows, kWidth}),
          .y = cloud % kClasses,
          .classes = kClasses};
}

void to_principal_components(Images& images) {
  const Tensor mean = images.train.x.mean(0, true), centred = images.train.x - mean;
  const Tensor covariance = centred.t().mm(centred) / static_cast<double>(images.train.size());
  const auto [variances, directions] = at::linalg_eigh(covariance);  // rising
  const int64_t first = variances.size(0) - kWidth;
  const Tensor map = directions.slice(1, first) / variances.slice(0, first).sqrt();
  for (LabelledRows* rows : {&images.train, &images.test}) rows->x = (rows->x - mean).mm(map);
}

Images load_images(const ArmRun& run) {
  if (run.smoke()) {
    const Tensor centres = torch::randn({4 * kClasses, kWidth});
    return {clouds(centres, 3000), clouds(centres, 2000)};
  }
  Images images = load_fashion_mnist(run.data);
  images.train = images.train.at(shuffled(images.train.size(), run.seed, 0).slice(0, 0, 20000));
  to_principal_components(images);
  return images;
}

LabelledRows batch_of(const ArmRun& run, const LabelledRows& rows, int64_t use, int64_t count,
                      int64_t step) {
  Random random(run.seed, {static_cast<uint64_t>(use), static_cast<uint64_t>(step)});
  Tensor picked = torch::empty({count}, torch::kInt64);
  for (int64_t i = 0; i < count; ++i) {
    picked.data_ptr<int64_t>()[i] = static_cast<int64_t>(random.below(rows.size()));
  }
  return rows.at(picked);
}

// ---- The classifier: all that it knows passes through its experts, of which one works on an
// image. No loss balances them.

struct Classifier : torch::nn::Module {
  explicit Classifier(int64_t n)
      : in(register_module("in", Linear(LinearOptions{.in = kWidth, .out = kWidth}))),
        router(register_module("router", std::make_shared<TopKRouter>(kWidth, n, TopK{.k = 1}))),
        map(torch::arange(n)),
        out(register_module("out", Linear(LinearOptions{.in = kWidth,
                                                        .out = kClasses,
                                                        .bias = LinearOptions::Bias::kZero,
                                                        .init_std = 0.1}))) {
    const torch::NoGradGuard no_grad;
    in->weight.copy_(torch::eye(kWidth));
    set_experts(n);
  }

  /// New ones, all of which a map must reach.
  void set_experts(int64_t n) {
    experts = replace_or_register(
        std::make_shared<ExpertMlp>(ExpertMlpOptions{kWidth, 32, kWidth, n, Activation::kRelu}));
  }

  Tensor hidden(const Tensor& x) { return in->forward(x); }
  Routing route(const Tensor& h) { return router->route({.hidden = h}); }
  /// With the router's choices sent on to the experts that there are.
  Tensor forward(const Tensor& x) {
    const Tensor h = hidden(x);
    Routing routing = route(h);
    routing.expert = map.index_select(0, routing.expert.to(torch::kInt64)).to(torch::kInt32);
    routing.experts = experts->options().experts;
    return out->forward(experts->forward(h, routing));
  }

  Linear in;
  std::shared_ptr<TopKRouter> router;
  Tensor map;  ///< [N] int64: the stored expert of each that the router knows
  std::shared_ptr<ExpertMlp> experts;
  Linear out;

 private:
  std::shared_ptr<ExpertMlp> replace_or_register(std::shared_ptr<ExpertMlp> made) {
    return experts ? replace_module("experts", made) : register_module("experts", made);
  }
};

using Net = std::shared_ptr<Classifier>;

int64_t experts_before(const ArmRun& run) { return run.smoke() ? 8 : 16; }

// ---- What the router does on 256 images.

struct Statistics {
  std::vector<double> usage;       ///< [N] share of the images
  std::vector<double> by_logits;   ///< [N, N] similarity of the router's logits
  std::vector<double> by_outputs;  ///< [N, N] of the mean outputs
};

std::vector<double> doubles(const Tensor& values) {
  const Tensor flat = values.to(torch::kFloat64).contiguous();
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

/// features [T, N]: columns are compared.
std::vector<double> similarity(const Tensor& features) {
  const Tensor wide = features.to(torch::kFloat64);
  return reshape::similarity_of_gram(features.size(1), doubles(wide.t().mm(wide)));
}

Statistics collect(Classifier& net, const Tensor& x) {
  const torch::NoGradGuard no_grad;
  const Tensor h = net.hidden(x);
  const Routing routing = net.route(h);
  std::vector<Tensor> outputs;
  const int64_t n = routing.experts;
  for (int64_t e = 0; e < n; ++e) {
    const Routing all = routing_from_dense(n, torch::full({x.size(0), 1}, e, torch::kInt64),
                                           torch::ones({x.size(0), 1}));
    outputs.push_back(net.experts->forward(h, all).mean(0));
  }
  return {.usage = doubles(routing.load().to(torch::kFloat64) / x.size(0)),
          .by_logits = similarity(routing.logits),
          .by_outputs = similarity(torch::stack(outputs, 1))};
}

/// What is trained once with one seed; arms only merge it.
struct Trained {
  Images images;
  Net net;
  Statistics statistics;
};

const Trained& trained(const ArmRun& run) {
  static std::map<uint64_t, Trained> kept;
  if (const auto found = kept.find(run.seed); found != kept.end()) return found->second;
  torch::manual_seed(run.seed);
  Trained all{.images = load_images(run), .net = std::make_shared<Classifier>(experts_before(run))};
  const FitOptions training = {.steps = run.smoke() ? 300 : 1500, .lr = 3e-3, .final_lr = 3e-3};
  fit(run, *all.net, training, [&](int64_t step) {
    const LabelledRows batch = batch_of(run, all.images.train, 0, 128, step);
    return torch::cross_entropy_loss(all.net->forward(batch.x), batch.y);
  });
  all.statistics = collect(*all.net, batch_of(run, all.images.train, 1, 256, 0).x);
  return kept.emplace(run.seed, std::move(all)).first->second;
}

// ---- Merging: neurons in corresponding order, groups, weighted averages.

enum class Align { kNone, kFirst, kDominant };
enum class Grouping { kRouter, kOutputs, kRandom };

struct MergePlan {
  Align align = Align::kFirst;
  Grouping by = Grouping::kRouter;
  MemberWeights weights = MemberWeights::kUsage;
};

const MergePlan kMsmoe = {};
const MergePlan kPlainAverage = {Align::kNone, Grouping::kRandom, MemberWeights::kUniform};

struct Expert {
  Tensor up, up_bias, down, down_bias;
};

Expert expert_of(const ExpertMlp& all, int64_t e) {
  return {all.up[e].detach(), all.up_bias[e].detach(), all.down[e].detach(),
          all.down_bias[e].detach()};
}

/// The same function with its neurons in the reference's order.
Expert aligned(const Expert& expert, const Expert& reference) {
  const auto view = [](const Expert& e) {
    return reshape::ExpertView{.hidden = e.up.size(1),
                               .inner = e.up.size(0),
                               .up = e.up.data_ptr<float>(),
                               .down = e.down.data_ptr<float>()};
  };
  const auto found = reshape::align_by_weights(view(reference), view(expert));
  const Tensor order = torch::tensor(found.neurons, torch::kInt32).to(torch::kInt64);
  return {expert.up.index_select(0, order), expert.up_bias.index_select(0, order),
          expert.down.index_select(1, order), expert.down_bias};
}

ExpertGroups groups_of(const ArmRun& run, const Statistics& statistics, Grouping by,
                       int64_t groups) {
  if (by == Grouping::kRandom) {
    return reshape::group_at_random(statistics.usage, groups, run.seed);
  }
  const auto& similar = by == Grouping::kRouter ? statistics.by_logits : statistics.by_outputs;
  return reshape::group_by_similarity(statistics.usage, similar, groups);
}

Net copy_of(const Net& net, int64_t experts) {
  auto copy = std::make_shared<Classifier>(net->map.size(0));
  const torch::NoGradGuard no_grad;
  copy->in->weight.copy_(net->in->weight);
  copy->router->weight.copy_(net->router->weight);
  copy->out->weight.copy_(net->out->weight);
  copy->out->bias.copy_(net->out->bias);
  copy->map = net->map.clone();
  copy->set_experts(experts);
  return copy;
}

Net merged(const ArmRun& run, const Trained& all, const MergePlan& plan, int64_t count) {
  const torch::NoGradGuard no_grad;
  const ExpertGroups groups = groups_of(run, all.statistics, plan.by, count);
  const ExpertMlp& before = *all.net->experts;
  Net net = copy_of(all.net, count);
  ExpertMlp& after = *net->experts;
  for (Tensor* parameter : {&after.up, &after.up_bias, &after.down, &after.down_bias}) {
    parameter->zero_();
  }
  for (int64_t g = 0; g < count; ++g) {
    const auto members = reshape::members_of(groups, g);
    const auto weights = reshape::member_weights(all.statistics.usage, members, plan.weights);
    const int64_t reference = plan.align == Align::kFirst ? 0 : groups.dominant[g];
    for (size_t m = 0; m < members.size(); ++m) {
      Expert expert = expert_of(before, members[m]);
      if (plan.align != Align::kNone) expert = aligned(expert, expert_of(before, reference));
      after.up[g].add_(expert.up, weights[m]);
      after.up_bias[g].add_(expert.up_bias, weights[m]);
      after.down[g].add_(expert.down, weights[m]);
      after.down_bias[g].add_(expert.down_bias, weights[m]);
      net->map[members[m]] = g;
    }
  }
  return net;
}

// ---- Recovery: a short training with the unmerged net as teacher, the router frozen.

constexpr double kTemperature = 2;
/// The paper's 0.2 is without the squared temperature that softmax_distillation has.
constexpr double kDistillation = 0.2 / (kTemperature * kTemperature);

void recover(const ArmRun& run, const Trained& all, Classifier& student) {
  student.router->weight.set_requires_grad(false);
  const FitOptions training = {.steps = run.smoke() ? 20 : 100, .lr = 3e-3, .final_lr = 3e-3};
  fit(run, student, training, [&](int64_t step) {
    const LabelledRows batch = batch_of(run, all.images.train, 2, 128, step);
    Tensor teacher;
    {
      const torch::NoGradGuard no_grad;
      teacher = all.net->forward(batch.x);
    }
    const Tensor logits = student.forward(batch.x);
    return torch::cross_entropy_loss(logits, batch.y) +
           kDistillation * softmax_distillation(logits, teacher, kTemperature);
  });
}

double score(const Trained& all, Classifier& net) {
  const torch::NoGradGuard no_grad;
  return accuracy(net.forward(all.images.test.x), all.images.test.y);
}

/// ||W||_F^2 / ||W||_2^2, the mean over experts.
double mean_stable_rank(const Tensor& matrices) {
  const Tensor stack = matrices.detach().contiguous();
  double sum = 0;
  for (int64_t e = 0; e < stack.size(0); ++e) {
    sum += reshape::stable_rank(stack.size(1), stack.size(2), stack[e].data_ptr<float>());
  }
  return sum / static_cast<double>(stack.size(0));
}

std::vector<int64_t> counts(const ArmRun& run) {
  return run.smoke() ? std::vector<int64_t>{4} : std::vector<int64_t>{8, 4};
}

Measurements measure_merge(const ArmRun& run, const MergePlan& plan) {
  const Trained& all = trained(run);
  Measurements result;
  for (const int64_t count : counts(run)) {
    const Net net = merged(run, all, plan, count);
    result.values[fmt::format("m{}", count)] = score(all, *net);
    if (count == 8) {
      result.values["rank/up"] = mean_stable_rank(net->experts->up);
      result.values["rank/down"] = mean_stable_rank(net->experts->down);
    }
    recover(run, all, *net);
    result.values[fmt::format("m{}/kd", count)] = score(all, *net);
  }
  return result;
}

Measurements measure_full(const ArmRun& run) {
  const Trained& all = trained(run);
  Measurements result;
  const double percent = score(all, *all.net);
  for (const int64_t count : counts(run)) {
    result.values[fmt::format("m{}", count)] = percent;
  }
  result.values["rank/up"] = mean_stable_rank(all.net->experts->up);
  result.values["rank/down"] = mean_stable_rank(all.net->experts->down);
  const auto& usage = all.statistics.usage;
  result.values["most used"] = 100 * *std::max_element(usage.begin(), usage.end());
  return result;
}

// ---- Compression: the merged and recovered experts as low rank, with and without whole rows.

Measurements measure_low_rank(const ArmRun& run, double rows_kept) {
  const Trained& all = trained(run);
  const Net net = merged(run, all, kMsmoe, 8);
  recover(run, all, *net);
  Measurements result;
  result.values["m8"] = score(all, *net);
  const torch::NoGradGuard no_grad;
  double numbers = 0, before = 0;
  for (const Tensor& stack : {net->experts->up, net->experts->down}) {
    for (int64_t e = 0; e < stack.size(0); ++e) {
      Tensor matrix = stack[e];
      const auto factors =
          reshape::factor_low_rank_sparse(matrix.size(0), matrix.size(1), matrix.data_ptr<float>(),
                                          {.rank = 8, .rows_kept = rows_kept});
      const auto values = reshape::expand(factors);
      std::copy(values.begin(), values.end(), matrix.data_ptr<float>());
      numbers += static_cast<double>(factors.numbers());
    }
    before += static_cast<double>(stack.numel());
  }
  result.values["compressed"] = score(all, *net);
  result.values["share"] = numbers / before;
  return result;
}

// ---- The same in a byte-level language model: `cadre calibrate`, `merge-experts` and `compress`
// on its checkpoint, the result in the engine.

struct TrainedLm {
  ScratchFolder folder;
  ByteLm lm;
};

TrainedLm& trained_lm(const ArmRun& run) {
  static std::map<uint64_t, std::unique_ptr<TrainedLm>> kept;
  auto& all = kept[run.seed];
  if (all) return *all;
  ModelConfig config = byte_lm_config();
  config.hidden = 64;
  config.layers = 2;
  config.experts = 16;
  config.expert_intermediate = 64;
  config.experts_per_token = 2;
  config.balance_coefficient = 0;
  all = std::make_unique<TrainedLm>();
  all->lm = train_byte_lm(run, config, {.steps = 400, .batch = 16, .lr = 2e-3});
  save_byte_lm(all->folder / "full", *all->lm.model);
  std::vector<std::string> texts;
  for (const ByteDomain& domain : debian_byte_domains(1 << 18)) texts.push_back(domain.train);
  reshape::calibrate(all->folder / "full", texts, all->folder / "stats",
                     {.threads = 1, .quantize_to = kernels::BlockType::kF32},
                     {.window = 128, .tokens = 16384});
  return *all;
}

/// A reshape of the model, or of what an earlier one made of it.
struct LmStep {
  std::string op;
  nlohmann::json parameters;
};

Measurements measure_lm(const ArmRun& run, const std::string& name,
                        const std::vector<LmStep>& steps) {
  TrainedLm& all = trained_lm(run);
  std::filesystem::path model = all.folder / "full";
  for (size_t i = 0; i < steps.size(); ++i) {
    const auto out = all.folder / fmt::format("{}-{}", name, i);
    reshape_lm(steps[i].op, model, steps[i].parameters, out, all.folder / "stats");
    model = out;
  }
  const InEngine found = measure_in_engine(model, all.lm.validation);
  Measurements result;
  result.values = {{"bits", found.bits_per_byte},
                   {"kilobytes", found.expert_bytes / 1000},
                   {"speed", found.read_per_second}};
  return result;
}

const LmStep kLmMerge = {"merge_experts", {{"experts", 8}}};
const LmStep kLmRandom = {
    "merge_experts", {{"experts", 8}, {"by", "random"}, {"weights", "uniform"}, {"align", "none"}}};
const LmStep kLmOutputs = {"merge_experts", {{"experts", 8}, {"by", "outputs"}}};
const LmStep kLmPrune = {"merge_experts", {{"experts", 8}, {"weights", "dominant"}}};
const LmStep kLmLowRank = {"lowrank_sparse", {{"rank", 12}, {"rows", 0.25}}};

// ---- What counts.

void gain(Criterion& criterion, const std::string& over, const std::string& value,
          const Bound& bound) {
  criterion.on_means(
      fmt::format("points of m-smoe over {}, {}", over, value),
      [=](const At& at) { return at("m-smoe", value) - at(over, value); }, bound);
}

double rise(const At& at, const std::string& arm) { return at(arm, "bits") - at("lm", "bits"); }

void accept(Criterion& criterion) {
  if (criterion.smoke()) return gain(criterion, "random", "m4", more_than(0));
  gain(criterion, "uniform", "m8", at_least(8));
  gain(criterion, "random", "m8", at_least(12));
  gain(criterion, "random", "m8/kd", at_least(0.6));
  gain(criterion, "no-alignment", "m4", at_least(2));
  criterion.on_means(
      "points of low rank with rows over low rank alone",
      [](const At& at) { return at("rank-rows", "compressed") - at("rank", "compressed"); },
      at_least(1.5));
  if (!criterion.results().has("lm", "bits")) return;
  criterion.on_means(
      "rise of bits a byte, lm-m-smoe / lm-random",
      [](const At& at) { return rise(at, "lm-m-smoe") / rise(at, "lm-random"); }, at_most(0.5));
  criterion.on_means(
      "bytes of experts in the checkpoint, lm-m-smoe / lm",
      [](const At& at) { return at("lm-m-smoe", "kilobytes") / at("lm", "kilobytes"); },
      at_most(0.52));
}

std::vector<std::string> remarks(const Results& results) {
  if (results.setting().size == Size::kSmoke) return {};
  return {fmt::format("The most used of the 16 experts gets {:.0f} % of the images.",
                      results.mean("full", "most used")),
          fmt::format("Stable rank of the experts before and after merging to 8: up {:.1f} and "
                      "{:.1f}, down {:.1f} and {:.1f}.",
                      results.mean("full", "rank/up"), results.mean("m-smoe", "rank/up"),
                      results.mean("full", "rank/down"), results.mean("m-smoe", "rank/down"))};
}

Arm merge_arm(const std::string& name, const std::string& help, const MergePlan& plan) {
  return {name, help, [plan](const ArmRun& run) { return measure_merge(run, plan); }};
}

Arm lm_arm(const std::string& name, const std::string& help, const std::vector<LmStep>& steps) {
  return {.name = name,
          .help = help,
          .measure = [=](const ArmRun& run) { return measure_lm(run, name, steps); },
          .seeds = 1};
}

void add_lm(Recipe& recipe) {
  const std::vector<Arm> arms = {
      lm_arm("lm", "byte-level model, 2 layers of 16 experts of 64, top-2", {}),
      lm_arm("lm-m-smoe", "8 experts a layer on average: cadre merge-experts", {kLmMerge}),
      lm_arm("lm-outputs", "the same, grouped by the experts' mean outputs", {kLmOutputs}),
      lm_arm("lm-random", "random groups, plain average", {kLmRandom}),
      lm_arm("lm-prune", "only each group's most used expert stays", {kLmPrune}),
      lm_arm("lm-mc-smoe", "lm-m-smoe, then rank 12 and a quarter of the rows: cadre compress",
             {kLmMerge, kLmLowRank})};
  TableSpec table = {.title = "Byte-level language model in the engine (one seed, no recovery)",
                     .columns = {{"bits", "bits a byte", 3},
                                 {"kilobytes", "experts, kB", 0},
                                 {"speed", "bytes read a second", 0}}};
  for (const Arm& arm : arms) {
    table.arms.push_back(arm.name);
    recipe.arms.push_back(arm);
  }
  recipe.tables.push_back(table);
}

}  // namespace

Recipe mc_smoe(const Setting& setting) {
  using enum MemberWeights;
  Recipe recipe = {.stub = "m-smoe merges random groups of experts as they stand",
                   .arms = {{"full", "16 experts of 32 units, one works on an image", measure_full},
                            {"m-smoe", "aligned neurons, groups by router logits, weights by usage",
                             [](const ArmRun& run) {
                               return measure_merge(run, run.sabotaged() ? kPlainAverage : kMsmoe);
                             }},
                            merge_arm("random", "random groups, plain average", kPlainAverage)},
                   .accept = accept,
                   .remarks = remarks};
  TableSpec table = {.title = "Fashion-MNIST, % of 10 000 test images",
                     .columns = {{"m8", "8 experts", 1},
                                 {"m8/kd", "+ 100 steps", 1},
                                 {"m4", "4 experts", 1},
                                 {"m4/kd", "+ 100 steps", 1}}};
  if (setting.size == Size::kSmoke) {
    table.title = "Clouds, % of 2000 test rows";
    table.columns = {{"m4", "4 experts", 1}, {"m4/kd", "+ 20 steps", 1}};
    recipe.tables = {table};
    return recipe;
  }
  const std::vector<Arm> others = {
      merge_arm("dominant-order", "m-smoe, neurons aligned to each group's most used expert",
                {.align = Align::kDominant}),
      merge_arm("outputs", "m-smoe, groups by the experts' mean outputs",
                {.by = Grouping::kOutputs}),
      merge_arm("no-alignment", "m-smoe without alignment", {.align = Align::kNone}),
      merge_arm("uniform", "groups by router logits, plain average, no alignment",
                {.align = Align::kNone, .weights = kUniform}),
      merge_arm("random-aligned", "random groups, aligned, weights by usage",
                {.by = Grouping::kRandom}),
      merge_arm("reversed", "m-smoe, weights 1 - usage", {.weights = kReversed}),
      merge_arm("prune", "only each group's most used expert stays", {.weights = kDominant})};
  recipe.arms.insert(recipe.arms.end(), others.begin(), others.end());
  for (const Arm& arm : recipe.arms) table.arms.push_back(arm.name);
  recipe.arms.push_back({"rank", "m-smoe with 8 experts, recovered, all matrices of rank 8",
                         [](const ArmRun& run) { return measure_low_rank(run, 0); }});
  recipe.arms.push_back({"rank-rows", "the same and a quarter of the rows whole",
                         [](const ArmRun& run) { return measure_low_rank(run, 0.25); }});
  recipe.tables = {
      table,
      {.title = "The 8 recovered experts compressed",
       .arms = {"rank", "rank-rows"},
       .columns = {
           {"m8", "% before", 1}, {"compressed", "% after", 1}, {"share", "numbers kept", 2}}}};
  if (byte_text_is_here()) add_lm(recipe);
  return recipe;
}

}  // namespace cadre::recipes
