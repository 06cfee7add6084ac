#include "tools/common/routes_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cadre/base/table.h"
#include "cadre/base/terminal.h"
#include "tools/common/html.h"

namespace cadre {
namespace {

constexpr size_t kSpecialists = 10;
constexpr double kBrightest = 4;  // times an even share

double even_share(const RoutesReport& report) { return 1.0 / static_cast<double>(report.experts); }

std::vector<std::string> expert_labels(int64_t experts) {
  std::vector<std::string> labels;
  for (int64_t e = 0; e < experts; ++e) labels.push_back(std::to_string(e));
  return labels;
}

HeatMap empty_map(const RoutesReport& report) {
  return {.title = "",
          .row_labels = {},
          .column_labels = expert_labels(report.experts),
          .values = {},
          .low = 0.0,
          .high = std::min(1.0, kBrightest * even_share(report)),
          .x_label = "expert",
          .y_label = ""};
}

void append_rows(HeatMap& map, const RoutesReport& report, const LayerRoutes& layer,
                 const std::string& prefix) {
  for (size_t d = 0; d < report.domains.size(); ++d) {
    map.row_labels.push_back(prefix + report.domains[d]);
    map.values.insert(map.values.end(), layer.share[d].begin(), layer.share[d].end());
  }
}

/// The domain that the expert works for most; false when the expert hardly works.
bool specialist_of(const RoutesReport& report, const LayerRoutes& layer, size_t expert,
                   Specialist& found) {
  double sum = 0;
  size_t best = 0;
  for (size_t d = 0; d < report.domains.size(); ++d) {
    sum += layer.share[d][expert];
    if (layer.share[d][expert] > layer.share[best][expert]) best = d;
  }
  if (sum / static_cast<double>(report.domains.size()) < even_share(report) / 4) return false;
  found = {.layer = layer.layer,
           .expert = static_cast<int64_t>(expert),
           .domain = report.domains[best],
           .of_its_work = layer.share[best][expert] / sum,
           .of_domain = layer.share[best][expert]};
  return true;
}

std::vector<std::vector<std::string>> specialist_rows(const RoutesReport& report) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& s : specialists_of(report, kSpecialists)) {
    rows.push_back({s.domain, std::to_string(s.layer), std::to_string(s.expert),
                    fmt::format("{:.0f} %", 100 * s.of_its_work),
                    fmt::format("{:.1f} %", 100 * s.of_domain)});
  }
  return rows;
}

const std::vector<std::string> kSpecialistHeaders = {"domain", "layer", "expert", "of its work",
                                                     "of the domain's"};

using TableRows = std::vector<std::vector<std::string>>;

/// Experts a token: a row a layer, a column a domain and a class that occurs.
std::vector<std::string> count_headers(const RoutesReport& report) {
  std::vector<std::string> headers = {"layer", "entropy"};
  for (const auto& domain : report.domains) headers.push_back(domain);
  for (size_t c = 0; c < report.classes.size(); ++c) {
    if (report.class_tokens[c] > 0) headers.push_back(report.classes[c]);
  }
  return headers;
}

TableRows count_rows(const RoutesReport& report) {
  TableRows rows;
  for (const LayerRoutes& layer : report.layers) {
    double entropy = 0;
    for (const double e : layer.entropy) entropy += e / static_cast<double>(layer.entropy.size());
    rows.push_back({std::to_string(layer.layer), fmt::format("{:.3f}", entropy)});
    for (const double k : layer.mean_k) rows.back().push_back(fmt::format("{:.2f}", k));
    for (size_t c = 0; c < report.classes.size(); ++c) {
      if (report.class_tokens[c] > 0)
        rows.back().push_back(fmt::format("{:.2f}", layer.class_k[c]));
    }
  }
  return rows;
}

const std::vector<std::string> kDifferenceHeaders = {"layer", "same experts", "load moved",
                                                     "experts a token", "the other's"};

TableRows difference_rows(const Differences& differences) {
  TableRows rows;
  for (const LayerDifference& d : differences) {
    rows.push_back({std::to_string(d.layer), fmt::format("{:.1f} %", 100 * d.overlap),
                    fmt::format("{:.1f} %", 100 * d.load_distance), fmt::format("{:.2f}", d.mean_k),
                    fmt::format("{:.2f}", d.other_mean_k)});
  }
  return rows;
}

std::string text_table(const std::vector<std::string>& headers, const TableRows& rows) {
  Table table(headers);
  for (const auto& row : rows) table.add_row(row);
  return table.str();
}

std::string summary_line(const RoutesReport& report) {
  return fmt::format(
      "{} experts, {} per token, {} tokens of {} domains; brightness: 0 to {:.0f} times an even "
      "share",
      report.experts, report.experts_per_token, report.tokens, report.domains.size(), kBrightest);
}

}  // namespace

std::vector<Specialist> specialists_of(const RoutesReport& report, size_t count) {
  std::vector<Specialist> all;
  for (const auto& layer : report.layers) {
    for (size_t e = 0; e < static_cast<size_t>(report.experts); ++e) {
      Specialist found;
      if (specialist_of(report, layer, e, found)) all.push_back(found);
    }
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const auto& a, const auto& b) { return a.of_its_work > b.of_its_work; });
  all.resize(std::min(all.size(), count));
  return all;
}

HeatMap layer_map(const RoutesReport& report, const LayerRoutes& layer) {
  HeatMap map = empty_map(report);
  map.title = fmt::format("layer {}: specialization {:.2f}", layer.layer, layer.specialization);
  append_rows(map, report, layer, "");
  return map;
}

HeatMap whole_map(const RoutesReport& report) {
  HeatMap map = empty_map(report);
  map.title = "share of each domain's work by expert, layer by layer";
  for (const auto& layer : report.layers)
    append_rows(map, report, layer, fmt::format("{} ", layer.layer));
  return map;
}

std::string routes_text(const RoutesReport& report, const Differences& differences) {
  const CellStyle style = shows_color(stdout) ? CellStyle::kColor : CellStyle::kPlain;
  std::string text = summary_line(report) + "\n\n";
  for (const auto& layer : report.layers) {
    text += render(layer_map(report, layer), style, terminal_width(stdout)) + "\n";
  }
  text += "experts a token\n" + text_table(count_headers(report), count_rows(report)) + "\n";
  if (!differences.empty()) {
    text += "beside the other model\n" +
            text_table(kDifferenceHeaders, difference_rows(differences)) + "\n";
  }
  return text + "most specialised experts\n" +
         text_table(kSpecialistHeaders, specialist_rows(report));
}

std::string routes_html(const RoutesReport& report, const Differences& differences) {
  std::string html = "<p>" + escape_html(summary_line(report)) +
                     ". Specialization: how far apart the domains' rows are, 0 (all alike) to 1 "
                     "(no expert in common).</p>\n";
  for (const auto& layer : report.layers)
    html += "<p>" + inline_svg(layer_map(report, layer)) + "</p>\n";
  html += "<h2>Experts a token</h2>\n" + html_table(count_headers(report), count_rows(report));
  if (!differences.empty()) {
    html += "<h2>Beside the other model</h2>\n" +
            html_table(kDifferenceHeaders, difference_rows(differences));
  }
  return html + "<h2>Most specialised experts</h2>\n" +
         html_table(kSpecialistHeaders, specialist_rows(report));
}

nlohmann::ordered_json routes_json(const RoutesReport& report, const Differences& differences) {
  nlohmann::ordered_json layers = nlohmann::ordered_json::array();
  for (const auto& layer : report.layers) {
    layers.push_back({{"layer", layer.layer},
                      {"specialization", layer.specialization},
                      {"entropy", layer.entropy},
                      {"mean_k", layer.mean_k},
                      {"class_k", layer.class_k},
                      {"share", layer.share}});
  }
  nlohmann::ordered_json json = {{"domains", report.domains},
                                 {"experts", report.experts},
                                 {"experts_per_token", report.experts_per_token},
                                 {"tokens", report.tokens},
                                 {"classes", report.classes},
                                 {"class_tokens", report.class_tokens},
                                 {"layers", layers}};
  for (const LayerDifference& d : differences) {
    json["differences"].push_back({{"layer", d.layer},
                                   {"overlap", d.overlap},
                                   {"load_distance", d.load_distance},
                                   {"mean_k", d.mean_k},
                                   {"other_mean_k", d.other_mean_k}});
  }
  return json;
}

}  // namespace cadre
