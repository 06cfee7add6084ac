#include "cadre/routing/transport_plan.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>

#include "cadre/base/error.h"
#include "cadre/routing/transport/plan_gradient.h"

namespace cadre {
namespace {

using transport::Plan;
using transport::Problem;
using transport::ProblemGradient;

std::vector<double> to_doubles(const torch::Tensor& tensor) {
  const auto values = tensor.detach().to(torch::kFloat64).contiguous();
  return {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()};
}

torch::Tensor to_tensor(const std::vector<double>& values, at::IntArrayRef sizes,
                        torch::ScalarType type) {
  return torch::tensor(values, torch::kFloat64).reshape(sizes).to(type);
}

/// What one solver does, forward and back.
struct Solver : torch::CustomClassHolder {
  std::function<Plan(const Problem&)> solve;
  std::function<ProblemGradient(const Problem&, const Plan&, const std::vector<double>&)> gradient;
  Problem problem = {};
  Plan plan = {};
};

class PlanFunction : public torch::autograd::Function<PlanFunction> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* ctx, const torch::Tensor& cost,
                               const torch::Tensor& supply, const torch::Tensor& demand,
                               const c10::intrusive_ptr<Solver>& solver) {
    solver->problem = problem_of(cost, supply, demand);
    solver->plan = solver->solve(solver->problem);
    ctx->saved_data["solver"] = c10::IValue::make_capsule(solver);
    ctx->saved_data["supply_type"] = static_cast<int64_t>(supply.scalar_type());
    ctx->saved_data["demand_type"] = static_cast<int64_t>(demand.scalar_type());
    return to_tensor(solver->plan.mass, cost.sizes(), cost.scalar_type());
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto capsule = ctx->saved_data["solver"].toCapsule();
    const auto& solver = static_cast<const Solver&>(*capsule);
    const auto type = [&](const char* name) {
      return static_cast<torch::ScalarType>(ctx->saved_data[name].toInt());
    };
    const auto gradient = solver.gradient(solver.problem, solver.plan, to_doubles(grads[0]));
    const int64_t m = solver.problem.rows, n = solver.problem.columns;
    return {to_tensor(gradient.cost, {m, n}, grads[0].scalar_type()),
            to_tensor(gradient.supply, {m}, type("supply_type")),
            to_tensor(gradient.demand, {n}, type("demand_type")),
            {}};
  }
};

}  // namespace

transport::Problem problem_of(const torch::Tensor& cost, const torch::Tensor& supply,
                              const torch::Tensor& demand) {
  if (cost.dim() != 2 || supply.dim() != 1 || demand.dim() != 1 || supply.size(0) != cost.size(0) ||
      demand.size(0) != cost.size(1)) {
    throw UsageError("transport: cost must be [m, n], supply [m] and demand [n]");
  }
  Problem problem{.rows = cost.size(0),
                  .columns = cost.size(1),
                  .cost = to_doubles(cost),
                  .supply = to_doubles(supply),
                  .demand = to_doubles(demand)};
  transport::check(problem);
  const double received = std::accumulate(problem.demand.begin(), problem.demand.end(), 0.0);
  const double sent = std::accumulate(problem.supply.begin(), problem.supply.end(), 0.0);
  if (received > 0) {
    for (double& mass : problem.demand) mass *= sent / received;
  }
  return problem;
}

torch::Tensor entropic_plan(const torch::Tensor& cost, const torch::Tensor& supply,
                            const torch::Tensor& demand, const transport::Entropic& options) {
  auto solver = c10::make_intrusive<Solver>();
  solver->solve = [options](const Problem& problem) { return solve_entropic(problem, options); };
  solver->gradient = [options](const Problem& problem, const Plan& plan,
                               const std::vector<double>& mass) {
    return entropic_gradient(problem, plan, options.epsilon, mass);
  };
  return PlanFunction::apply(cost, supply, demand, solver);
}

torch::Tensor sparse_plan(const torch::Tensor& cost, const torch::Tensor& supply,
                          const torch::Tensor& demand, const transport::Sparse& options) {
  auto solver = c10::make_intrusive<Solver>();
  solver->solve = [options](const Problem& problem) { return solve_sparse(problem, options); };
  solver->gradient = [options](const Problem& problem, const Plan& plan,
                               const std::vector<double>& mass) {
    return sparse_gradient(problem, plan, options.gamma, mass);
  };
  return PlanFunction::apply(cost, supply, demand, solver);
}

}  // namespace cadre
