#include "cadre/reshape/upcycle_config.h"

#include <algorithm>

#include "cadre/base/error.h"
#include "cadre/base/text.h"
#include "cadre/formats/json.h"

namespace cadre::reshape {
namespace {

using nlohmann::json;

void check_keys(const json& table, const std::vector<std::string>& known,
                const std::string& where) {
  if (!table.is_object()) throw UsageError("{}: must be a table", where);
  for (const auto& [key, value] : table.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    throw UsageError("{}: unknown key {}{}", where, quote(key), did_you_mean(key, known));
  }
}

std::string text_of(const json& table, const char* key, const std::string& where) {
  const auto found = table.find(key);
  if (found == table.end() || !found->is_string()) {
    throw UsageError("{}: key \"{}\" must be a text", where, key);
  }
  return found->get<std::string>();
}

std::vector<std::string> prompts_of(const json& table, const char* key, const std::string& where) {
  const auto found = table.find(key);
  if (found == table.end()) return {};
  const auto is_text = [](const json& value) { return value.is_string(); };
  if (!found->is_array() || !std::all_of(found->begin(), found->end(), is_text)) {
    throw UsageError("{}: key \"{}\" must be a list of texts", where, key);
  }
  return found->get<std::vector<std::string>>();
}

class Reader {
 public:
  Reader(const json& document, const std::string& where) : document_(document), where_(where) {}

  UpcycleConfig read() {
    check_keys(document_,
               {"base_model", "gate_mode", "dtype", "experts", "experts_per_token",
                "shared_experts", "architecture"},
               where_);
    const auto base = std::to_string(input(text_of(document_, "base_model", where_)));
    for (const char* kind : {"attention", "norms", "embeddings"}) config_.parameters[kind] = base;
    read_experts();
    read_router();
    read_rest();
    return std::move(config_);
  }

 private:
  /// The input's number; a model named twice is one input.
  int64_t input(const std::string& model) {
    auto& models = config_.models;
    const auto found = std::find(models.begin(), models.end(), model);
    const auto at = found - models.begin();
    if (found == models.end()) models.push_back(model);
    return at;
  }

  void read_experts() {
    const auto list = document_.find("experts");
    if (list == document_.end() || !list->is_array() || list->empty()) {
      throw UsageError("{}: key \"experts\" must be a list of tables", where_);
    }
    json &params = config_.parameters, good = json::array(), bad = json::array();
    for (size_t e = 0; e < list->size(); ++e) {
      const json& expert = (*list)[e];
      const std::string where = fmt::format("{}: expert {}", where_, e);
      check_keys(expert, {"source_model", "positive_prompts", "negative_prompts", "noise_scale"},
                 where);
      params["experts"].push_back(input(text_of(expert, "source_model", where)));
      good.push_back(prompts_of(expert, "positive_prompts", where));
      bad.push_back(prompts_of(expert, "negative_prompts", where));
      read_noise(expert, e, where);
    }
    params["prompts"] = std::move(good);
    params["negative_prompts"] = std::move(bad);
  }

  void read_noise(const json& expert, size_t e, const std::string& where) {
    const json noise = expert.value("noise_scale", json(0.0));
    if (!noise.is_number()) throw UsageError("{}: key \"noise_scale\" must be a number", where);
    if (e > 0 && config_.parameters["noise"] != noise) {
      throw UsageError("{}: noise_scale must be the same for all experts", where);
    }
    config_.parameters["noise"] = noise;
  }

  void read_router() {
    const std::string mode =
        document_.contains("gate_mode") ? text_of(document_, "gate_mode", where_) : "hidden";
    if (mode == "hidden" || mode == "hidden_avg") {
      config_.parameters["router"] = "hidden";
    } else if (mode == "random" || mode == "uniform_random") {
      config_.parameters["router"] = "random";
    } else if (mode == "cheap_embed") {
      config_.parameters["router"] = mode;
    } else {
      throw UsageError("{}: gate_mode is \"{}\", must be hidden, cheap_embed or random", where_,
                       mode);
    }
  }

  void read_rest() {
    json& params = config_.parameters;
    const json used = document_.value("experts_per_token", json(2));
    if (!used.is_number_integer()) {
      throw UsageError("{}: key \"experts_per_token\" must be an integer", where_);
    }
    params["used"] = used;
    if (document_.contains("architecture")) {
      const std::string to = text_of(document_, "architecture", where_);
      params["to"] = to == "qwen3" ? "qwen3_moe" : to;
    }
    const json shared = document_.value("shared_experts", json::array());
    if (!shared.is_array() || shared.size() > 1) {
      throw UsageError("{}: shared_experts must be a list of at most one expert", where_);
    }
    if (shared.empty()) return;
    params["shared"] = input(text_of(shared[0], "source_model", where_ + ": shared expert"));
  }

  const json& document_;
  const std::string& where_;
  UpcycleConfig config_ = {{}, json::object()};
};

}  // namespace

UpcycleConfig parse_upcycle_config(const json& document, const std::string& where) {
  return Reader(document, where).read();
}

}  // namespace cadre::reshape
