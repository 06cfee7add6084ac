#pragma once

/// A checkpoint folder that is written at any place in any order, and survives the death of its
/// writer: `.NAME.reshape/` beside it holds `out/` and a journal of finished steps.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cadre/formats/safetensors.h"

namespace cadre::reshape {

struct OutputLayout {
  std::string stem = "model";
  std::vector<TensorSpec> tensors;
  std::map<std::string, std::string> metadata;
  int64_t shard_bytes = 0;
  std::string identity;  ///< of the work: a journal of other work is thrown away
};

/// An open file; closed with its owner.
class OpenFile {
 public:
  explicit OpenFile(int descriptor = -1) : descriptor_(descriptor) {}
  ~OpenFile();
  OpenFile(OpenFile&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  OpenFile& operator=(OpenFile&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

class OutputFolder {
 public:
  /// Goes on with unfinished work of the same identity, else begins. Throws UsageError for a folder
  /// that holds something else than a checkpoint, IoError: too little room (nothing is written
  /// then), another run at the same work.
  OutputFolder(std::filesystem::path folder, const OutputLayout& layout);
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  /// Steps that the journal says are done.
  const std::set<int64_t>& finished() const { return finished_; }
  /// Any thread may write. `offset` is within the tensor.
  void write(const std::string& tensor, int64_t offset, std::span<const std::byte> bytes);
  /// Makes all written bytes durable, then notes the steps.
  void note(std::span<const int64_t> steps);
  /// Where further files go.
  std::filesystem::path staging() const { return work_ / "out"; }
  /// The folder appears; what was there before is removed.
  void commit();

 private:
  struct Place {
    size_t shard;
    int64_t offset;
  };
  struct Shard {
    std::filesystem::path path;
    OpenFile file = OpenFile();
    std::string head;
    int64_t bytes = 0;
  };
  void lay_out(const OutputLayout& layout);
  void take_lock();
  void read_journal(const std::string& identity);
  void check_room() const;
  void open_shards();

  std::filesystem::path folder_, work_;
  std::vector<Shard> shards_;
  std::map<std::string, Place> places_;
  std::map<std::string, std::string> small_files_;
  std::set<int64_t> finished_;
  OpenFile lock_, journal_;
  std::atomic<int64_t> written_ = 0;
};

}  // namespace cadre::reshape
