/// SMoE-Dropout: a random router that never learns and more and more experts in training give a net
/// that gets better with every expert one grants it afterwards.
///
/// Read from top to bottom: the task, the routers, training, what is measured, the recipe.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cadre/routing/affinity.h"
#include "cadre/routing/random_router.h"
#include "cadre/routing/selection.h"
#include "cadre/routing/top_k_router.h"
#include "recipes/harness/digits_net.h"
#include "recipes/recipes.h"

namespace cadre::recipes {
namespace {

// ---- The task: 300 handwritten digits to learn from, 1497 for the test.

constexpr int64_t kTrainRows = 300, kExperts = 8, kLeast = 4;
constexpr DigitsTraining kTraining = {.epochs = 60, .smoke_epochs = 10, .batch = 50};

// ---- The routers: the idea, a learned one, all experts at once, and a lot for every token.

constexpr KSchedule kGrowing = {
    .form = KSchedule::Form::kLinear, .first = kLeast, .last = kExperts};

std::shared_ptr<Router> random_and_growing(int64_t width) {
  // Logits of standard deviation 1 on normalised inputs, so that routing shows in so small a net.
  const double std = 1 / std::sqrt(static_cast<double>(width));
  return std::make_shared<RandomRouter>(width, kExperts,
                                        RandomExperts{.schedule = kGrowing, .gate_std = std});
}

std::shared_ptr<Router> learned_top_2(int64_t width) {
  return std::make_shared<TopKRouter>(width, kExperts,
                                      TopK{.k = 2, .weights = Weights::kNormalized});
}

/// The plain sum of all experts: a dense layer in eight parts.
class EveryExpert : public Router {
 public:
  Routing route(const RouteInput& input) override {
    const int64_t tokens = input.hidden.size(0);
    return routing_from_dense(kExperts, torch::arange(kExperts).expand({tokens, kExperts}),
                              torch::ones({tokens, kExperts}));
  }
  int64_t experts() const override { return kExperts; }
};

/// Scores drawn anew for every token and step, k of the same schedule: dropout of experts.
class LotForEveryToken : public Router {
 public:
  Routing route(const RouteInput& input) override {
    const bool trains = input.mode == RouteMode::kTrain;
    const int64_t k =
        input.knobs.k.value_or(trains ? kGrowing.at(input.step, input.total_steps) : kExperts);
    const uint64_t key =
        input.seed * 1'000'003 + static_cast<uint64_t>(input.step * 2 + input.layer);
    const auto scores = torch::empty({input.hidden.size(0), kExperts})
                            .uniform_(0, 1, at::detail::createCPUGenerator(key));
    const Rows rows = rows_of(row_top_k(scores, k), kExperts);
    return routing_of(kExperts, rows, row_weights(scores, rows, Weighting::kSoftmax), scores,
                      torch::softmax(scores, 1), {});
  }
  int64_t experts() const override { return kExperts; }
};

// ---- Training, and what is measured: the trained net with 1, 2, 4 and 8 experts.

struct Method {
  MakeRouter router;
  std::vector<RoutingObjective> objectives = {};
};
const Method kIdea = {random_and_growing};
const Method kLearned = {learned_top_2, {balance_expert(0.01)}};
const Method kDense = {[](int64_t) { return std::make_shared<EveryExpert>(); }};
const Method kLot = {[](int64_t) { return std::make_shared<LotForEveryToken>(); }};

std::vector<torch::Tensor> routers_of(const DigitsNet& net) {
  std::vector<torch::Tensor> tensors;
  for (const auto& block : net.blocks) {
    for (const auto& tensor : block->router->parameters()) tensors.push_back(tensor);
    for (const auto& tensor : block->router->buffers()) tensors.push_back(tensor);
  }
  return tensors;
}

std::vector<torch::Tensor> copies(std::vector<torch::Tensor> tensors) {
  for (auto& tensor : tensors) tensor = tensor.detach().clone();
  return tensors;
}

bool equal(const std::vector<torch::Tensor>& a, const std::vector<torch::Tensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const auto& x, const auto& y) { return torch::equal(x, y); });
}

/// Experts a token while training.
double mean_k(const DigitsNet& net) {
  const Routing& routing = net.blocks[0]->routing;
  return static_cast<double>(routing.pairs()) / static_cast<double>(routing.tokens());
}

bool rises(const std::vector<double>& values) {
  return std::is_sorted(values.begin(), values.end());
}

Measurements measure(const ArmRun& run, const Method& method) {
  const TrainAndTest digits = split_rows(load_digits(run.data), kTrainRows, run.seed);
  DigitsNet net(digits.train.x.size(1), digits.train.classes,
                {.experts = kExperts, .objectives = method.objectives}, method.router);
  const auto before = copies(routers_of(net));
  Measurements result;
  Curve& k = result.curves["k"];
  result.curves["loss"] = train_digits(run, kTraining, digits.train, net, [&](int64_t step) {
    k.x.push_back(static_cast<double>(step));
    k.y.push_back(mean_k(net));
  });
  auto& values = result.values;
  values["router_moved"] = equal(before, routers_of(net)) ? 0 : 1;
  values["first_k"] = k.y.front();
  values["last_k"] = k.y.back();
  values["k_falls"] = rises(k.y) ? 0 : 1;
  values["loss"] = result.curves["loss"].y.back();

  const torch::NoGradGuard no_grad;
  Curve& nll = result.curves["nll"];
  for (const int64_t granted : {1, 2, 4, 8}) {
    RouteInput how{.seed = run.seed};
    how.knobs.k = granted;
    const auto logits = net.forward(digits.test.x, how);
    const double loss = torch::nn::functional::cross_entropy(logits, digits.test.y).item<double>();
    values[fmt::format("nll{}", granted)] = loss;
    values[fmt::format("accuracy{}", granted)] = accuracy(logits, digits.test.y);
    nll.x.push_back(static_cast<double>(granted));
    nll.y.push_back(loss);
  }
  return result;
}

// ---- What counts.

void accept_smoke(Criterion& criterion) {
  const auto of_idea = [](const char* value) {
    return [value](const At& at) { return at("smoe-dropout", value); };
  };
  criterion.every_seed("experts at the first step", of_idea("first_k"), at_most(kLeast));
  criterion.every_seed("experts at the last step", of_idea("last_k"), at_least(kExperts));
  criterion.every_seed("runs in which the number of experts fell", of_idea("k_falls"), at_most(0));
  criterion.every_seed("runs in which the router moved", of_idea("router_moved"), at_most(0));
  criterion.every_seed("loss at the end", of_idea("loss"), at_most(2));
}

void accept(Criterion& criterion) {
  if (criterion.smoke()) return accept_smoke(criterion);
  const auto ratio = [](const char* arm, const char* value, const char* of, const char* base) {
    return [=](const At& at) { return at(arm, value) / at(of, base); };
  };
  for (const int k : {2, 4, 8}) {
    const double bound = k == 8 ? 0.97 : 0.9999;
    criterion.on_means(
        fmt::format("NLL of smoe-dropout, k = {} / k = {}", k, k / 2),
        [k](const At& at) {
          return at("smoe-dropout", fmt::format("nll{}", k)) /
                 at("smoe-dropout", fmt::format("nll{}", k / 2));
        },
        at_most(bound));
  }
  criterion.on_means("NLL of learned, k = 8 / k = 4", ratio("learned", "nll8", "learned", "nll4"),
                     at_least(1.05));
  criterion.on_means("NLL at k = 8, smoe-dropout / learned",
                     ratio("smoe-dropout", "nll8", "learned", "nll8"), at_most(0.9));
  criterion.every_seed(
      "runs in which the router moved",
      [](const At& at) { return at("smoe-dropout", "router_moved"); }, at_most(0));
}

std::vector<Picture> pictures(const Results& results) {
  return {{"nll.svg", LineChart{.title = "digits: test loss of one net by experts granted",
                                .x_label = "experts",
                                .y_label = "negative log likelihood",
                                .series = results.series({"smoe-dropout", "learned"}, "nll")}}};
}

std::vector<std::string> remarks(const Results& results) {
  if (results.setting().size == Size::kSmoke) return {};
  const double ratio = results.mean("smoe-dropout", "nll8") / results.mean("dense", "nll8");
  return {
      fmt::format("The paper's gain over the dense net {} at this size: NLL smoe-dropout at "
                  "k = 8 / dense {:.2f}.",
                  ratio < 1 ? "shows" : "does not show", ratio)};
}

std::vector<Column> columns() {
  std::vector<Column> list;
  for (const int k : {1, 2, 4, 8}) {
    list.push_back({fmt::format("accuracy{}", k), fmt::format("% at k={}", k), 1});
    list.push_back({fmt::format("nll{}", k), fmt::format("NLL at k={}", k), 3});
  }
  return list;
}

Arm arm(const std::string& name, const std::string& help, const Method& method) {
  return {name, help, [method](const ArmRun& run) { return measure(run, method); }};
}

}  // namespace

Recipe smoe_dropout(const Setting& setting) {
  Recipe recipe = {
      .stub = "the router learns, with two experts at every step",
      .arms = {{"smoe-dropout", "random frozen router, k from 4 to 8",
                [](const ArmRun& run) { return measure(run, run.sabotaged() ? kLearned : kIdea); }},
               arm("learned", "learned top-2, balance 0.01", kLearned)},
      .tables = {{.title = "Digits, 300 rows to learn from: one trained net at several k",
                  .columns = columns()}},
      .accept = accept,
      .pictures = pictures,
      .remarks = remarks};
  if (setting.size == Size::kSmoke) return recipe;
  recipe.arms.push_back(arm("dense", "the sum of all eight experts (k changes nothing)", kDense));
  recipe.arms.push_back(arm("lot", "experts drawn for every token, k from 4 to 8", kLot));
  return recipe;
}

}  // namespace cadre::recipes
