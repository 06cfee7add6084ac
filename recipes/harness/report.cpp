#include "recipes/harness/report.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <fstream>

#include "cadre/base/parallel.h"
#include "cadre/base/table.h"
#include "cadre/base/units.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"

namespace cadre::recipes {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

std::string cell(const Results& results, const std::string& arm, const Column& column) {
  if (!results.has(arm, column.value)) return "-";
  const auto values = results.values(arm, column.value);
  const Spread spread = spread_of(values);
  const std::string mean = fmt::format("{:.{}f}", spread.mean, column.digits);
  if (values.size() < 2) return mean;
  return fmt::format("{} ± {:.{}f}", mean, spread.deviation, column.digits);
}

Table table_of(const Recipe& recipe, const TableSpec& spec, const Results& results) {
  std::vector<std::string> headers = {"arm"};
  for (const Column& column : spec.columns) headers.push_back(column.header);
  Table table(headers);
  for (const Arm& arm : recipe.arms) {
    const bool shown = spec.arms.empty() ||
                       std::find(spec.arms.begin(), spec.arms.end(), arm.name) != spec.arms.end();
    if (!shown) continue;
    std::vector<std::string> row = {arm.name};
    for (const Column& column : spec.columns) row.push_back(cell(results, arm.name, column));
    table.add_row(row);
  }
  return table;
}

std::string verdict(bool passed) { return passed ? "holds" : "FAILS"; }

std::string check_line(const Check& check) {
  std::vector<std::string> values;
  for (const double value : check.values) values.push_back(fmt::format("{:.4g}", value));
  return fmt::format("{}: {} ({})", verdict(check.passed), check.text, fmt::join(values, ", "));
}

double seconds_of(const Results& results) {
  double seconds = 0;
  for (const RunResult& run : results.runs()) seconds += run.seconds;
  return seconds;
}

Json setting_json(const Setting& setting) {
  return {{"size", setting.size == Size::kFull ? "full" : "smoke"},
          {"idea", setting.idea == Idea::kReal ? "real" : "stub"}};
}

std::string field_of_cpuinfo(const std::string& field) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(field)) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

std::string machine() {
  const auto memory =
      static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return fmt::format("{}, {} cores, {}, {} thread(s)", field_of_cpuinfo("model name"),
                     sysconf(_SC_NPROCESSORS_ONLN), format_bytes(memory), num_threads());
}

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  return fmt::format("{:04}-{:02}-{:02}", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday);
}

Check check_from_json(const nlohmann::json& json) {
  Check check{json.at("text"), {}, json.at("passed")};
  for (const auto& value : json.at("values")) {
    check.values.push_back(value.is_null() ? std::nan("") : value.get<double>());
  }
  return check;
}

/// A recipe's row of the overview, and its section.
struct ZooEntry {
  std::vector<std::string> row;
  std::string section;
};

ZooEntry zoo_entry(const RecipeEntry& entry, const fs::path& folder) {
  ZooEntry zoo{.row = {fmt::format("[{0}](../recipes/{0}/README.md)", entry.name), entry.claim},
               .section = fmt::format("## {}\n\n{}\n\n", entry.name, entry.paper)};
  const fs::path path = folder / entry.name / "results.json";
  if (!fs::exists(path)) {
    zoo.row.insert(zoo.row.end(), {"not measured yet", "-", "-"});
    zoo.section += "Not measured yet.\n\n";
    return zoo;
  }
  const auto json = parse_json(read_file(path), path.string());
  try {
    zoo.row.push_back(json.at("passed").get<bool>() ? "holds" : "**fails**");
    zoo.row.push_back(fmt::format("`{}`", json.at("command").get<std::string>()));
    zoo.row.push_back(format_duration(json.at("seconds").get<double>()));
    for (const auto& check : json.at("criterion")) {
      zoo.section += "- " + check_line(check_from_json(check)) + "\n";
    }
    zoo.section +=
        fmt::format("\n[Results](../recipes/{}/RESULTS.md) of {}; {}.\n\n", entry.name,
                    json.at("date").get<std::string>(), json.at("machine").get<std::string>());
  } catch (const nlohmann::json::exception& error) {
    throw FormatError("{}: not a recipe's results ({})", path.string(), error.what());
  }
  return zoo;
}

}  // namespace

Occasion occasion_now(const std::string& command) { return {command, today(), machine()}; }

std::string outcome_text(const RecipeEntry& entry, const Outcome& outcome, Markup markup) {
  const bool markdown = markup == Markup::kMarkdown;
  const auto heading = [&](const std::string& text) {
    return fmt::format("{}{}\n\n", markdown ? "## " : "", text);
  };
  std::string text;
  for (const TableSpec& spec : outcome.recipe.tables) {
    const Table table = table_of(outcome.recipe, spec, outcome.results);
    text += heading(spec.title) + (markdown ? table.markdown() : table.str()) + "\n";
  }
  for (const std::string& remark : outcome.remarks) text += remark + "\n\n";
  const bool stub = outcome.results.setting().idea == Idea::kStub;
  text += heading("Criterion: " + verdict(outcome.passed) +
                  (stub ? " (sabotaged: " + outcome.recipe.stub + ")" : ""));
  for (const Check& check : outcome.checks) {
    text += (markdown ? "- " : "  ") + check_line(check) + "\n";
  }
  text +=
      fmt::format("\n{}: the criterion {}; {} of training and measuring\n", entry.name,
                  outcome.passed ? "holds" : "fails", format_duration(seconds_of(outcome.results)));
  return text;
}

std::string results_markdown(const RecipeEntry& entry, const Outcome& outcome,
                             const Occasion& occasion) {
  std::string text =
      fmt::format("# {}: results\n\n{}\n\nWritten by `{}` on {}; {}.\n\n", entry.name, entry.paper,
                  occasion.command, occasion.date, occasion.machine);
  text += outcome_text(entry, outcome, Markup::kMarkdown);
  text += "\nArms:\n\n";
  for (const Arm& arm : outcome.recipe.arms) text += fmt::format("- {}: {}\n", arm.name, arm.help);
  for (const std::string& file : outcome.pictures) text += fmt::format("\n![{0}]({0})\n", file);
  return text;
}

Json results_json(const RecipeEntry& entry, const Outcome& outcome, const Occasion& occasion) {
  Json runs = Json::array(), criterion = Json::array();
  for (const RunResult& run : outcome.results.runs()) {
    runs.push_back(to_json(run));
    runs.back().erase("curves");  // the pictures show them; runs/ has them
  }
  for (const Check& check : outcome.checks) {
    criterion.push_back({{"text", check.text}, {"values", check.values}, {"passed", check.passed}});
  }
  return {{"recipe", entry.name},
          {"paper", entry.paper},
          {"claim", entry.claim},
          {"command", occasion.command},
          {"date", occasion.date},
          {"machine", occasion.machine},
          {"setting", setting_json(outcome.results.setting())},
          {"seconds", seconds_of(outcome.results)},
          {"passed", outcome.passed},
          {"criterion", criterion},
          {"remarks", outcome.remarks},
          {"pictures", outcome.pictures},
          {"runs", runs}};
}

std::string zoo_markdown(const std::vector<RecipeEntry>& recipes, const fs::path& folder) {
  Table overview({"system", "claim", "criterion", "command", "time"});
  std::string sections;
  for (const RecipeEntry& entry : recipes) {
    const ZooEntry zoo = zoo_entry(entry, folder);
    overview.add_row(zoo.row);
    sections += zoo.section;
  }
  return "# The zoo\n\nPublished systems, each beside its baselines in one run. Written by `cadre "
         "recipe report` from the recipes' results; a claim that did not hold here is listed as "
         "such. Behind a check stands what was measured, one number a seed.\n\n" +
         overview.markdown() + "\n" + sections;
}

}  // namespace cadre::recipes
