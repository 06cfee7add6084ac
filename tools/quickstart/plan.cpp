#include "tools/quickstart/plan.h"

#include <algorithm>
#include <vector>

#include <nlohmann/json.hpp>

#include "cadre/base/error.h"
#include "cadre/base/interrupt.h"
#include "cadre/base/log.h"
#include "cadre/base/progress.h"
#include "cadre/base/timer.h"
#include "cadre/base/units.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"
#include "cadre/training/optimizer.h"
#include "tools/common/json_text.h"

namespace cadre {
namespace {

constexpr int64_t kEvaluations = 12;         // points of the validation curves
constexpr double kEvaluationCost = 1 / 3.0;  // of a training step on as many tokens: forward only
constexpr double kMargin =
    0.92;  // of the minutes: saving, and a machine that is not always as fast

std::filesystem::path plan_path(const std::filesystem::path& out) { return out / "plan.json"; }

void run_step(LanguageModel& model, AdamW& optimizer, const TokenBatches& batches,
              const TrainOptions& options, int64_t step) {
  for (int64_t micro = 0; micro < options.accumulate; ++micro) {
    const TokenBatch batch = batches.at(step * options.accumulate + micro);
    model.loss(batch.inputs, batch.targets, step, options.steps).total.backward();
  }
  // Far too small to change anything: only the time counts.
  optimizer.step(1e-12, 1.0 / static_cast<double>(options.accumulate));
}

/// The median time of a training step on a copy of the model.
double measure(const std::string& label, const ModelConfig& config, const TrainOptions& options,
               const TokenBatches& batches) {
  constexpr int64_t kUntimed = 2;
  constexpr size_t kFewest = 3;
  constexpr size_t kMost = 15;
  constexpr double kEnoughSeconds = 4;
  LanguageModel model(config, options.seed, options.activations);
  NamedTensors parameters;
  for (const auto& item : model.decoder()->named_parameters())
    parameters.emplace_back(item.key(), item.value());
  AdamW optimizer(std::move(parameters), options.adamw);
  Progress progress({.label = label, .total = kUntimed + static_cast<int64_t>(kMost)});
  std::vector<double> times;
  const Stopwatch all;
  for (int64_t step = 0; times.size() < kMost && !interrupted(); ++step) {
    if (times.size() >= kFewest && all.seconds() > kEnoughSeconds) break;
    const Stopwatch watch;
    run_step(model, optimizer, batches, options, step);
    if (step >= kUntimed) times.push_back(watch.seconds());
    progress.advance();
  }
  progress.advance(kUntimed + static_cast<int64_t>(kMost) - progress.done());
  if (times.empty()) return 0;
  std::nth_element(times.begin(), times.begin() + static_cast<int64_t>(times.size() / 2),
                   times.end());
  return times[times.size() / 2];
}

double evaluation_steps(const QuickstartOptions& options, size_t domains) {
  const auto& training = options.training;
  const double sequences =
      static_cast<double>(domains) * static_cast<double>(training.evaluate_sequences);
  const double tokens_in_steps =
      sequences / static_cast<double>(training.batch * training.accumulate);
  return kEvaluations * tokens_in_steps * kEvaluationCost;
}

void save(const std::filesystem::path& out, const Plan& plan) {
  const nlohmann::ordered_json json = {{"steps", plan.steps},
                                       {"warmup_steps", plan.warmup_steps},
                                       {"evaluate_every", plan.evaluate_every},
                                       {"moe_seconds_per_step", plan.moe_seconds},
                                       {"dense_seconds_per_step", plan.dense_seconds},
                                       {"options", plan.options}};
  write_file(plan_path(out), pretty(json));
}

}  // namespace

std::map<std::string, std::string> deciding_options(const CommandLine& line) {
  std::map<std::string, std::string> options = line.values(kModelGroup);
  options.merge(line.values(kTrainingGroup));
  options.erase("save-every");
  options.erase("recompute");
  return options;
}

bool has_plan(const std::filesystem::path& out) { return std::filesystem::exists(plan_path(out)); }

Plan load_plan(const std::filesystem::path& out,
               const std::map<std::string, std::string>& options) {
  const std::string where = plan_path(out).string();
  const nlohmann::json json = parse_json(read_file(where), where);
  Plan plan;
  try {
    plan = {.options = json.at("options"),
            .steps = json.at("steps"),
            .warmup_steps = json.at("warmup_steps"),
            .evaluate_every = json.at("evaluate_every"),
            .moe_seconds = json.at("moe_seconds_per_step"),
            .dense_seconds = json.at("dense_seconds_per_step")};
  } catch (const nlohmann::json::exception& error) {
    throw FormatError("{}: {} (--restart begins anew)", where, error.what());
  }
  const std::string difference = first_difference(plan.options, options);
  if (difference.empty()) return plan;
  throw UsageError("{} was begun with {}: use another --out, or --restart to begin anew",
                   out.string(), difference);
}

int64_t steps_within(double seconds, double step_seconds, double evaluation_steps, int64_t wanted) {
  const double fit = seconds / step_seconds - evaluation_steps;
  return fit >= static_cast<double>(wanted) ? wanted
                                            : std::max<int64_t>(1, static_cast<int64_t>(fit));
}

Plan make_plan(const QuickstartOptions& options, const ModelConfig& moe, const ModelConfig& dense,
               const TokenBatches& batches, std::map<std::string, std::string> deciding) {
  const TrainOptions& training = options.training;
  Plan plan{.options = std::move(deciding), .steps = training.steps};
  if (options.minutes > 0) {
    plan.moe_seconds = measure("measure moe", moe, training, batches);
    plan.dense_seconds = measure("measure dense", dense, training, batches);
    if (interrupted()) return plan;
    const double slower = std::max(plan.moe_seconds, plan.dense_seconds);
    plan.steps = steps_within(options.minutes * 60 * kMargin, slower,
                              evaluation_steps(options, batches.domains().size()), training.steps);
  }
  plan.warmup_steps = std::min(training.warmup_steps, plan.steps / 10);
  plan.evaluate_every = training.evaluate_every > 0
                            ? training.evaluate_every
                            : std::max<int64_t>(1, plan.steps / kEvaluations);
  save(options.out, plan);
  return plan;
}

}  // namespace cadre
