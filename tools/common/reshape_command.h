#pragma once

/// What every verb that makes a checkpoint of checkpoints shares: where to, within what, and what
/// it tells.

#include <string>

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

/// main() of a verb that is one operation: its parameters are flags ("copies" is --copies,
/// "shared_kv" is --shared-kv), its inputs positional.
int run_op_verb(const std::string& verb, const std::string& op, int argc, char** argv,
                const std::string& more = "");

}  // namespace cadre
