#pragma once

/// For tests: a reader that makes trouble. Faults are a function of the seed and the number of the
/// read, so that a run can be repeated.

#include <memory>

#include "cadre/base/random.h"
#include "cadre/engine/file_reader.h"

namespace cadre::engine {

struct Faults {
  double error = 0;              ///< share of reads that fail with EIO
  double short_read = 0;         ///< share that bring only a part, of any length
  double flip = 0;               ///< share in which one bit is wrong
  double delay = 0;              ///< share whose result is held back until others have come
  int64_t fail_file_after = -1;  ///< reads from then on all fail: the disk is gone; -1 = never
  uint64_t seed = 1;
};

class FaultyReader final : public FileReader {
 public:
  FaultyReader(std::unique_ptr<FileReader> reader, const Faults& faults)
      : reader_(std::move(reader)), faults_(faults) {}
  void start(std::span<const FileRead> reads) override;
  void collect(Wait wait, std::vector<FileReadResult>& results) override;
  std::string_view name() const override { return "faulty"; }

  /// Reads that were made to fail so far.
  int64_t errors() const { return errors_; }

 private:
  struct Fate {
    FileRead read;
    bool error, flip, delay;
    int64_t bytes;  ///< at most
  };
  void meet_fate(FileReadResult& result, const Fate& fate);

  std::unique_ptr<FileReader> reader_;
  Faults faults_;
  uint64_t count_ = 0;
  int64_t errors_ = 0;
  std::vector<Fate> fates_;
  std::vector<FileReadResult> held_;
};

}  // namespace cadre::engine
