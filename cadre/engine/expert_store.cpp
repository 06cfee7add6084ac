#include "cadre/engine/expert_store.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

#include "cadre/base/error.h"
#include "cadre/engine/checksum.h"
#include "cadre/engine/panel_memory.h"
#include "cadre/formats/file.h"

namespace cadre::engine {
namespace {

/// Stored rows are read beside the slots and repacked from there; three keep the disk busy while
/// one is repacked.
constexpr int64_t kBuffers = 3;
constexpr int kMaxStalls = 32;
constexpr const char* kCutOff = "the file ends there; was it cut off?";

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int64_t align_down(int64_t value) { return value / kReadAlignment * kReadAlignment; }
int64_t align_up(int64_t value) { return align_down(value + kReadAlignment - 1); }

/// Bytes of the aligned window around a part.
int64_t window_bytes(const FilePart& part) {
  return align_up(part.offset + part.bytes) - align_down(part.offset);
}

/// The largest expert with every part in a window of its own.
int64_t buffer_size(const ExpertFiles& files) {
  int64_t largest = 0;
  for (const auto& parts : files.parts) {
    int64_t bytes = 0;
    for (const FilePart& part : parts) bytes += window_bytes(part);
    largest = std::max(largest, bytes);
  }
  return largest;
}

}  // namespace

struct ExpertStore::Part {
  FilePart source;
  std::byte* to = nullptr;  ///< where the window begins
  int64_t got = 0;          ///< bytes of the window that have arrived, a multiple of the alignment
  int stalls = 0;           ///< short reads that brought less than a block
  int64_t window_offset() const { return align_down(source.offset); }
  int64_t needed() const { return source.offset + source.bytes - window_offset(); }
  const std::byte* bytes() const { return to + (source.offset - window_offset()); }
};

struct ExpertStore::Job {
  int64_t id;
  std::byte* slot;
  Priority priority;
  std::byte* buffer = nullptr;
  std::array<Part, kExpertMatrices> parts;
  size_t part_count = 0, parts_started = 0, parts_done = 0;
  std::string error;
};

int64_t ExpertStore::buffer_bytes(const ExpertFiles& files) {
  return files.form == ExpertFiles::Form::kRows ? kBuffers * buffer_size(files) : 0;
}

ExpertStore::ExpertStore(const ExpertFiles& files, std::unique_ptr<FileReader> reader,
                         const Options& options)
    : files_(files), options_(options), reader_(std::move(reader)), last_account_(now_seconds()) {
  if (options.in_flight < 1 || options.guesses_in_flight < 1)
    throw UsageError("an expert store needs at least one read in flight");
  if (files.form == ExpertFiles::Form::kPanels) return;
  const int64_t size = buffer_size(files);
  buffers_ = std::make_unique<Slab>(kBuffers * size);
  for (int64_t i = 0; i < kBuffers; ++i) free_buffers_.push_back(buffers_->data() + i * size);
}

ExpertStore::~ExpertStore() = default;

ExpertStore::Job& ExpertStore::job_of(int64_t id) {
  for (const auto& job : jobs_)
    if (job->id == id) return *job;
  throw Error("expert {} is not being read", id);
}

void ExpertStore::submit(int64_t id, std::byte* slot, Priority priority) {
  account();
  Job& job = *jobs_.emplace_back(std::make_unique<Job>());
  job.id = id;
  job.slot = slot;
  job.priority = priority;
  queues_[static_cast<int>(priority)].push_back(&job);
  if (priority == Priority::kDemand) ++demanded_;
}

void ExpertStore::promote(int64_t id) {
  Job& job = job_of(id);
  if (job.priority == Priority::kDemand) return;
  account();
  ++demanded_;
  job.priority = Priority::kDemand;
  guesses_in_flight_ -= static_cast<int>(job.parts_started - job.parts_done);
  auto& guesses = queues_[static_cast<int>(Priority::kGuess)];
  const auto queued = std::find(guesses.begin(), guesses.end(), &job);
  if (queued == guesses.end()) return;
  guesses.erase(queued);
  auto& demands = queues_[static_cast<int>(Priority::kDemand)];
  // One whose first part is in flight holds a buffer: it goes first.
  if (job.parts_started > 0)
    demands.push_front(&job);
  else
    demands.push_back(&job);
}

bool ExpertStore::cancel(int64_t id) {
  Job& job = job_of(id);
  auto& queue = queues_[static_cast<int>(job.priority)];
  const auto queued = std::find(queue.begin(), queue.end(), &job);
  if (queued == queue.end() || job.parts_started > 0) return false;
  account();
  if (job.priority == Priority::kDemand) --demanded_;
  queue.erase(queued);
  std::erase_if(jobs_, [&](const auto& other) { return other.get() == &job; });
  return true;
}

bool ExpertStore::from_memory(int64_t id) const {
  const FilePart& first = files_.parts[id].front();
  return first.memory != nullptr && (first.file < 0 || options_.from_memory);
}

/// A job begins: its parts and where they land.
void ExpertStore::plan_parts(Job& job) {
  std::byte* to = files_.form == ExpertFiles::Form::kPanels ? job.slot : job.buffer;
  for (const FilePart& source : files_.parts[job.id]) {
    if (source.bytes == 0) continue;
    job.parts[job.part_count++] = {.source = source, .to = to};
    to += window_bytes(source);
  }
}

void ExpertStore::queue_read(Job& job, size_t index) {
  const Part& part = job.parts[index];
  // A part's number fits two bits below the expert's.
  starting_.push_back({.file = part.source.file,
                       .offset = part.window_offset() + part.got,
                       .bytes = align_up(part.needed()) - part.got,
                       .to = part.to + part.got,
                       .tag = static_cast<uint64_t>(job.id) << 2 | index});
}

/// No reads: the bytes are in a map, and the kernel's read-ahead has been asked for them.
void ExpertStore::start_from_memory(Job& job) {
  for (const FilePart& source : files_.parts[job.id]) {
    if (source.bytes == 0) continue;
    Part& part = job.parts[job.part_count++];
    part.source = source;
    const auto address = reinterpret_cast<uintptr_t>(source.memory);
    // Window and bytes agree with those of a read: to + (offset - window) is the first byte.
    part.to = const_cast<std::byte*>(source.memory) - (source.offset - part.window_offset());
    const uintptr_t page = address / kReadAlignment * kReadAlignment;
    madvise(reinterpret_cast<void*>(page), address - page + source.bytes, MADV_WILLNEED);
  }
  job.parts_started = job.parts_done = job.part_count;
  ready_.push_back(&job);
}

/// Starts parts of a job as far as the bounds allow; true when all of them have started.
bool ExpertStore::start(Job& job) {
  if (job.part_count == 0) {
    if (from_memory(job.id)) {
      start_from_memory(job);
      return true;
    }
    if (files_.form == ExpertFiles::Form::kRows) {
      if (free_buffers_.empty()) return false;
      job.buffer = free_buffers_.back();
      free_buffers_.pop_back();
    }
    plan_parts(job);
  }
  const bool guess = job.priority == Priority::kGuess;
  while (job.parts_started < job.part_count && in_flight_ < options_.in_flight &&
         (!guess || guesses_in_flight_ < options_.guesses_in_flight)) {
    queue_read(job, job.parts_started++);
    ++in_flight_;
    if (guess) ++guesses_in_flight_;
  }
  return job.parts_started == job.part_count;
}

bool ExpertStore::start_next(Priority priority) {
  auto& queue = queues_[static_cast<int>(priority)];
  if (queue.empty() || !start(*queue.front())) return false;
  queue.pop_front();
  return true;
}

void ExpertStore::pump() {
  while (start_next(Priority::kDemand)) {
  }
  // A guess that has begun holds a reading buffer: where demands wait for one, it must end first.
  const bool no_buffer = files_.form == ExpertFiles::Form::kRows && free_buffers_.empty();
  if (queues_[static_cast<int>(Priority::kDemand)].empty() || no_buffer) {
    while (start_next(Priority::kGuess)) {
    }
  }
  if (starting_.empty()) return;
  reader_->start(starting_);
  starting_.clear();
}

std::string ExpertStore::describe(const Job& job, const Part& part,
                                  const std::string& reason) const {
  return fmt::format("cannot read expert {} of layer {} from {} at byte {}: {}",
                     files_.grid.expert_of(job.id), files_.grid.layer_of(job.id),
                     files_.paths[part.source.file].string(), part.source.offset, reason);
}

/// A short read goes on where a whole block ended, as direct reading wants it. False at the end of
/// the file: there, reads keep bringing less than a block.
bool ExpertStore::continue_read(Job& job, size_t index, int64_t got) {
  Part& part = job.parts[index];
  if (align_down(got) == part.got && ++part.stalls > kMaxStalls) return false;
  part.got = align_down(got);
  queue_read(job, index);
  return true;
}

void ExpertStore::take_result(const FileReadResult& result) {
  Job& job = job_of(static_cast<int64_t>(result.tag >> 2));
  const size_t index = result.tag & 3;
  Part& part = job.parts[index];
  if (result.got > 0) {
    statistics_.bytes_read += result.got;
    const int64_t got = part.got + result.got;
    if (got < part.needed() && continue_read(job, index, got)) return;
    if (got < part.needed()) job.error = describe(job, part, kCutOff);
  } else if (result.got < 0) {
    job.error = describe(job, part, std::strerror(static_cast<int>(-result.got)));
  } else {
    job.error = describe(job, part, kCutOff);
  }
  --in_flight_;
  if (job.priority == Priority::kGuess) --guesses_in_flight_;
  if (++job.parts_done == job.part_count) ready_.push_back(&job);
}

/// Stored rows become panels, shared out over the team: at the disk's speed one thread would be the
/// slower of the two.
void ExpertStore::repack(const Job& job) {
  const LayerLayout& layer = files_.layout_of(job.id);
  const int threads = options_.team == nullptr ? 1 : options_.team->threads();
  const auto share = [&](int thread) {
    for (size_t m = 0; m < kExpertMatrices; ++m) {
      const MatrixLayout& matrix = layer.matrices[m];
      const int64_t panels = (matrix.rows + kernels::kPanelRows - 1) / kernels::kPanelRows;
      const Range range = share_of(panels, 1, thread, threads);
      pack_rows({matrix.stored, matrix.rows, matrix.columns, job.parts[m].bytes(), matrix.steps},
                matrix.type, range.begin, range.end - range.begin, job.slot + matrix.offset);
    }
  };
  if (threads == 1) return share(0);
  options_.team->run(share);
}

/// Checks and repacks what has been read.
void ExpertStore::finish(Job& job) {
  if (job.error.empty()) {
    const LayerLayout& layer = files_.layout_of(job.id);
    if (files_.form == ExpertFiles::Form::kRows) {
      repack(job);
      for (const Part& part : job.parts) {
        if (job.buffer == nullptr && part.source.file >= 0)
          drop_pages({part.bytes(), static_cast<size_t>(part.source.bytes)});
      }
    } else if (!files_.checksums.empty() &&
               crc32c({job.slot, static_cast<size_t>(layer.bytes)}) != files_.checksums[job.id]) {
      job.error = describe(job, job.parts[0],
                           "its checksum is wrong; make the pack again with `cadre pack`");
    }
  }
  if (job.buffer != nullptr) free_buffers_.push_back(job.buffer);
  if (job.priority == Priority::kDemand) --demanded_;
  arrivals_.push_back({.id = job.id, .error = std::move(job.error)});
  std::erase_if(jobs_, [&](const auto& other) { return other.get() == &job; });
}

void ExpertStore::finish_ready() {
  std::vector<Job*> ready;
  std::swap(ready, ready_);
  for (Job* job : ready) {
    finish(*job);
    pump();  // its buffer is free: the disk goes on while the next one is repacked
  }
}

void ExpertStore::step(FileReader::Wait wait) {
  account();
  pump();
  if (in_flight_ > 0) {
    // Ready work must not wait for the disk.
    reader_->collect(ready_.empty() ? wait : FileReader::Wait::kNo, results_);
    for (const FileReadResult& result : results_) take_result(result);
    results_.clear();
  }
  pump();
  account();
  finish_ready();
  pump();
}

std::span<const ExpertStore::Arrival> ExpertStore::poll() {
  arrivals_.clear();
  step(FileReader::Wait::kNo);
  return arrivals_;
}

std::span<const ExpertStore::Arrival> ExpertStore::wait() {
  arrivals_.clear();
  while (arrivals_.empty() && !jobs_.empty()) step(FileReader::Wait::kYes);
  return arrivals_;
}

void ExpertStore::account() {
  const double now = now_seconds();
  const double passed = now - last_account_;
  last_account_ = now;
  if (in_flight_ > 0) statistics_.busy_seconds += passed;
  if (demanded_ > 0) statistics_.demand_seconds += passed;
}

ExpertStore::Statistics ExpertStore::statistics() const { return statistics_; }

}  // namespace cadre::engine
