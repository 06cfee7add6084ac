#pragma once

/// Reads of file ranges that run while the caller computes. One thread calls; nothing here knows of
/// experts.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace cadre::engine {

/// Direct reading wants offsets, lengths and addresses at multiples of this.
constexpr int64_t kReadAlignment = 4096;

struct FileRead {
  int32_t file;    ///< index into the paths
  int64_t offset;  ///< a multiple of kReadAlignment, as are bytes and `to`
  int64_t bytes;
  std::byte* to;
  uint64_t tag;  ///< comes back with the result
};

struct FileReadResult {
  uint64_t tag;
  int64_t got;  ///< bytes read, fewer than asked for now and then and at the end of the file; or
                ///< -errno
};

class FileReader {
 public:
  enum class Wait { kNo, kYes };

  /// Waits for reads in flight: their memory must outlive the reader.
  virtual ~FileReader() = default;
  /// Starts all of them at once.
  virtual void start(std::span<const FileRead> reads) = 0;
  /// Appends what has finished; kYes waits for at least one if any read is in flight.
  virtual void collect(Wait wait, std::vector<FileReadResult>& results) = 0;
  /// "io_uring, direct" and the like, for people.
  virtual std::string_view name() const = 0;
};

/// How the bytes are fetched. kRing: io_uring, no thread; kThreads: pread on as many threads as
/// reads in flight; both with O_DIRECT where the file system takes it. kMapped: copies from a
/// memory map, so that the kernel's page cache serves as a second cache.
enum class ReadMethod { kRing, kThreads, kMapped };

/// Falls back from kRing to kThreads where the kernel refuses io_uring, and to reading through the
/// page cache (dropping what was read) where the file system refuses O_DIRECT. `in_flight` bounds
/// the reads at once. Throws IoError when a file can't be opened.
std::unique_ptr<FileReader> open_file_reader(const std::vector<std::filesystem::path>& paths,
                                             ReadMethod method, int in_flight);

}  // namespace cadre::engine
