#include "tools/common/reshape_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "cadre/base/error.h"
#include "cadre/base/progress.h"
#include "cadre/base/table.h"
#include "cadre/base/units.h"
#include "cadre/engine/text_frame.h"
#include "cadre/formats/json.h"
#include "tools/common/engine_options.h"
#include "tools/common/json_text.h"

namespace cadre {
namespace {

using reshape::ParamSpec;
using reshape::ParamType;
using reshape::RunReport;
using reshape::SchemaCounts;
using Json = nlohmann::ordered_json;

constexpr int64_t kMiB = 1 << 20;

struct Perplexities {
  std::optional<double> before, after;
};

Json to_json(const SchemaCounts& counts) {
  return {{"tensors", counts.tensors},
          {"bytes", counts.bytes},
          {"experts", counts.experts},
          {"parameters", counts.total},
          {"active", counts.active}};
}

void print_json(const ReshapeCommand& options, const RunReport& report,
                const Perplexities& measured) {
  Json json = {{"out", options.out},
               {"before", to_json(report.before)},
               {"after", to_json(report.after)},
               {"bytes_read", report.bytes_read},
               {"bytes_written", report.bytes_written},
               {"steps_resumed", report.steps_resumed},
               {"planned_peak_bytes", report.peak_bytes},
               {"threads", report.threads},
               {"seconds", report.seconds}};
  if (measured.before) json["before"]["perplexity"] = *measured.before;
  if (measured.after) json["after"]["perplexity"] = *measured.after;
  std::cout << pretty(json);
}

void print_table(const ReshapeCommand& options, const RunReport& report,
                 const Perplexities& measured) {
  const auto bytes = [](int64_t count) { return format_bytes(static_cast<uint64_t>(count)); };
  const auto count = [](int64_t number) { return format_count(static_cast<double>(number)); };
  const SchemaCounts &before = report.before, &after = report.after;
  Table table({"", "before", "after"});
  table.add_row({"tensors", std::to_string(before.tensors), std::to_string(after.tensors)});
  table.add_row({"bytes", bytes(before.bytes), bytes(after.bytes)});
  table.add_row({"experts", std::to_string(before.experts), std::to_string(after.experts)});
  table.add_row({"parameters", count(before.total), count(after.total)});
  table.add_row({"active a token", count(before.active), count(after.active)});
  const auto shown = [](const std::optional<double>& value) {
    return value ? fmt::format("{:.4f}", *value) : "";
  };
  if (measured.before || measured.after)
    table.add_row({"perplexity", shown(measured.before), shown(measured.after)});
  std::cout << table.str();
  std::cout << fmt::format(
      "wrote {} in {}: {} read, {} written, {} threads, {} of memory planned\n", options.out,
      format_duration(report.seconds), bytes(report.bytes_read), bytes(report.bytes_written),
      report.threads, bytes(report.peak_bytes));
}

bool is_list(const ParamSpec& spec) {
  return spec.type == ParamType::kTexts || spec.type == ParamType::kNumbers;
}

/// One flag's text as the parameter's type. Numbers and flags are read as TOML reads them.
nlohmann::json value_of(const ParamSpec& spec, const std::vector<std::string>& texts) {
  const bool plain = spec.type == ParamType::kText || spec.type == ParamType::kTexts;
  nlohmann::json list = nlohmann::json::array();
  for (const std::string& text : texts) {
    nlohmann::json value = plain ? nlohmann::json(text)
                                 : nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (value.is_discarded()) {
      if (spec.type != ParamType::kAny)
        throw UsageError("--{} {}: is no {}", spec.name, quote(text),
                         spec.type == ParamType::kFlag ? "true or false" : "number");
      value = text;
    }
    list.push_back(std::move(value));
  }
  return is_list(spec) ? list : list.back();
}

std::string flag_of(const ParamSpec& spec) {
  std::string flag = spec.name;
  std::replace(flag.begin(), flag.end(), '_', '-');
  return "--" + flag;
}

std::string help_of(const ParamSpec& spec) {
  if (spec.fallback.is_null()) return spec.help;
  const std::string fallback =
      spec.fallback.is_string() ? spec.fallback.get<std::string>() : spec.fallback.dump();
  return fallback.empty() ? spec.help : fmt::format("{} (default: {})", spec.help, fallback);
}

}  // namespace

double perplexity_of(const std::string& path, const ReshapeCommand& options, int threads) {
  EngineOptions engine = {.model = path};
  engine.context = options.context;
  const auto opened = open_model(engine, threads);
  const Tokenizer& tokenizer = opened->tokenizer();
  const auto tokens =
      engine::read_text_frame(path, tokenizer).encode(tokenizer, read_text(options.text));
  engine::EngineSequences sequences(opened);
  return engine::measure_perplexity(sequences, tokens,
                                    {.context = context_of(engine, opened->spec())})
      .perplexity();
}

void add_reshape_options(CommandLine& line, ReshapeCommand& options) {
  line.add(kOutputGroup, "--out", options.out, "Folder to write, or GGUF file (NAME.gguf)")
      ->required();
  line.add("limits", "--memory", options.memory, "Memory to work in");
  line.add("limits", "--shard", options.shard, "Bytes of one file of weights");
  line.add(kOutputGroup, "--text", options.text,
           "File whose perplexity is measured before and after");
  line.add(kOutputGroup, "--context", options.context, "Tokens of a window of --text");
  line.add_flag(kOutputGroup, "--json", options.json, "Print JSON");
}

int run_reshape(const std::string& verb, const reshape::PlanFile& plan,
                const ReshapeCommand& options, int threads) {
  if (plan.steps.empty()) throw UsageError("the plan has no steps");
  Perplexities measured;
  if (!options.text.empty())
    measured.before = perplexity_of(plan.steps.front().inputs.front(), options, threads);

  std::unique_ptr<Progress> progress;
  const auto planned = [&](const reshape::Plan& last, int64_t bytes) {
    for (const std::string& note : last.notes) std::cerr << note << "\n";
    progress = std::make_unique<Progress>(
        ProgressOptions{.label = verb, .total = std::max<int64_t>(1, bytes / kMiB), .unit = "MiB"});
  };
  const auto advance = [&](int64_t bytes) { progress->advance(bytes / kMiB - progress->done()); };
  const RunReport report =
      reshape::reshape(plan, options.out,
                       {.run = {.budget_bytes = static_cast<int64_t>(parse_bytes(options.memory)),
                                .shard_bytes = static_cast<int64_t>(parse_bytes(options.shard)),
                                .progress = advance},
                        .planned = planned});
  if (progress)
    progress->advance(std::max<int64_t>(1, report.after.bytes / kMiB) - progress->done());
  if (progress) progress->finish();

  if (!options.text.empty()) measured.after = perplexity_of(options.out, options, threads);
  if (options.json)
    print_json(options, report, measured);
  else
    print_table(options, report, measured);
  return 0;
}

OpCommand::OpCommand(const std::string& op) : op_(reshape::op_named(op)) {}

void OpCommand::add_options(CommandLine& line) {
  line.add("model", "inputs", inputs_, "Checkpoint folders, or GGUF files")->required();
  for (const ParamSpec& spec : op_.params) {
    CLI::Option* option =
        line.app().add_option(flag_of(spec), given_[spec.name], help_of(spec))->group("operation");
    option->allow_extra_args(false);
    if (is_list(spec))
      option->delimiter(',');
    else
      option->take_last();
  }
  line.add("operation", "--stats", stats_, "Statistics of the model, from cadre calibrate");
  add_reshape_options(line, options_);
}

int OpCommand::run(const std::string& verb, int threads) const {
  nlohmann::json parameters = nlohmann::json::object();
  for (const ParamSpec& spec : op_.params) {
    const auto& texts = given_.at(spec.name);
    if (!texts.empty()) parameters[spec.name] = value_of(spec, texts);
  }
  reshape::PlanStep step = reshape::plan_step(op_.name, inputs_, parameters, verb);
  step.stats = stats_;
  return run_reshape(verb, {.steps = {std::move(step)}}, options_, threads);
}

std::vector<std::string> OpCommand::flags() const {
  std::vector<std::string> flags;
  for (const ParamSpec& spec : op_.params) flags.push_back(flag_of(spec));
  return flags;
}

int run_op_verb(const std::string& verb, const std::string& op_name, int argc, char** argv,
                const std::string& more) {
  OpCommand command(op_name);
  CommandLine line(verb, more);
  command.add_options(line);
  if (const auto done = line.parse(argc, argv)) return *done;
  return command.run(verb, line.threads());
}

}  // namespace cadre
