#pragma once

/// Executes a plan: tile by tile on all threads, header first, payloads at fixed offsets, shards
/// cut by bytes; the folder appears only when complete. Next to it a hidden folder `.NAME.reshape`
/// holds unfinished work with a journal of finished steps: a run that was killed goes on where it
/// was, and gives the same bytes.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>

#include "cadre/reshape/plan.h"

namespace cadre::reshape {

struct RunOptions {
  int64_t budget_bytes = int64_t{2} << 30;    ///< of the process: fewer threads work if needed
  int64_t shard_bytes = int64_t{2000000000};  ///< a larger tensor has a shard of its own
  /// Finished steps are made durable and noted at least this often; 0 = each.
  double journal_seconds = 2.0;
  /// Called with the bytes of output that are done, now and then, from one thread at a time. What
  /// it throws stops the run; the journal stays.
  std::function<void(int64_t bytes)> progress = {};
};

struct RunReport {
  SchemaCounts before;  ///< of the first input
  SchemaCounts after;
  int64_t bytes_read = 0, bytes_written = 0;
  int64_t steps_resumed = 0;  ///< done by an earlier run
  int64_t peak_bytes = 0;     ///< planned, of the process
  int threads = 0;            ///< that the budget allowed
  double seconds = 0;
};

/// What the whole process takes at its largest when `threads` work: program and libraries, the
/// window of every mapped input, and the plan's own peak_bytes().
int64_t process_bytes(const Plan& plan, std::span<const CheckpointPtr> inputs, int threads);

/// Throws UsageError: a budget that one thread's tiles exceed, a plan that does not fit its inputs,
/// `folder` that is an input, NaN or infinite weights (names the tensor); IoError: too little disk
/// (before the first byte), no permission ... `folder` is then as before.
RunReport run(const Plan& plan, std::span<const CheckpointPtr> inputs,
              const std::filesystem::path& folder, const RunOptions& options = {});

}  // namespace cadre::reshape
