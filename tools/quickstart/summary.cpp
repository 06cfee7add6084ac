#include "tools/quickstart/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cadre/base/units.h"
#include "tools/common/html.h"
#include "tools/common/results.h"
#include "tools/common/routes_view.h"

namespace cadre {
namespace {

using Json = nlohmann::ordered_json;

Json model_json(const TrainedModel& model) {
  const ParameterCount count = count_parameters(model.config);
  Json json = to_json(model.result);
  json["parameters"] = {{"total", count.total}, {"active", count.active}};
  return json;
}

std::string count_text(int64_t count) { return format_count(static_cast<double>(count)); }

double tokens_per_second(const TrainResult& result) {
  return result.train_seconds > 0 ? static_cast<double>(result.tokens) / result.train_seconds : 0;
}

std::vector<std::string> model_row(const std::string& name, const TrainedModel& model) {
  const ParameterCount count = count_parameters(model.config);
  const TrainResult& result = model.result;
  return {name,
          count_text(count.total),
          count_text(count.active),
          count_text(result.tokens),
          format_duration(result.train_seconds),
          format_count(tokens_per_second(result))};
}

const std::vector<std::string> kModelHeaders = {"model",  "parameters", "active",
                                                "tokens", "time",       "tokens/s"};

/// "same tokens: moe 2.91, dense 3.02: 0.11 lower": who is lower, and by how much.
std::string comparison(const std::string& what, double moe, double dense) {
  return fmt::format("{}: moe {:.4f}, dense {:.4f}: {:.4f} {}", what, moe, dense,
                     std::abs(dense - moe), moe < dense ? "lower" : "higher");
}

std::vector<std::string> comparisons(const Summary& summary) {
  const TrainResult& moe = summary.moe.result;
  const TrainResult& dense = summary.dense.result;
  const SameTime time = same_time(moe, dense);
  return {comparison(fmt::format("after the same {} tokens", count_text(moe.tokens)),
                     moe.validation.mean, dense.validation.mean),
          comparison(fmt::format("after the same {} of training", format_duration(time.seconds)),
                     time.moe, time.dense)};
}

Table models_table(const Summary& summary) {
  Table table(kModelHeaders);
  return table.add_row(model_row("moe", summary.moe)).add_row(model_row("dense", summary.dense));
}

enum class Axis { kTokens, kSeconds };

Series curve_of(const std::string& name, const TrainResult& result, Axis axis) {
  Series series{.name = name, .x = {}, .y = {}};
  for (const auto& point : result.curve) {
    series.x.push_back(axis == Axis::kTokens ? static_cast<double>(point.tokens) : point.seconds);
    series.y.push_back(point.loss);
  }
  return series;
}

std::string curves(const Summary& summary, Axis axis) {
  const std::string x_label = axis == Axis::kTokens ? "tokens trained on" : "seconds of training";
  return inline_svg({.title = "validation loss by " + x_label,
                     .x_label = x_label,
                     .y_label = "nats per token",
                     .series = {curve_of("moe", summary.moe.result, axis),
                                curve_of("dense", summary.dense.result, axis)}});
}

std::string losses_html(const Summary& summary) {
  std::vector<std::vector<std::string>> rows;
  const auto& moe = summary.moe.result.validation;
  const auto& dense = summary.dense.result.validation;
  const auto row = [](const std::string& name, double a, double b) {
    return std::vector<std::string>{name, fmt::format("{:.4f}", a), fmt::format("{:.4f}", b),
                                    fmt::format("{:+.4f}", a - b)};
  };
  for (size_t d = 0; d < moe.domains.size(); ++d) {
    rows.push_back(row(moe.domains[d].domain, moe.domains[d].loss, dense.domains[d].loss));
  }
  rows.push_back(row("mean", moe.mean, dense.mean));
  return html_table({"validation loss", "moe", "dense", "difference"}, rows);
}

Json engine_json(const EngineReport& engine) {
  if (!engine.refused.empty()) return {{"refused", engine.refused}};
  const auto texts = [](const EngineTexts& run) {
    return Json{{"expert_bytes", run.expert_bytes},
                {"hit_rate", run.hit_rate},
                {"bytes_read", run.bytes_read}};
  };
  return {{"same_text", engine.same()}, {"full", texts(engine.full)}, {"half", texts(engine.half)}};
}

std::string bytes_text(int64_t bytes) { return format_bytes(static_cast<uint64_t>(bytes)); }

/// "the same text with 12 MiB for experts instead of 24 MiB ..."
std::string engine_text(const EngineReport& engine) {
  if (!engine.refused.empty()) return "the engine does not run this model: " + engine.refused;
  return fmt::format(
      "engine: {} text with {} for experts as with all {} of them in memory; {:.1f} % of experts "
      "were found in memory, {} read from disk",
      engine.same() ? "the same" : "NOT THE SAME", bytes_text(engine.half.expert_bytes),
      bytes_text(engine.full.expert_bytes), 100 * engine.half.hit_rate,
      bytes_text(engine.half.bytes_read));
}

std::string samples_html(const std::vector<Sample>& samples) {
  std::string html;
  for (const auto& sample : samples) {
    html += fmt::format("<p>{}</p>\n<pre><b>{}</b>{}</pre>\n", escape_html(sample.domain),
                        escape_html(sample.prompt), escape_html(sample.text));
  }
  return html;
}

}  // namespace

SameTime same_time(const TrainResult& moe, const TrainResult& dense) {
  const double seconds = std::min(moe.train_seconds, dense.train_seconds);
  return {.seconds = seconds,
          .moe = loss_at(moe.curve, seconds),
          .dense = loss_at(dense.curve, seconds)};
}

Json summary_json(const Summary& summary) {
  const SameTime time = same_time(summary.moe.result, summary.dense.result);
  Json samples = Json::array();
  for (const auto& sample : summary.samples) {
    samples.push_back(
        {{"domain", sample.domain}, {"prompt", sample.prompt}, {"text", sample.text}});
  }
  return {{"moe", model_json(summary.moe)},
          {"dense", model_json(summary.dense)},
          {"same_tokens",
           {{"tokens", summary.moe.result.tokens},
            {"moe", summary.moe.result.validation.mean},
            {"dense", summary.dense.result.validation.mean}}},
          {"same_seconds", {{"seconds", time.seconds}, {"moe", time.moe}, {"dense", time.dense}}},
          {"routes", routes_json(summary.routes)},
          {"samples", samples},
          {"engine", engine_json(summary.engine)}};
}

std::string summary_text(const Summary& summary) {
  std::string text = models_table(summary).str() + "\n" +
                     losses_table({{"moe", summary.moe.result.validation},
                                   {"dense", summary.dense.result.validation}})
                         .str() +
                     "\n";
  for (const auto& line : comparisons(summary)) text += line + "\n";
  return text + engine_text(summary.engine) + "\n";
}

std::string summary_html(const Summary& summary) {
  std::string body =
      "<h2>Losses</h2>\n" + losses_html(summary) +
      html_table(kModelHeaders, {model_row("moe", summary.moe), model_row("dense", summary.dense)});
  for (const auto& line : comparisons(summary))
    body += "<p>Mean validation loss " + escape_html(line) + ".</p>\n";
  body += "<p>" + curves(summary, Axis::kTokens) + "</p>\n<p>" + curves(summary, Axis::kSeconds) +
          "</p>\n";
  body += "<h2>Who does what</h2>\n" + routes_html(summary.routes);
  body += "<h2>Samples of the expert model</h2>\n" + samples_html(summary.samples);
  body += "<p>" + escape_html(engine_text(summary.engine)) + "</p>\n";
  return html_page("An expert model beside its dense twin", body);
}

}  // namespace cadre
