/// cadre tune: what the routing knobs of a trained model cost and save on a text.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "cadre/base/plot.h"
#include "cadre/base/table.h"
#include "cadre/base/terminal.h"
#include "cadre/base/timer.h"
#include "cadre/base/units.h"
#include "cadre/engine/text_frame.h"
#include "tools/common/engine_options.h"
#include "tools/common/json_text.h"

namespace {

using namespace cadre;
using Json = nlohmann::ordered_json;

/// Numbers of experts tried, at most; each costs a pass over the text.
constexpr int64_t kMaxCounts = 12;

struct Options {
  EngineOptions engine;
  std::string text, picture;
  double loss_budget = 0.01;
  int64_t max_tokens = 20000;
  bool json = false;
};

struct Setting {
  std::string options;  ///< as cadre run takes them; empty = the model as it stands
  engine::RoutingOverrides routing;
  double loss = 0, experts_per_token = 0, active_flops = 0, tokens_per_second = 0;
  bool on_frontier = false;
};

void add_counts(const engine::ModelSpec& spec, std::vector<Setting>& settings) {
  const int64_t slots = spec.router.slots > 0 ? spec.router.slots : spec.experts_used;
  const int64_t most =
      std::min(2 * slots, spec.experts / spec.router.groups * spec.router.groups_used);
  const int64_t step = std::max<int64_t>(1, (most + kMaxCounts - 1) / kMaxCounts);
  for (int64_t k = 1; k <= most; k += step) {
    if (k == slots) continue;
    settings.push_back({fmt::format("--experts-per-token {}", k), {.experts_per_token = k}});
  }
}

void add_shares(std::initializer_list<float> shares, std::vector<Setting>& settings) {
  for (const float p : shares) {
    settings.push_back({fmt::format("--expert-top-p {}", p), {.top_p = p}});
  }
}

/// The model as it stands, then what its router lets one change.
std::vector<Setting> settings_of(const engine::ModelSpec& spec) {
  std::vector<Setting> settings(1);
  if (spec.router.selection == engine::Selection::kPrefix) {
    add_shares({0.1F, 0.2F, 0.3F, 0.4F, 0.5F, 0.6F, 0.7F, 0.8F, 0.9F}, settings);
    return settings;
  }
  add_counts(spec, settings);
  if (spec.router.gating != engine::Gating::kSparseMixer) {
    add_shares({0.5F, 0.7F, 0.8F, 0.9F, 0.95F}, settings);
  }
  if (spec.router.nulls == 0) return settings;
  for (const float bias : {-2.0F, -1.0F, -0.5F, 0.5F, 1.0F, 2.0F}) {
    settings.push_back({fmt::format("--null-bias {}", bias), {.null_bias = bias}});
  }
  return settings;
}

/// Multiplications and additions of a token's matrices: attention's projections, dense layers,
/// shared experts, routers, output matrix. Attention over earlier tokens is left out: it is the
/// same for every setting.
double trunk_flops(const engine::ModelSpec& spec) {
  const auto d = static_cast<double>(spec.hidden);
  const auto heads = static_cast<double>(spec.heads), kv = static_cast<double>(spec.kv_heads);
  const auto key = static_cast<double>(spec.key_width),
             value = static_cast<double>(spec.value_width);
  const auto layers = static_cast<double>(spec.layers);
  const auto dense = static_cast<double>(spec.leading_dense_layers);
  const double attention = d * (heads * (key + value) + kv * (key + value));
  const double router = d * static_cast<double>(spec.experts + spec.router.nulls);
  const double shared = 3 * d * static_cast<double>(spec.shared_intermediate);
  return 2 * (layers * attention + dense * 3 * d * static_cast<double>(spec.intermediate) +
              (layers - dense) * (router + shared) + d * static_cast<double>(spec.vocabulary));
}

double expert_flops(const engine::ModelSpec& spec) {
  return 2.0 * 3 * static_cast<double>(spec.hidden * spec.expert_intermediate);
}

/// Runs the text through the model with the setting.
void measure(const std::shared_ptr<engine::Model>& model, std::span<const TokenId> tokens,
             int64_t context, Setting& setting) {
  int64_t pairs = 0, routed = 0;
  model->routing = setting.routing;
  model->on_route = [&](int64_t, int64_t, const engine::Session*, std::span<const int32_t> experts,
                        std::span<const float>) {
    pairs += static_cast<int64_t>(experts.size()) - std::count(experts.begin(), experts.end(), -1);
    ++routed;
  };
  engine::EngineSequences sequences(model);
  const Stopwatch watch;
  const auto result = engine::measure_perplexity(sequences, tokens, {.context = context});
  const double seconds = watch.seconds();
  model->on_route = nullptr;
  const engine::ModelSpec& spec = model->spec();
  const auto layers = static_cast<double>(spec.layers - spec.leading_dense_layers);
  setting.loss = result.mean_loss;
  setting.experts_per_token =
      static_cast<double>(pairs) / static_cast<double>(std::max<int64_t>(routed, 1));
  setting.active_flops =
      trunk_flops(spec) + layers * setting.experts_per_token * expert_flops(spec);
  setting.tokens_per_second = static_cast<double>(routed) / layers / seconds;
}

bool beats(const Setting& a, const Setting& b) {
  return a.loss <= b.loss && a.active_flops <= b.active_flops &&
         (a.loss < b.loss || a.active_flops < b.active_flops);
}

void mark_frontier(std::vector<Setting>& settings) {
  for (Setting& setting : settings) {
    setting.on_frontier = std::none_of(settings.begin(), settings.end(),
                                       [&](const Setting& other) { return beats(other, setting); });
  }
}

/// The fewest FLOPs within the budget over the model as it stands (which is first).
const Setting& best_of(const std::vector<Setting>& settings, double budget) {
  const Setting* best = &settings.front();
  for (const Setting& setting : settings) {
    const bool allowed = setting.loss <= settings.front().loss + budget;
    if (allowed && setting.active_flops < best->active_flops) best = &setting;
  }
  return *best;
}

Json to_json(const Setting& setting) {
  return {{"options", setting.options},           {"loss", setting.loss},
          {"perplexity", std::exp(setting.loss)}, {"experts_per_token", setting.experts_per_token},
          {"active_flops", setting.active_flops}, {"tokens_per_second", setting.tokens_per_second},
          {"frontier", setting.on_frontier}};
}

std::string table_of(const std::vector<Setting>& settings) {
  Table table(
      {"perplexity", "loss", "experts a token", "MFLOP a token", "tokens/s", "", "setting"});
  for (const Setting& s : settings) {
    table.add_row({fmt::format("{:.4f}", std::exp(s.loss)), fmt::format("{:.5f}", s.loss),
                   fmt::format("{:.2f}", s.experts_per_token),
                   fmt::format("{:.2f}", s.active_flops * 1e-6),
                   fmt::format("{:.0f}", s.tokens_per_second), s.on_frontier ? "*" : "",
                   s.options.empty() ? "as it stands" : s.options});
  }
  return table.str();
}

std::vector<Setting> frontier_of(std::vector<Setting> settings) {
  std::erase_if(settings, [](const Setting& setting) { return !setting.on_frontier; });
  return settings;
}

Series series_of(const std::string& name, std::vector<Setting> settings) {
  std::sort(settings.begin(), settings.end(),
            [](const Setting& a, const Setting& b) { return a.active_flops < b.active_flops; });
  Series series{.name = name};
  for (const Setting& setting : settings) {
    series.x.push_back(setting.active_flops * 1e-6);
    series.y.push_back(std::exp(setting.loss));
  }
  return series;
}

void draw(const std::vector<Setting>& settings, const std::string& path) {
  write_plot(LineChart{.title = "what the routing knobs cost",
                       .x_label = "active MFLOP a token",
                       .y_label = "perplexity",
                       .series = {series_of("all settings", settings),
                                  series_of("frontier", frontier_of(settings))}},
             path);
}

void print(const Options& options, const std::vector<Setting>& settings, const Setting& best) {
  if (options.json) {
    Json list = Json::array();
    for (const Setting& setting : settings) list.push_back(to_json(setting));
    std::cout << pretty({{"model", options.engine.model},
                         {"text", options.text},
                         {"loss_budget", options.loss_budget},
                         {"best", to_json(best)},
                         {"settings", list}});
    return;
  }
  std::cout << table_of(settings) << "* nothing has less loss for as few FLOPs\n";
  const double saved = 1 - best.active_flops / settings.front().active_flops;
  std::cout << fmt::format("within {} nats: {} ({:+.5f} nats, {:.1f} % of the FLOPs saved)\n",
                           options.loss_budget,
                           best.options.empty() ? "as it stands" : best.options,
                           best.loss - settings.front().loss, 100 * saved);
}

std::vector<Setting> sweep(const Options& options, const std::shared_ptr<engine::Model>& model) {
  const Tokenizer& tokenizer = model->tokenizer();
  std::vector<TokenId> tokens = engine::read_text_frame(options.engine.model, tokenizer)
                                    .encode(tokenizer, read_text(options.text));
  tokens.resize(std::min(tokens.size(), static_cast<size_t>(options.max_tokens)));
  const int64_t context = context_of(options.engine, model->spec());
  std::vector<Setting> settings = settings_of(model->spec());
  measure(model, tokens, context, settings.front());  // warms caches; its time is not counted
  for (size_t i = 0; i < settings.size(); ++i) {
    if (is_terminal(stderr)) {
      set_live_line(stderr, fmt::format("setting {} of {}", i + 1, settings.size()));
    }
    measure(model, tokens, context, settings[i]);
  }
  if (is_terminal(stderr)) clear_live_line(stderr);
  mark_frontier(settings);
  return settings;
}

int run(int argc, char** argv) {
  Options options;
  options.engine.context = 512;
  CommandLine line("tune",
                   "Every setting predicts the text as cadre perplexity does; * marks those that "
                   "no other beats in both loss and active FLOPs.");
  add_engine_options(line, options.engine);
  line.add("text", "--text", options.text, "File to predict; - = standard input")->required();
  line.add("text", "--max-tokens", options.max_tokens, "Tokens of the text at most")
      ->check(CLI::Range(2, 1 << 30));
  line.add("text", "--loss-budget", options.loss_budget,
           "Nats a token that the cheapest setting may lose")
      ->check(CLI::NonNegativeNumber);
  line.add(kOutputGroup, "--picture", options.picture, "Draw the frontier as this .svg or .png");
  line.add_flag(kOutputGroup, "--json", options.json, "Print JSON");
  if (const auto done = line.parse(argc, argv)) return *done;

  const auto model = open_model(options.engine, line.threads());
  if (model->spec().experts == 0) {
    throw UsageError("{} has no experts: there is nothing to tune", options.engine.model);
  }
  const std::vector<Setting> settings = sweep(options, model);
  if (!options.picture.empty()) draw(settings, options.picture);
  print(options, settings, best_of(settings, options.loss_budget));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("tune", [&] { return run(argc, argv); });
}
