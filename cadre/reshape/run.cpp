#include "cadre/reshape/run.h"

#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <optional>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/base/timer.h"
#include "cadre/base/units.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"
#include "cadre/reshape/output.h"
#include "cadre/reshape/step_work.h"

namespace cadre::reshape {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr const char* kRecordFile = "reshape.json";

/// The program, its libraries and what threads need in any case.
constexpr int64_t kProgramBytes = int64_t{24} << 20;
/// Of every mapped input some pages around those in use stay for a while.
constexpr int64_t kWindowBytes = int64_t{2} << 20;

int64_t fixed_bytes(std::span<const CheckpointPtr> inputs) {
  return kProgramBytes + static_cast<int64_t>(inputs.size()) * kWindowBytes;
}

int threads_within(const Plan& plan, std::span<const CheckpointPtr> inputs, int64_t budget) {
  const int64_t one = process_bytes(plan, inputs, 1);
  if (one > budget)
    throw UsageError("this plan needs {} of memory, the budget is {}; raise --memory",
                     format_bytes(static_cast<uint64_t>(one)),
                     format_bytes(static_cast<uint64_t>(budget)));
  int threads = 1;
  while (threads < num_threads() && process_bytes(plan, inputs, threads + 1) <= budget) ++threads;
  return threads;
}

void refuse_sources(const fs::path& folder, std::span<const CheckpointPtr> inputs) {
  for (const CheckpointPtr& input : inputs)
    for (const fs::path& source : input->sources()) {
      std::error_code ignored;
      if (fs::equivalent(folder, source, ignored))
        throw UsageError("{}: is read by this plan; write to another folder", folder.string());
    }
}

/// The inputs' history, then this run.
nlohmann::json record_of(const Plan& plan, std::span<const CheckpointPtr> inputs) {
  nlohmann::json history = nlohmann::json::array();
  nlohmann::json record = plan.record;
  record["inputs"] = nlohmann::json::array();
  for (const CheckpointPtr& input : inputs) {
    record["inputs"].push_back(
        {{"fingerprint", input->fingerprint()}, {"name", input->folder().filename().string()}});
    const fs::path older = input->folder() / kRecordFile;
    if (fs::exists(older)) {
      const nlohmann::json read = parse_json(read_file(older), older.string());
      if (read.is_array()) history.insert(history.end(), read.begin(), read.end());
    }
  }
  history.push_back(std::move(record));
  return history;
}

std::string identity_of(const Plan& plan, const nlohmann::json& record, int64_t shard_bytes) {
  std::string text = fmt::format("{}\n{}\n{}\n", record.dump(-1, ' ', true), shard_bytes,
                                 plan.config_out.dump(-1, ' ', true));
  for (const Step& step : plan.steps) {
    for (const TensorInfo& out : step.out)
      text += fmt::format("{} {} {};", out.name, name_of(out.dtype), fmt::join(out.shape, ","));
    for (const SliceRef& in : step.in)
      text += fmt::format("{} {} {} {};", in.checkpoint, in.name, in.first_row, in.rows);
    text += '\n';
  }
  return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

class Runner {
 public:
  Runner(const Plan& plan, std::span<const CheckpointPtr> inputs, OutputFolder& output,
         const RunOptions& options, int threads)
      : plan_(plan), inputs_(inputs), output_(output), options_(options), threads_(threads) {}

  void run(RunReport& report) {
    for (size_t i = 0; i < plan_.steps.size();) i = take(i, report);
    note();
  }

 private:
  /// Does the step, or a group of whole-matrix steps; returns the next.
  size_t take(size_t index, RunReport& report) {
    const Step& step = plan_.steps[index];
    if (output_.finished().contains(static_cast<int64_t>(index))) {
      ++report.steps_resumed;
      advance(output_bytes(step));
      return index + 1;
    }
    size_t end = index + 1;
    if (is_whole(step)) {
      end = group_end(index);
      run_whole(index, end);
    } else {
      run_tiled(step);
    }
    for (size_t i = index; i < end; ++i) {
      report.bytes_read += input_bytes(plan_.steps[i], inputs_);
      report.bytes_written += output_bytes(plan_.steps[i]);
      done_.push_back(static_cast<int64_t>(i));
    }
    const std::chrono::duration<double> since = Clock::now() - noted_;
    if (since.count() >= options_.journal_seconds) note();
    return end;
  }

  static int64_t output_bytes(const Step& step) {
    int64_t bytes = 0;
    for (const TensorInfo& info : step.out) bytes += bytes_of(info);
    return bytes;
  }

  void run_tiled(const Step& step) {
    const TiledStep work(step, inputs_);
    work.prepare(threads_);
    const TensorInfo& out = step.out.front();
    std::vector<TileBuffers> buffers(static_cast<size_t>(threads_));
    for_tasks(threads_, work.tiles(), [&](int worker, int64_t tile) {
      const auto bytes = work.compute(tile, buffers[static_cast<size_t>(worker)]);
      output_.write(out.name, work.first_of(tile) * size_of(out.dtype), bytes);
      advance(static_cast<int64_t>(bytes.size()));
    });
  }

  /// As many neighbours as threads and budget allow at once.
  size_t group_end(size_t begin) const {
    int64_t room = options_.budget_bytes - fixed_bytes(inputs_);
    size_t end = begin;
    while (end < plan_.steps.size() && end - begin < static_cast<size_t>(threads_) &&
           is_whole(plan_.steps[end]) && !output_.finished().contains(static_cast<int64_t>(end))) {
      room -= whole_bytes(plan_.steps[end], inputs_);
      if (room < 0 && end > begin) break;
      ++end;
    }
    return end;
  }

  void run_whole(size_t begin, size_t end) {
    for_tasks(threads_, static_cast<int64_t>(end - begin), [&](int, int64_t i) {
      const Step& step = plan_.steps[begin + static_cast<size_t>(i)];
      const auto results = compute_whole(step, inputs_);
      for (size_t j = 0; j < results.size(); ++j) output_.write(step.out[j].name, 0, results[j]);
      advance(output_bytes(step));
    });
  }

  void advance(int64_t bytes) {
    const std::lock_guard lock(mutex_);
    done_bytes_ += bytes;
    if (options_.progress) options_.progress(done_bytes_);
  }

  void note() {
    output_.note(done_);
    done_.clear();
    noted_ = Clock::now();
  }

  const Plan& plan_;
  const std::span<const CheckpointPtr> inputs_;
  OutputFolder& output_;
  const RunOptions& options_;
  const int threads_;
  std::vector<int64_t> done_;  ///< not noted yet
  Clock::time_point noted_ = Clock::now();
  std::mutex mutex_;
  int64_t done_bytes_ = 0;
};

/// What is neither weights nor config: tokenizer, chat template, generation defaults.
void copy_side_files(const Plan& plan, std::span<const CheckpointPtr> inputs, const fs::path& to) {
  if (plan.tokenizer_from < 0 || inputs.empty()) return;
  const fs::path& from = inputs[static_cast<size_t>(plan.tokenizer_from)]->folder();
  for (const auto& entry : fs::directory_iterator(from)) {
    const std::string name = entry.path().filename().string();
    const bool text = name.ends_with(".json") || name.ends_with(".jinja") ||
                      name.ends_with(".model") || name.ends_with(".txt");
    const bool ours = name == "config.json" || name.ends_with(".index.json") ||
                      name == kRecordFile || name == plan.config_name;
    if (entry.is_regular_file() && text && !ours)
      fs::copy_file(entry.path(), to / name, fs::copy_options::overwrite_existing);
  }
}

}  // namespace

int64_t process_bytes(const Plan& plan, std::span<const CheckpointPtr> inputs, int threads) {
  return fixed_bytes(inputs) + peak_bytes(plan, inputs, threads);
}

RunReport run(const Plan& plan, std::span<const CheckpointPtr> inputs, const fs::path& folder,
              const RunOptions& options) {
  const auto began = Clock::now();
  refuse_sources(folder, inputs);
  if (plan.steps.empty()) throw UsageError("{}: the plan has no tensors to write", folder.string());
  const int threads = threads_within(plan, inputs, options.budget_bytes);
  const nlohmann::json record = record_of(plan, inputs);
  OutputLayout layout = {
      .stem = plan.weights_stem,
      .metadata = {{"format", "pt"}, {"cadre.reshape", record.back().dump(-1, ' ', true)}},
      .shard_bytes = options.shard_bytes,
      .identity = identity_of(plan, record, options.shard_bytes)};
  for (const Step& step : plan.steps)
    for (const TensorInfo& info : step.out) layout.tensors.push_back(info);

  RunReport report = {.peak_bytes = process_bytes(plan, inputs, threads), .threads = threads};
  OutputFolder output(folder, layout);
  Runner(plan, inputs, output, options, threads).run(report);
  copy_side_files(plan, inputs, output.staging());
  if (!plan.config_out.is_null())
    write_file(output.staging() / plan.config_name, plan.config_out.dump(2) + "\n");
  write_file(output.staging() / kRecordFile, record.dump(2) + "\n");
  for (const auto& [name, text] : plan.files) write_file(output.staging() / name, text);
  output.commit();

  if (!inputs.empty()) report.before = inputs.front()->schema().counts();
  report.after = schema_of(plan, folder.string()).counts();
  report.seconds = std::chrono::duration<double>(Clock::now() - began).count();
  return report;
}

}  // namespace cadre::reshape
