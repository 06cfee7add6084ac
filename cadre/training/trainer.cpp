#include "cadre/training/trainer.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <system_error>

#include "cadre/base/error.h"
#include "cadre/base/interrupt.h"
#include "cadre/base/timer.h"
#include "cadre/formats/token_file.h"
#include "cadre/nn/parameters.h"
#include "cadre/training/hash_tables.h"
#include "cadre/training/metrics_log.h"
#include "cadre/training/training_state.h"

namespace cadre {
namespace {

void check_options(const TrainOptions& o) {
  const auto at_least = [](const char* name, int64_t value, int64_t low) {
    if (value < low) throw UsageError("{} is {}, must be at least {}", name, value, low);
  };
  at_least("steps", o.steps, 1);
  at_least("batch", o.batch, 1);
  at_least("length", o.length, 1);
  at_least("accumulate", o.accumulate, 1);
  at_least("warmup_steps", o.warmup_steps, 0);
  at_least("evaluate_every", o.evaluate_every, 0);
  at_least("evaluate_sequences", o.evaluate_sequences, 1);
  at_least("save_every", o.save_every, 0);
  if (!(o.lr > 0) || !std::isfinite(o.lr)) throw UsageError("lr is {}, must be above 0", o.lr);
  if (!(o.final_lr_share >= 0 && o.final_lr_share <= 1)) {
    throw UsageError("final_lr_share is {}, must be from 0 to 1", o.final_lr_share);
  }
  if (!(o.consistency >= 0) || !std::isfinite(o.consistency)) {
    throw UsageError("consistency is {}, must be 0 or more", o.consistency);
  }
}

NamedTensors parameters_of(LanguageModel& model) { return unique_parameters(*model.decoder()); }

/// "balance/layer3" is of the kind "balance".
std::string kind_of(const std::string& aux_name) { return aux_name.substr(0, aux_name.find('/')); }

std::vector<double> shares_of(const torch::Tensor& load) {
  const torch::Tensor share = (load.to(torch::kFloat64) / load.sum().clamp_min(1)).contiguous();
  return {share.data_ptr<double>(), share.data_ptr<double>() + share.numel()};
}

double max_over_mean(const std::vector<double>& shares) {
  return *std::max_element(shares.begin(), shares.end()) * static_cast<double>(shares.size());
}

}  // namespace

void check_draws(const TrainOptions& options, const RouterConfig& router) {
  if (options.consistency == 0) return;
  const bool draws = !router.is_standard() &&
                     router_kind_named(router.kind).needs.find("seed") != std::string_view::npos;
  if (draws) return;
  throw UsageError(
      "consistency compares two passes in which routers draw anew, but the router {} draws "
      "nothing; use the router stochastic, or a consistency of 0",
      router.is_standard() ? "of the architecture" : router.kind);
}

/// What one step gives for logs and reports.
struct Trainer::StepFigures {
  double loss = 0, cross_entropy = 0, lr = 0, grad_norm = 0, seconds = 0;
  std::map<std::string, double> aux;           ///< by kind, summed over layers
  std::vector<double> entropy, max_over_mean;  ///< per expert layer
  std::vector<double> load;                    ///< of the last expert layer
};

Trainer::Trainer(std::filesystem::path folder, const ModelConfig& model,
                 const TrainOptions& options, std::shared_ptr<const TokenBatches> data,
                 const Tokenizer& tokenizer, std::unique_ptr<LanguageModel> initial)
    : folder_(std::move(folder)),
      options_(options),
      data_(std::move(data)),
      tokenizer_(tokenizer),
      model_(std::move(initial)),
      state_(std::make_unique<TrainingState>()) {
  check_options(options_);
  model.validate();
  check_draws(options_, model.router);
  check_fit(model);
  for (const DomainTokens& domain : data_->domains()) {
    validation_.push_back(validation_batches(domain, static_cast<int64_t>(domain_names_.size()),
                                             options_.batch, options_.length,
                                             options_.evaluate_sequences));
    domain_names_.push_back(domain.name);
  }
  if (!model_) {
    model_ = std::make_unique<LanguageModel>(model, options_.seed, options_.activations);
    balance_hash_tables(*model_, *data_);
  }
  optimizer_ = std::make_unique<AdamW>(parameters_of(*model_), options_.adamw);
  restore();
}

Trainer::~Trainer() = default;

void Trainer::check_fit(const ModelConfig& model) const {
  check_tokenizer(tokenizer_, model, "training");
  if (data_->batch() != options_.batch || data_->length() != options_.length) {
    throw UsageError("the data comes in batches of {} x {}, the options say {} x {}",
                     data_->batch(), data_->length(), options_.batch, options_.length);
  }
  if (options_.length > model.max_positions) {
    throw UsageError("length ({}) is more than the model's max_positions ({})", options_.length,
                     model.max_positions);
  }
  const std::string hash = hash_of(tokenizer_);
  for (const DomainTokens& domain : data_->domains()) {
    if (domain.train->tokenizer_hash() != hash) {
      throw UsageError("domain '{}' was encoded with another tokenizer; encode it again",
                       domain.name);
    }
  }
  if (model_ && to_json(model_->config()) != to_json(model)) {
    throw UsageError("the initial model has another configuration than the one to train");
  }
}

void Trainer::restore() {
  const std::filesystem::path folder = folder_ / "state";
  const nlohmann::json settings = settings_of(model_->config(), options_, *data_, tokenizer_);
  if (has_state(folder)) {
    *state_ = read_state(folder);
    check_settings(folder, state_->settings, settings);
    restore_tensors(folder, *state_, *model_, *optimizer_);
  } else if (std::filesystem::exists(folder_ / "config.json")) {
    throw UsageError("{} holds a model that has no training state; choose another folder",
                     folder_.string());
  }
  state_->settings = settings;
  first_step_ = state_->step;
}

TrainResult Trainer::run(const std::function<void(const StepReport&)>& on_step) {
  std::error_code failure;
  std::filesystem::create_directories(folder_, failure);
  if (failure) throw IoError("cannot make {}: {}", folder_.string(), failure.message());
  metrics_ = std::make_unique<MetricsLog>(folder_ / "metrics.jsonl", state_->step);
  const auto due = [&](int64_t every) {
    return state_->step == options_.steps || (every > 0 && state_->step % every == 0);
  };
  // A kill may have come between the last state and the files that people load.
  if (state_->step == options_.steps) save();
  while (state_->step < options_.steps) {
    const StepFigures figures = train_step();
    log_step(figures);
    if (on_step) on_step(report_of(figures));
    if (due(options_.evaluate_every)) evaluate_now();
    const bool stop = interrupted() && state_->step < options_.steps;
    if (stop || due(options_.save_every)) save();
    if (stop) return result(TrainResult::End::kInterrupted);
  }
  return result(TrainResult::End::kFinished);
}

LossParts Trainer::loss_of(const TokenBatch& batch) {
  static Profile::Section& section = Profile::global().section("forward");
  const ScopedTimer timer(section);
  try {
    if (options_.consistency > 0) {
      return model_->consistent_loss(batch.inputs, batch.targets, state_->step, options_.steps,
                                     options_.consistency);
    }
    return model_->loss(batch.inputs, batch.targets, state_->step, options_.steps);
  } catch (const UsageError&) {
    throw;
  } catch (const Error& error) {  // a router that met NaN
    stop_training(error.what());
  }
}

Trainer::StepFigures Trainer::train_step() {
  static Profile::Section& data_section = Profile::global().section("data");
  static Profile::Section& backward_section = Profile::global().section("backward");
  const Stopwatch watch;
  const double share = 1.0 / static_cast<double>(options_.accumulate);
  StepFigures figures;
  for (int64_t micro = 0; micro < options_.accumulate; ++micro) {
    const TokenBatch batch = [&] {
      const ScopedTimer timer(data_section);
      return data_->at(state_->step * options_.accumulate + micro);
    }();
    const LossParts parts = loss_of(batch);
    check_finite(parts);
    figures.loss += share * parts.total.item<double>();
    figures.cross_entropy += share * parts.cross_entropy;
    for (const AuxLoss& aux : parts.aux) {
      figures.aux[kind_of(aux.name)] += share * aux.value.item<double>();
    }
    const ScopedTimer timer(backward_section);
    parts.total.backward();
  }
  update(figures);
  figures.seconds = watch.seconds();
  state_->seconds += figures.seconds;
  return figures;
}

void Trainer::update(StepFigures& figures) {
  static Profile::Section& section = Profile::global().section("optimizer");
  const ScopedTimer timer(section);
  const CosineSchedule schedule = {.lr = options_.lr,
                                   .warmup_steps = options_.warmup_steps,
                                   .total_steps = options_.steps,
                                   .final_share = options_.final_lr_share};
  figures.lr = schedule.at(state_->step);
  try {
    figures.grad_norm =
        optimizer_->step(figures.lr, 1.0 / static_cast<double>(options_.accumulate));
  } catch (const Error& error) {
    stop_training(error.what());
  }
  for (const auto& [index, layer] : model_->expert_layers()) {
    const torch::Tensor load = layer->take_load();
    layer->gate->after_step(load);
    figures.load = shares_of(load);
    figures.max_over_mean.push_back(max_over_mean(figures.load));
    figures.entropy.push_back(layer->stats().entropy);
  }
  ++state_->step;
  state_->tokens += options_.accumulate * options_.batch * options_.length;
}

void Trainer::stop_training(const std::string& reason) const {
  std::string culprit;
  for (const auto& [name, parameter] : parameters_of(*model_)) {
    if (!parameter.isfinite().all().item<bool>()) {
      culprit = fmt::format(" (the weights {} are not finite)", name);
      break;
    }
  }
  throw Error("training stopped at step {}: {}{}; try a lower learning rate{}", state_->step + 1,
              reason, culprit,
              has_state(folder_ / "state") ? " from the last saved state, which is intact" : "");
}

void Trainer::check_finite(const LossParts& parts) const {
  for (const AuxLoss& aux : parts.aux) {
    if (!std::isfinite(aux.value.item<double>())) {
      stop_training(fmt::format("the loss term {} is not finite", aux.name));
    }
  }
  if (!std::isfinite(parts.total.item<double>())) {
    stop_training("the loss term cross_entropy is not finite");
  }
}

StepReport Trainer::report_of(const StepFigures& figures) const {
  StepReport report{.step = state_->step,
                    .steps = options_.steps,
                    .tokens = state_->tokens,
                    .loss = figures.loss,
                    .cross_entropy = figures.cross_entropy,
                    .lr = figures.lr,
                    .grad_norm = figures.grad_norm,
                    .tokens_per_second = tokens_per_step() / figures.seconds,
                    .train_seconds = state_->seconds,
                    .load = figures.load};
  for (size_t i = 0; i < figures.entropy.size(); ++i) {
    report.router_entropy += figures.entropy[i] / static_cast<double>(figures.entropy.size());
    report.max_over_mean_load = std::max(report.max_over_mean_load, figures.max_over_mean[i]);
  }
  return report;
}

void Trainer::log_step(const StepFigures& figures) {
  nlohmann::json line = {
      {"step", state_->step},       {"tokens", state_->tokens},
      {"loss", figures.loss},       {"cross_entropy", figures.cross_entropy},
      {"lr", figures.lr},           {"grad_norm", figures.grad_norm},
      {"seconds", state_->seconds}, {"tokens_per_second", tokens_per_step() / figures.seconds}};
  if (!figures.aux.empty()) line["aux"] = figures.aux;
  if (!figures.entropy.empty()) {
    line["router_entropy"] = figures.entropy;
    line["max_over_mean_load"] = figures.max_over_mean;
  }
  metrics_->append(line);
}

void Trainer::evaluate_now() {
  const ScopedTimer timer(Profile::global(), "evaluate");
  state_->validation = evaluate(*model_, domain_names_, validation_);
  state_->curve.push_back({state_->step, state_->tokens, state_->seconds, state_->validation.mean});
  nlohmann::json domains;
  for (const DomainLoss& domain : state_->validation.domains) domains[domain.domain] = domain.loss;
  metrics_->append({{"step", state_->step},
                    {"validation", domains},
                    {"validation_mean", state_->validation.mean},
                    {"seconds", state_->seconds}});
}

void Trainer::save() {
  const ScopedTimer timer(Profile::global(), "save");
  metrics_->sync();
  save_state(folder_ / "state", *state_, *model_, *optimizer_);
  write_checkpoint_files(folder_, *model_, tokenizer_);
}

TrainResult Trainer::result(TrainResult::End end) const {
  return {.end = end,
          .steps = state_->step,
          .tokens = state_->tokens,
          .train_seconds = state_->seconds,
          .validation = state_->validation,
          .curve = state_->curve};
}

}  // namespace cadre
