/// cadre compress: experts' matrices as low rank plus a few whole rows, or the whole model
/// quantised into so many bytes.

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "cadre/base/progress.h"
#include "cadre/base/units.h"
#include "cadre/reshape/quantize_to_budget.h"
#include "tools/common/reshape_command.h"
#include "tools/common/stored_tensors.h"

namespace {

using namespace cadre;

reshape::BudgetPlan plan_within(engine::GgufImage image, int64_t bytes, const std::string& stats) {
  std::optional<reshape::StatsIndex> index;
  if (!stats.empty()) index.emplace(stats);
  constexpr int64_t kParts = 1000;
  Progress progress({.label = "measure", .total = kParts, .unit = "per mille"});
  reshape::BudgetPlan plan = reshape::plan_bytes(
      std::move(image), bytes,
      {.stats = index ? &*index : nullptr, .progress = [&](double share) {
         progress.advance(static_cast<int64_t>(share * kParts) - progress.done());
       }});
  progress.finish();
  return plan;
}

int compress_to_bytes(const OpCommand& command, const std::string& bytes, int threads) {
  const ReshapeCommand& options = command.options();
  if (command.inputs().size() != 1) throw UsageError("--to-bytes takes one model");
  if (!options.out.ends_with(".gguf"))
    throw UsageError("{}: --to-bytes writes a GGUF file: end its name in .gguf", options.out);
  const std::string& input = command.inputs().front();
  refuse_same_file(input, options.out);
  const auto budget = static_cast<int64_t>(parse_bytes(bytes));
  const reshape::BudgetPlan plan = plan_within(engine::open_image(input), budget, command.stats());
  const auto stored =
      with_progress("compress", plan.image, [&](const engine::ImageProgress& progress) {
        return engine::quantize_gguf(options.out, plan.image, plan.types, progress);
      });
  StoredReport report = {
      .input = input, .output = options.out, .notes = plan.image.notes, .json = options.json};
  if (!options.text.empty())
    report.perplexity = {perplexity_of(input, options, threads),
                         perplexity_of(options.out, options, threads)};
  if (!options.json) print_notes(report.notes);
  print_stored(stored, report);
  return 0;
}

int run(int argc, char** argv) {
  OpCommand command("lowrank_sparse");
  std::string bytes;
  CommandLine line("compress",
                   "Without --to-bytes, experts become low rank plus a few whole rows; cadre run "
                   "computes with the factors as they are. With it, every matrix and every expert "
                   "is quantised by what its error costs (--stats weighs it by what the model does "
                   "on a text), so that the GGUF file has at most so many bytes.");
  command.add_options(line);
  CLI::Option* to_bytes = line.add("quantization", "--to-bytes", bytes,
                                   "Most bytes of the GGUF file to write, like 2GiB");
  for (const std::string& flag : command.flags()) to_bytes->excludes(flag);
  if (const auto done = line.parse(argc, argv)) return *done;
  if (bytes.empty()) return command.run("compress", line.threads());
  return compress_to_bytes(command, bytes, line.threads());
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("compress", [&] { return run(argc, argv); });
}
