#pragma once

/// What every verb that makes a checkpoint of checkpoints shares: where to, within what, and what
/// it tells.

#include <map>
#include <string>
#include <vector>

#include "cadre/reshape/ops.h"
#include "cadre/reshape/plan_file.h"
#include "tools/common/command_line.h"

namespace cadre {

struct ReshapeCommand {
  std::string out;
  std::string memory = "2GiB", shard = "2GB";
  std::string text;
  int64_t context = 512;
  bool json = false;
};

/// --out, --memory, --shard, --text, --context, --json.
void add_reshape_options(CommandLine& line, ReshapeCommand& options);

/// Runs the plan behind a bar and prints tensors, bytes, experts and parameters before and after,
/// and with --text the perplexities. Returns the exit code.
int run_reshape(const std::string& verb, const reshape::PlanFile& plan,
                const ReshapeCommand& options, int threads);

/// Perplexity of options.text under the model at `path`.
double perplexity_of(const std::string& path, const ReshapeCommand& options, int threads);

/// An operation as a command: its parameters are flags, its inputs positional.
class OpCommand {
 public:
  explicit OpCommand(const std::string& op);
  void add_options(CommandLine& line);
  int run(const std::string& verb, int threads) const;

  const std::vector<std::string>& inputs() const { return inputs_; }
  const std::string& stats() const { return stats_; }
  const ReshapeCommand& options() const { return options_; }
  /// The parameters' flags.
  std::vector<std::string> flags() const;

 private:
  const reshape::OpInfo& op_;
  ReshapeCommand options_;
  std::vector<std::string> inputs_;
  std::string stats_;
  std::map<std::string, std::vector<std::string>> given_;
};

/// main() of a verb that is one operation: its parameters are flags ("copies" is --copies,
/// "shared_kv" is --shared-kv), its inputs positional.
int run_op_verb(const std::string& verb, const std::string& op, int argc, char** argv,
                const std::string& more = "");

}  // namespace cadre
