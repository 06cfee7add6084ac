#include "cadre/training/training_state.h"

#include <algorithm>
#include <string>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"
#include "cadre/formats/token_file.h"
#include "cadre/nn/parameters.h"
#include "cadre/training/tensor_file.h"

namespace cadre {
namespace {

using nlohmann::json;

constexpr const char* kCounters = "trainer.json";
constexpr const char* kWeights = "weights.safetensors";
constexpr const char* kMoments = "moments.safetensors";

/// Everything the run changes: parameters, and what routers keep in buffers.
NamedTensors model_tensors(LanguageModel& model) {
  NamedTensors tensors = unique_parameters(*model.decoder());
  for (const auto& item : model.decoder()->named_buffers()) {
    tensors.emplace_back(item.key(), item.value());
  }
  return tensors;
}

json to_json(const TrainingState& state) {
  json curve = json::array();
  for (const auto& point : state.curve) {
    curve.push_back({{"step", point.step},
                     {"tokens", point.tokens},
                     {"seconds", point.seconds},
                     {"loss", point.loss}});
  }
  json domains = json::array();
  for (const DomainLoss& domain : state.validation.domains) {
    domains.push_back(
        {{"domain", domain.domain}, {"loss", domain.loss}, {"tokens", domain.tokens}});
  }
  return {{"step", state.step},        {"tokens", state.tokens},
          {"seconds", state.seconds},  {"curve", curve},
          {"validation", domains},     {"validation_mean", state.validation.mean},
          {"settings", state.settings}};
}

TrainingState state_from(const json& j) {
  TrainingState state{.step = j.at("step").get<int64_t>(),
                      .tokens = j.at("tokens").get<int64_t>(),
                      .seconds = j.at("seconds").get<double>(),
                      .settings = j.at("settings")};
  for (const json& point : j.at("curve")) {
    state.curve.push_back({point.at("step").get<int64_t>(), point.at("tokens").get<int64_t>(),
                           point.at("seconds").get<double>(), point.at("loss").get<double>()});
  }
  for (const json& domain : j.at("validation")) {
    state.validation.domains.push_back({domain.at("domain").get<std::string>(),
                                        domain.at("loss").get<double>(),
                                        domain.at("tokens").get<int64_t>()});
  }
  state.validation.mean = j.at("validation_mean").get<double>();
  return state;
}

/// "/model/hidden_size" as "model.hidden_size".
std::string dotted(std::string pointer) {
  std::replace(pointer.begin(), pointer.end(), '/', '.');
  return pointer.substr(1);
}

}  // namespace

json settings_of(const ModelConfig& model, const TrainOptions& options, const TokenBatches& data,
                 const Tokenizer& tokenizer) {
  json domains = json::object();
  for (size_t i = 0; i < data.domains().size(); ++i) {
    const DomainTokens& domain = data.domains()[i];
    domains[domain.name] = {
        {"position", i}, {"tokens", domain.train->size()}, {"share", data.shares()[i]}};
  }
  json settings = {{"model", to_json(model)},
                   {"tokenizer", hash_of(tokenizer)},
                   {"domains", domains},
                   {"data_seed", data.seed()},
                   {"steps", options.steps},
                   {"batch", options.batch},
                   {"length", options.length},
                   {"accumulate", options.accumulate},
                   {"lr", options.lr},
                   {"warmup_steps", options.warmup_steps},
                   {"final_lr_share", options.final_lr_share},
                   {"beta1", options.adamw.beta1},
                   {"beta2", options.adamw.beta2},
                   {"eps", options.adamw.eps},
                   {"weight_decay", options.adamw.weight_decay},
                   {"clip_norm", options.adamw.clip_norm},
                   {"seed", options.seed}};
  // Stated when it is on, so that states from before there was one go on.
  if (options.consistency > 0) settings["consistency"] = options.consistency;
  return settings;
}

void check_settings(const std::filesystem::path& folder, const json& saved, const json& now) {
  const json before = saved.is_object() ? saved.flatten() : json::object();
  const json after = now.flatten();
  const auto refuse = [&](const std::string& key, const json& old_value, const json& new_value) {
    throw UsageError(
        "{} was made with {} = {}, now it is {}; use the same options, or another folder",
        folder.string(), dotted(key), old_value.dump(-1, ' ', true), new_value.dump(-1, ' ', true));
  };
  for (const auto& [key, value] : after.items()) {
    if (!before.contains(key)) refuse(key, "absent", value);
    if (before[key] != value) refuse(key, before[key], value);
  }
  for (const auto& [key, value] : before.items()) {
    if (!after.contains(key)) refuse(key, value, "absent");
  }
}

void save_state(const std::filesystem::path& folder, const TrainingState& state,
                LanguageModel& model, const AdamW& optimizer) {
  AtomicFolder atomic(folder);
  write_tensors(atomic.staging() / kWeights, model_tensors(model));
  write_tensors(atomic.staging() / kMoments, optimizer.state());
  write_file(atomic.staging() / kCounters, to_json(state).dump(1) + "\n");
  atomic.commit();
}

bool has_state(const std::filesystem::path& folder) {
  return std::filesystem::exists(folder / kCounters);
}

TrainingState read_state(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / kCounters;
  const json j = parse_json(read_file(file), file.string());
  try {
    return state_from(j);
  } catch (const json::exception& error) {
    throw FormatError("{}: {}", file.string(), error.what());
  }
}

void restore_tensors(const std::filesystem::path& folder, const TrainingState& state,
                     LanguageModel& model, AdamW& optimizer) {
  const std::filesystem::path weights = folder / kWeights, moments = folder / kMoments;
  read_tensors(SafetensorsReader(weights), weights, model_tensors(model));
  read_tensors(SafetensorsReader(moments), moments, optimizer.state());
  optimizer.resume_at(state.step);
}

}  // namespace cadre
