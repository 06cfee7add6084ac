/// Sparsity-constrained optimal transport: a plan with a limit on nonzeros, as a router that loads
/// experts equally without a balance loss.
///
/// Read from top to bottom: A, the solver against known answers; B, the routers, the net, what is
/// measured; the recipe.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cadre/base/random.h"
#include "cadre/routing/affinity.h"
#include "cadre/routing/expert_choice_router.h"
#include "cadre/routing/expert_side.h"
#include "cadre/routing/top_k_router.h"
#include "cadre/routing/transport/exact.h"
#include "cadre/routing/transport_plan.h"
#include "cadre/routing/transport_router.h"
#include "recipes/harness/digits_net.h"
#include "recipes/recipes.h"

namespace cadre::recipes {
namespace {

using transport::Problem;

// ---- A: a problem solved by hand, at several limits k and strengths gamma.

struct Known {
  int64_t k;
  double gamma, value;
  std::vector<double> plan;
};
const std::vector<double> kAssignment = {.25, 0, .25, 0, 0, .25, 0, .25};
const std::vector<Known> kTable = {
    {2, 1, 0.25, kAssignment},
    {2, 4, 0.625, kAssignment},
    {3, 4, 0.605, {.25, 0, .20, .05, .05, .20, 0, .25}},
    {4, 4, 0.604583, {.241667, .008333, .204167, .045833, .054167, .195833, 0, .25}}};

Problem table_problem() {
  return {.rows = 4,
          .columns = 2,
          .cost = {0, 1, 0.2, 0.9, 0.8, 0.3, 1, 0},
          .supply = {0.25, 0.25, 0.25, 0.25},
          .demand = {0.5, 0.5}};
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

double table_error(bool smoke) {
  double error = 0;
  for (const Known& known : kTable) {
    if (smoke && known.k == 4) continue;
    const auto plan =
        transport::solve_sparse(table_problem(), {.k = known.k, .gamma = known.gamma});
    error = std::max(
        {error, std::abs(plan.bound - known.value), largest_difference(plan.mass, known.plan)});
  }
  return error;
}

// ---- A: random routing problems against all assignments, tried one by one.

Problem random_problem(int64_t rows, int64_t columns, Random& random) {
  Problem problem{.rows = rows, .columns = columns};
  for (int64_t i = 0; i < rows * columns; ++i) problem.cost.push_back(random.uniform());
  problem.supply.assign(rows, 1.0);
  problem.demand.assign(columns, static_cast<double>(rows) / static_cast<double>(columns));
  return problem;
}

double cheapest_assignment(const Problem& problem, int64_t row, std::vector<int64_t>& places) {
  if (row == problem.rows) return 0;
  double least = std::numeric_limits<double>::infinity();
  for (int64_t j = 0; j < problem.columns; ++j) {
    if (places[j] == 0) continue;
    --places[j];
    least = std::min(least, problem.cost[row * problem.columns + j] +
                                cheapest_assignment(problem, row + 1, places));
    ++places[j];
  }
  return least;
}

/// With k = rows / columns the optimum is the cheapest balanced assignment + gamma rows / 2.
double assignment_error(Random& random) {
  double error = 0;
  for (int i = 0; i < 20; ++i) {
    const Problem problem = random_problem(12, 3, random);
    std::vector<int64_t> places(3, 4);
    const double expected = cheapest_assignment(problem, 0, places) + 12 / 2.0;
    auto exact = transport::solve_exact(problem);
    transport::centre_potentials(problem, exact);
    const auto plan = transport::solve_sparse(problem, {.k = 4, .start = exact.alpha});
    error = std::max({error, std::abs(plan.bound - expected), std::abs(plan.objective - expected)});
  }
  return error;
}

// ---- A: what must hold whatever the problem is.

/// By how much a bound exceeds the cost of a plan that is feasible for every k >= 4.
double bound_excess(Random& random) {
  double excess = -1;
  for (int i = 0; i < 10; ++i) {
    const Problem problem = random_problem(12, 3, random);
    const double cost = transport::solve_exact(problem).objective + 12 / 2.0;
    for (int64_t k = 4; k <= 12; k += 4) {
      excess = std::max(excess, transport::solve_sparse(problem, {.k = k}).bound - cost);
    }
  }
  return excess;
}

/// The largest rise of the value when the limit is loosened.
double rise_with_k(Random& random) {
  double rise = -1;
  for (int i = 0; i < 5; ++i) {
    const Problem problem = random_problem(12, 3, random);
    double before = std::numeric_limits<double>::infinity();
    for (int64_t k = 4; k <= 12; ++k) {
      const double bound = transport::solve_sparse(problem, {.k = k}).bound;
      rise = std::max(rise, bound - before);
      before = bound;
    }
  }
  return rise;
}

/// The semi-dual's gradient against central differences.
double gradient_error(Random& random) {
  const Problem problem = random_problem(16, 4, random);
  transport::ColumnDual dual(problem, transport::DualForm::kSemiDual, 1.0, 6);
  std::vector<double> x(16), gradient(16), unused(16);
  for (double& value : x) value = random.uniform();
  dual.evaluate(x, gradient);
  double error = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    constexpr double kStep = 1e-6;
    const double here = x[i];
    x[i] = here + kStep;
    const double up = dual.evaluate(x, unused);
    x[i] = here - kStep;
    const double slope = (up - dual.evaluate(x, unused)) / (2 * kStep);
    x[i] = here;
    error = std::max(error, std::abs(slope - gradient[i]));
  }
  return error;
}

Measurements measure_solver(const ArmRun& run) {
  Random random(run.seed);
  Measurements result;
  result.values = {{"table", table_error(run.smoke())},
                   {"assignment", assignment_error(random)},
                   {"excess", bound_excess(random)},
                   {"rise", rise_with_k(random)},
                   {"gradient", gradient_error(random)}};
  return result;
}

// ---- B: the routers. Groups of 64 rows, 8 experts with 8 places each.

constexpr int64_t kGroup = 64, kExperts = 8, kTrainRows = 1300;

SparseTransport transport_options(int64_t steps, TransportStart start) {
  return {.start = start, .steps = steps};
}

std::shared_ptr<Router> top_1(int64_t width, std::optional<double> capacity_factor) {
  return std::make_shared<TopKRouter>(width, kExperts,
                                      TopK{.k = 1, .capacity_factor = capacity_factor});
}

/// Entropic transport of the logits, 20 iterations; each expert takes its places by the plan.
class SinkhornRouter : public Router {
 public:
  explicit SinkhornRouter(int64_t width)
      : weight_(register_parameter("weight", torch::randn({kExperts, width}) * 0.02)) {}

  Routing route(const RouteInput& input) override {
    const auto logits = affinity(input, weight_);
    const int64_t tokens = logits.size(0);
    const auto plan = entropic_plan(
        -logits.detach(), torch::ones({tokens}),
        torch::full({kExperts}, static_cast<double>(tokens) / kExperts, torch::kFloat64),
        {.epsilon = 1, .max_iterations = 20});
    const auto taken = take_best(plan, group_by_sequence(tokens, {}, {}),
                                 [](int64_t group) { return choice_capacity(1, group, kExperts); });
    const auto probs = torch::softmax(logits, 1);
    Routing routing = routing_from_mask(taken, probs, probs, {});
    routing.logits = logits;
    routing.probs = probs;
    return routing;
  }
  int64_t experts() const override { return kExperts; }
  bool causal() const override { return false; }
  bool batch_invariant() const override { return false; }

 private:
  torch::Tensor weight_;
};

struct Method {
  MakeRouter router;
  double balance = 0;
};

const Method kFavourite = {[](int64_t width) { return top_1(width, {}); }};

Method sparse_method(int64_t steps, TransportStart start) {
  return {[=](int64_t width) {
    return std::make_shared<TransportRouter>(width, kExperts, transport_options(steps, start));
  }};
}

// ---- B: affinity that different selections keep, of the same probabilities.

double kept(const Routing& routing, const torch::Tensor& probs) {
  const auto token = torch::arange(routing.tokens()).repeat_interleave(routing.offsets.diff());
  return probs.index({token, routing.expert.to(torch::kInt64)}).sum().item<double>() /
         static_cast<double>(routing.tokens());
}

/// Pairs by falling affinity, each taken while its token is free and its expert has a place.
double kept_by_greed(const torch::Tensor& probs) {
  const int64_t tokens = probs.size(0);
  const auto order = probs.reshape(-1).argsort(0, /*descending=*/true);
  std::vector<int64_t> places(kExperts, tokens / kExperts), taken(tokens, 0);
  double sum = 0;
  for (int64_t i = 0; i < order.size(0); ++i) {
    const int64_t pair = order[i].item<int64_t>(), token = pair / kExperts;
    if (taken[token]++ > 0 || places[pair % kExperts] == 0) {
      --taken[token];
      continue;
    }
    --places[pair % kExperts];
    sum += probs.reshape(-1)[pair].item<double>();
  }
  return sum / static_cast<double>(tokens);
}

void measure_affinity(const torch::Tensor& probs, double share,
                      std::map<std::string, double>& values) {
  // Logits that give these probabilities, so that routers can be asked directly.
  RouteInput input{.hidden = probs.log()};
  const auto with_identity = [&](auto router) {
    router.weight.copy_(torch::eye(kExperts));
    return kept(router.route(input), probs);
  };
  values["kept_choice"] +=
      share * with_identity(ExpertChoiceRouter(kExperts, kExperts, {.capacity_factor = 1}));
  values["kept_exact"] +=
      share * with_identity(TransportRouter(kExperts, kExperts,
                                            transport_options(0, TransportStart::kExact)));
  values["kept_100"] +=
      share * with_identity(TransportRouter(kExperts, kExperts,
                                            transport_options(100, TransportStart::kZero)));
  values["kept_greedy"] += share * kept_by_greed(probs);
}

// ---- B: training, and what is measured on the test's full groups.

DigitsTraining training() { return {.epochs = 40, .smoke_epochs = 2, .batch = kGroup}; }

void measure_groups(DigitsNet& net, const LabelledRows& rows,
                    std::map<std::string, double>& values) {
  const int64_t groups = rows.size() / kGroup;
  for (const char* name : {"load", "unrouted", "kept"}) values[name] = 0;
  const double share = 1 / static_cast<double>(groups * std::ssize(net.blocks));
  for (int64_t g = 0; g < groups; ++g) {
    net.forward(rows.x.narrow(0, g * kGroup, kGroup));
    for (const auto& block : net.blocks) {
      const Routing& routing = block->routing;
      const RoutingStats stats = stats_of(routing);
      values["load"] += share * stats.max_over_mean_load;
      values["unrouted"] += share * 100 * stats.share_empty;
      values["kept"] += share * kept(routing, routing.probs);
      if (const auto* router = dynamic_cast<const TransportRouter*>(block->router.get())) {
        values["row_error"] += share * router->row_error();
        measure_affinity(routing.probs, share, values);
      }
    }
  }
}

Measurements measure_net(const ArmRun& run, const Method& method) {
  const TrainAndTest digits = split_rows(load_digits(run.data), kTrainRows, run.seed);
  DigitsNetOptions options{.experts = kExperts};
  if (method.balance > 0) options.objectives = {balance_expert(method.balance)};
  DigitsNet net(digits.train.x.size(1), digits.train.classes, options, method.router);
  Measurements result;
  result.curves["loss"] = train_digits(run, training(), digits.train, net);

  const torch::NoGradGuard no_grad;
  measure_groups(net, digits.test, result.values);
  std::vector<torch::Tensor> logits;
  for (const auto& group : digits.test.x.split(kGroup)) logits.push_back(net.forward(group));
  result.values["accuracy"] = accuracy(torch::cat(logits), digits.test.y);
  return result;
}

// ---- What counts.

double of_solver(const At& at, const char* value) { return at("solver", value); }

void accept_solver(Criterion& criterion) {
  const auto check = [&](const std::string& what, const char* value, double bound) {
    criterion.every_seed(
        what, [value](const At& at) { return of_solver(at, value); }, at_most(bound));
  };
  check("error of values and plans of the table", "table", 1e-4);
  check("error of the cost of 20 assignments", "assignment", 1e-6);
  check("bound less the cost of a feasible plan", "excess", 1e-9);
  check("rise of the value with k", "rise", 1e-6);
  check("error of the gradient", "gradient", 1e-5);
}

void accept(Criterion& criterion) {
  accept_solver(criterion);
  const auto of_idea = [](const char* value) {
    return [value](const At& at) { return at("sparse-ot", value); };
  };
  criterion.every_seed("largest load / mean load, sparse-ot", of_idea("load"), at_most(1.05));
  criterion.every_seed("% of tokens without expert, sparse-ot", of_idea("unrouted"), at_most(2));
  if (criterion.smoke()) return;
  criterion.every_seed(
      "tokens without expert, sparse-ot / expert-choice",
      [](const At& at) { return at("sparse-ot", "unrouted") / at("expert-choice", "unrouted"); },
      at_most(0.25));
  criterion.every_seed(
      "% of tokens dropped, top1-capacity - sparse-ot",
      [](const At& at) { return at("top1-capacity", "unrouted") - at("sparse-ot", "unrouted"); },
      at_least(1e-9));
  criterion.on_means(
      "accuracy sparse-ot - top1-capacity",
      [](const At& at) { return at("sparse-ot", "accuracy") - at("top1-capacity", "accuracy"); },
      at_least(-0.3));
  criterion.every_seed(
      "affinity kept, expert choice - the exact plan, of the same probabilities",
      [](const At& at) { return at("sparse-ot", "kept_choice") - at("sparse-ot", "kept_exact"); },
      at_least(-1e-6));
  criterion.every_seed(
      "affinity kept, the exact plan - the greedy assignment",
      [](const At& at) { return at("sparse-ot", "kept_exact") - at("sparse-ot", "kept_greedy"); },
      at_least(-1e-6));
}

std::vector<std::string> remarks(const Results& results) {
  if (!results.has("sparse-ot", "kept_exact")) return {};
  const auto mean = [&](const char* value) { return results.mean("sparse-ot", value); };
  return {
      fmt::format("Affinity kept, of the same probabilities (those of sparse-ot): expert choice "
                  "{:.4f}, the exact plan {:.4f}, 100 steps {:.4f}, greedy {:.4f}.",
                  mean("kept_choice"), mean("kept_exact"), mean("kept_100"), mean("kept_greedy"))};
}

const std::vector<std::string> kNets = {"sparse-ot", "sparse-ot-20",  "sparse-ot-exact",
                                        "sinkhorn",  "expert-choice", "top1-capacity",
                                        "top1",      "top1-free"};

std::vector<Picture> pictures(const Results& results) {
  std::vector<std::string> arms;
  for (const std::string& arm : kNets) {
    if (results.has(arm, "accuracy")) arms.push_back(arm);
  }
  return {{"loss.svg", LineChart{.title = "digits: loss in training",
                                 .x_label = "step",
                                 .y_label = "loss",
                                 .series = results.series(arms, "loss"),
                                 .y_scale = Scale::kLogarithmic}}};
}

Arm net(const std::string& name, const std::string& help, const Method& method) {
  return {name, help, [method](const ArmRun& run) { return measure_net(run, method); }};
}

Arm idea(const std::string& name, const std::string& help, int64_t steps, TransportStart start) {
  return {name, help, [=](const ArmRun& run) {
            return measure_net(run, run.sabotaged() ? kFavourite : sparse_method(steps, start));
          }};
}

}  // namespace

Recipe sparse_ot(const Setting& setting) {
  Recipe recipe = {.stub = "no plan: every token goes to its favourite expert",
                   .arms = {{"solver", "the solver against known answers", measure_solver},
                            idea("sparse-ot", "capacity factor 1, 100 solver steps", 100,
                                 TransportStart::kZero)},
                   .tables = {{.title = "The solver: largest errors",
                               .arms = {"solver"},
                               .columns = {{"table", "table", 7},
                                           {"assignment", "assignments", 7},
                                           {"gradient", "gradient", 7}}},
                              {.title = "Digits, groups of 64 rows, 8 experts, two layers",
                               .arms = kNets,
                               .columns = {{"accuracy", "accuracy %", 2},
                                           {"load", "max / mean load", 3},
                                           {"unrouted", "% without expert", 2},
                                           {"kept", "affinity kept", 3},
                                           {"row_error", "row error", 3}}}},
                   .accept = accept,
                   .pictures = pictures,
                   .remarks = remarks};
  if (setting.size == Size::kSmoke) return recipe;
  recipe.arms.push_back(idea("sparse-ot-20", "the paper's 20 steps", 20, TransportStart::kZero));
  recipe.arms.push_back(
      idea("sparse-ot-exact", "from the exact assignment, no steps", 0, TransportStart::kExact));
  recipe.arms.push_back(
      net("sinkhorn", "entropic plan of the logits, experts take their places",
          {[](int64_t width) { return std::make_shared<SinkhornRouter>(width); }}));
  recipe.arms.push_back(
      net("expert-choice", "experts choose, capacity factor 1", {[](int64_t width) {
            return std::make_shared<ExpertChoiceRouter>(width, kExperts,
                                                        ExpertChoice{.capacity_factor = 1});
          }}));
  recipe.arms.push_back(net("top1-capacity", "top-1, balance 0.01, what is over capacity drops",
                            {[](int64_t width) { return top_1(width, 1.0); }, 0.01}));
  recipe.arms.push_back(net("top1", "top-1, balance 0.01, no capacity",
                            {[](int64_t width) { return top_1(width, {}); }, 0.01}));
  recipe.arms.push_back(net("top1-free", "top-1, no balance, no capacity", kFavourite));
  return recipe;
}

}  // namespace cadre::recipes
