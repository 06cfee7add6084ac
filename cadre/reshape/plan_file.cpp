#include "cadre/reshape/plan_file.h"

#include <toml++/toml.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <sstream>

#include "cadre/base/error.h"
#include "cadre/base/text.h"
#include "cadre/engine/convert.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"
#include "cadre/reshape/merge_config.h"

namespace cadre::reshape {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

json toml_to_json(std::string_view text, const std::string& where) {
  try {
    std::ostringstream stream;
    const toml::table table = toml::parse(text);
    stream << toml::json_formatter(table);
    return parse_json(stream.str(), where);
  } catch (const toml::parse_error& error) {
    throw UsageError("{}:{}: {}", where, error.source().begin.line,
                     one_line(std::string(error.description())));
  }
}

std::vector<std::string> texts_of(const json& value, const std::string& where) {
  const json list = value.is_array() ? value : json::array({value});
  std::vector<std::string> texts;
  for (const json& entry : list) {
    if (!entry.is_string()) throw UsageError("{}: must be a path or a list of paths", where);
    texts.push_back(entry.get<std::string>());
  }
  return texts;
}

json take(json& table, const char* key) {
  const auto found = table.find(key);
  if (found == table.end()) return nullptr;
  json value = *found;
  table.erase(found);
  return value;
}

/// A merge's own keys are the mergekit document.
void gather_merge_keys(json& table, std::vector<std::string>& inputs, const std::string& where) {
  if (!table.contains("config")) {
    json document = std::move(table);
    table = {{"config", std::move(document)}};
  }
  if (inputs.empty()) inputs = parse_merge_config(table.at("config"), where).models;
}

std::string known_op(const std::string& name, const std::string& where) {
  try {
    return op_named(name).name;
  } catch (const UsageError& error) {
    throw UsageError("{}: {}", where, error.what());
  }
}

PlanStep step_of(json table, const std::string& where, bool first) {
  if (!table.is_object()) throw UsageError("{}: must be a table", where);
  const json op = take(table, "op");
  if (!op.is_string()) throw UsageError("{}: key \"op\" is missing", where);
  PlanStep step = {.op = known_op(op.get<std::string>(), where), .where = where};
  step.where += " (" + step.op + ")";
  if (const json inputs = take(table, "inputs"); !inputs.is_null())
    step.inputs = texts_of(inputs, step.where + ": inputs");
  if (const json stats = take(table, "stats"); !stats.is_null())
    step.stats = texts_of(stats, step.where + ": stats").front();
  if (step.op == "merge") gather_merge_keys(table, step.inputs, step.where);
  if (step.inputs.empty() && first)
    throw UsageError("{}: key \"inputs\" is missing: the first step has no step before it",
                     step.where);
  if (step.inputs.empty()) step.inputs = {kPrevious};
  // Checked now: a mistake in the last step must not wait for the first.
  step.parameters = Params(op_named(step.op).params, table, step.where).all();
  return step;
}

/// Folders beside the output for what is a GGUF file on either side.
class Scratch {
 public:
  explicit Scratch(const fs::path& out) {
    const fs::path absolute = fs::absolute(out).lexically_normal();
    parent_ = absolute.parent_path();
    name_ = absolute.filename().string();
  }
  ~Scratch() {
    std::error_code ignored;
    for (const fs::path& folder : folders_) fs::remove_all(folder, ignored);
  }
  fs::path folder(const std::string& role) {
    folders_.push_back(parent_ / fmt::format(".{}.{}", name_, role));
    return folders_.back();
  }

 private:
  fs::path parent_;
  std::string name_;
  std::vector<fs::path> folders_;
};

CheckpointPtr open_input(const std::string& path, Scratch& scratch, int index) {
  if (!path.ends_with(".gguf") || fs::is_directory(path)) return open_checkpoint(path);
  const fs::path folder = scratch.folder(fmt::format("input-{}", index));
  engine::write_checkpoint(folder, path, engine::float_type_of(engine::image_of_gguf(path)));
  return open_checkpoint(folder);
}

}  // namespace

PlanStep plan_step(const std::string& op, std::vector<std::string> inputs, json parameters,
                   const std::string& where) {
  json table = std::move(parameters);
  table["op"] = op;
  if (!inputs.empty()) table["inputs"] = std::move(inputs);
  PlanStep step = step_of(std::move(table), where, true);
  step.where = where;
  return step;
}

PlanFile parse_plan_file(std::string_view toml, const std::string& where) {
  json document = toml_to_json(toml, where);
  const json steps = take(document, "step");
  for (const auto& [key, value] : document.items())
    throw UsageError("{}: unknown key {}{} (known: step)", where, quote(key),
                     did_you_mean(key, {"step"}));
  if (!steps.is_array() || steps.empty())
    throw UsageError("{}: has no steps; begin each with a line [[step]]", where);
  PlanFile file;
  for (size_t i = 0; i < steps.size(); ++i)
    file.steps.push_back(step_of(steps[i], fmt::format("{}: step {}", where, i + 1), i == 0));
  return file;
}

PlanFile read_plan_file(const fs::path& path) {
  return parse_plan_file(read_file(path), path.string());
}

RunReport reshape(const PlanFile& file, const fs::path& out, const ReshapeOptions& options) {
  Scratch scratch(out);
  std::vector<CheckpointPtr> inputs;
  std::optional<Plan> plan;
  int opened = 0;
  for (const PlanStep& step : file.steps) {
    std::vector<CheckpointPtr> next;
    for (const std::string& path : step.inputs) {
      if (path != kPrevious)
        next.push_back(open_input(path, scratch, opened++));
      else if (!plan)
        throw UsageError("{}: there is no step before the first", step.where);
      else
        next.push_back(planned_checkpoint(*plan, inputs));
    }
    std::optional<StatsIndex> stats;
    if (!step.stats.empty()) stats.emplace(step.stats);
    Plan made =
        plan_op(op_named(step.op), next, step.parameters, stats ? &*stats : nullptr, step.where);
    inputs = std::move(next);
    plan = std::move(made);
  }
  if (!plan) throw UsageError("{}: the plan has no steps", out.string());
  if (options.planned) options.planned(*plan, schema_of(*plan, out.string()).counts().bytes);
  if (out.extension() != ".gguf") return run(*plan, inputs, out, options.run);

  const fs::path folder = scratch.folder("folder");
  RunReport report = run(*plan, inputs, folder, options.run);
  engine::GgufImage image = engine::image_of_checkpoint(folder);
  const kernels::BlockType type = engine::float_type_of(image);
  engine::write_gguf(out, std::move(image), type);
  return report;
}

}  // namespace cadre::reshape
