#pragma once

/// Brings experts from the model's files into cache slots: few reads in flight, demanded experts
/// before guessed ones, checked and in panel form when they arrive. One thread calls, outside of
/// its team's work; what follows a read (checksum, repacking) is done in poll() and wait().
///
/// Random reads of 0.25-3 MiB gave 0.95-1.24 GB/s one at a time and 1.2-1.7 GB/s with 2 to 8 in
/// flight, so more than four gain nothing and would make a demanded expert wait behind guesses.

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cadre/base/team.h"
#include "cadre/engine/expert_files.h"
#include "cadre/engine/file_reader.h"
#include "cadre/engine/slab.h"

namespace cadre::engine {

class ExpertStore {
 public:
  enum class Priority : uint8_t { kDemand, kGuess };

  struct Options {
    int in_flight = 4;          ///< reads at once
    int guesses_in_flight = 2;  ///< of them for guesses
    bool from_memory = false;   ///< take what is mapped from the map (no reads)
    Team* team = nullptr;       ///< shares the repacking; null: the caller does it alone
  };

  struct Arrival {
    int64_t id;
    std::string error;  ///< empty when the slot holds the expert
  };

  /// What the disk did so far.
  struct Statistics {
    int64_t bytes_read = 0;
    double busy_seconds = 0;    ///< time with at least one read in flight
    double demand_seconds = 0;  ///< with at least one demanded expert not there yet
  };

  /// `files` must outlive the store, and slots the readings into them.
  ExpertStore(const ExpertFiles& files, std::unique_ptr<FileReader> reader, const Options& options);
  ~ExpertStore();

  /// Queues an expert that is not queued yet; `slot` has ExpertFiles::slot_bytes(), at a multiple
  /// of 4096. Nothing starts before poll(), so that all of a layer go to the kernel in one call.
  void submit(int64_t id, std::byte* slot, Priority priority);
  /// A guess that turned out to be needed: goes behind the demanded ones.
  void promote(int64_t id);
  /// Forgets an expert whose reading has not begun. False when it has: it will arrive.
  bool cancel(int64_t id);

  /// Starts what the bounds allow and returns what has arrived. Valid until the next call.
  std::span<const Arrival> poll();
  /// The same, but waits for an arrival if anything is queued.
  std::span<const Arrival> wait();

  /// Demanded experts that have not arrived.
  int64_t demanded() const { return demanded_; }
  /// Experts that have not arrived.
  int64_t pending() const { return static_cast<int64_t>(jobs_.size()); }
  Statistics statistics() const;
  std::string_view reader_name() const { return reader_->name(); }
  /// Memory beside the slots that reading may take.
  static int64_t buffer_bytes(const ExpertFiles& files);

 private:
  struct Job;
  struct Part;
  bool from_memory(int64_t id) const;
  bool start_next(Priority priority);
  bool start(Job& job);
  void start_from_memory(Job& job);
  void plan_parts(Job& job);
  void queue_read(Job& job, size_t part);
  void pump();
  bool continue_read(Job& job, size_t part, int64_t got);
  void take_result(const FileReadResult& result);
  void repack(const Job& job);
  void finish(Job& job);
  void finish_ready();
  void step(FileReader::Wait wait);
  std::string describe(const Job& job, const Part& part, const std::string& reason) const;
  Job& job_of(int64_t id);
  void account();

  const ExpertFiles& files_;
  const Options options_;
  std::vector<std::unique_ptr<Job>> jobs_;  ///< all that have not arrived
  std::deque<Job*> queues_[2];              ///< by priority: not begun
  std::vector<Job*> ready_;                 ///< all parts read, work to be done
  std::vector<std::byte*> free_buffers_;    ///< for stored rows, before they are repacked
  std::unique_ptr<Slab> buffers_;
  std::unique_ptr<FileReader> reader_;  ///< after the buffers: waits for reads into them
  std::vector<FileRead> starting_;
  std::vector<FileReadResult> results_;
  std::vector<Arrival> arrivals_;
  int in_flight_ = 0, guesses_in_flight_ = 0;
  int64_t demanded_ = 0;
  Statistics statistics_;
  double last_account_ = 0;
};

}  // namespace cadre::engine
