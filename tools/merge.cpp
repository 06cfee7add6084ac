/// cadre merge: several models of one architecture become one.

#include <nlohmann/json.hpp>

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"
#include "cadre/reshape/merge_methods.h"
#include "cadre/reshape/yaml.h"
#include "tools/common/reshape_command.h"

namespace {

using namespace cadre;
using nlohmann::json;

struct Options {
  ReshapeCommand reshape;
  std::vector<std::string> inputs, weights, densities, parameters;
  std::string method = "linear", base, dtype;
};

void add_options(CommandLine& line, Options& options) {
  line.add("model", "inputs", options.inputs,
           "Models (checkpoint folders or GGUF files), or one mergekit file (.yaml)")
      ->required();
  std::string methods;
  for (const reshape::MergeMethod& method : reshape::merge_methods())
    methods += (methods.empty() ? "" : ", ") + std::string(method.name);
  line.add("merge", "--method", options.method, methods);
  line.add("merge", "--base", options.base, "Model that the others were trained from");
  line.add("merge", "--weight", options.weights, "Weight of each model, A,B,...; one = of all")
      ->allow_extra_args(false)
      ->delimiter(',');
  line.add("merge", "--density", options.densities,
           "Share of values kept of each model, A,B,...; one = of all")
      ->allow_extra_args(false)
      ->delimiter(',');
  line.add("merge", "--parameter", options.parameters,
           "NAME=VALUE, may be repeated: a parameter of the method (t, lambda, gamma ...)")
      ->allow_extra_args(false);
  line.add("merge", "--dtype", options.dtype, "F32, F16 or BF16; default: as the models are");
  add_reshape_options(line, options.reshape);
}

json value_of(const std::string& text) {
  json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
  return value.is_discarded() ? json(text) : value;
}

void set_each(json& document, const char* name, const std::vector<std::string>& texts) {
  json& models = document["models"];
  if (texts.empty()) return;
  if (texts.size() == 1) {
    document["parameters"][name] = value_of(texts.front());
    return;
  }
  if (texts.size() != models.size())
    throw UsageError("--{} has {} values for {} models", name, texts.size(), models.size());
  for (size_t i = 0; i < texts.size(); ++i) models[i]["parameters"][name] = value_of(texts[i]);
}

json document_of(const Options& options) {
  json document = {
      {"merge_method", options.method}, {"models", json::array()}, {"parameters", json::object()}};
  for (const std::string& model : options.inputs) document["models"].push_back({{"model", model}});
  if (!options.base.empty()) document["base_model"] = options.base;
  if (!options.dtype.empty()) document["dtype"] = options.dtype;
  set_each(document, "weight", options.weights);
  set_each(document, "density", options.densities);
  for (const std::string& parameter : options.parameters) {
    const size_t equals = parameter.find('=');
    if (equals == std::string::npos)
      throw UsageError("--parameter {}: must be NAME=VALUE", quote(parameter));
    document["parameters"][parameter.substr(0, equals)] = value_of(parameter.substr(equals + 1));
  }
  // A plain average is what most people mean.
  const auto names = reshape::merge_method_named(options.method).parameter_names();
  const bool weighs = std::find(names.begin(), names.end(), "weight") != names.end();
  if (weighs && options.weights.empty() && !document["parameters"].contains("weight"))
    document["parameters"]["weight"] = 1.0;
  return document;
}

int run(int argc, char** argv) {
  Options options;
  CommandLine line(
      "merge",
      "Models are merged tensor by tensor; mergekit's YAML files are read as they are, "
      "and so are gradients over layers and filters by name in plan files.");
  add_options(line, options);
  if (const auto done = line.parse(argc, argv)) return *done;
  const std::string& first = options.inputs.front();
  const bool yaml = first.ends_with(".yaml") || first.ends_with(".yml");
  if (yaml && options.inputs.size() > 1)
    throw UsageError("{}: a mergekit file names its models itself; give nothing else", first);
  const json document = yaml ? reshape::parse_yaml(read_file(first), first) : document_of(options);
  const reshape::PlanStep step =
      reshape::plan_step("merge", {}, {{"config", document}}, yaml ? first : "merge");
  return run_reshape("merge", {.steps = {step}}, options.reshape, line.threads());
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("merge", [&] { return run(argc, argv); });
}
