#pragma once

/// Bytes in and out, safely: a mapped file for reading, and a file that appears only when complete.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace cadre {

/// A read-only memory map of a whole file. Cheap to copy: copies share the map. A file that another
/// process cuts short while it is mapped is beyond saving (SIGBUS): replace files, never truncate
/// them.
class MappedFile {
 public:
  /// Throws IoError when the file can't be opened or mapped, or is no regular file. An empty file
  /// gives an empty span.
  explicit MappedFile(const std::filesystem::path& path);
  std::span<const std::byte> bytes() const;
  std::string_view text() const;
  const std::filesystem::path& path() const;

 private:
  struct Map;
  std::shared_ptr<const Map> map_;
};

/// Gives back the memory of a map's pages that were read (they stay in the page cache, and come
/// back when read again): what is read once must not count as this process's memory for ever.
void drop_pages(std::span<const std::byte> mapped);

/// Writes to PATH.tmp-PID-N and renames over PATH in commit(), after fsync of file and folder: a
/// reader sees the old file or the new one, never half of one. Without commit() the destructor
/// removes the temporary; those of processes that died are removed by the next save of the same
/// path (processes are looked up on this machine only). A PATH that is a device or a pipe
/// (/dev/null, /dev/stdout) is written directly; a symbolic link is followed.
class AtomicFile {
 public:
  /// Throws IoError, also when PATH is a folder or its folder is missing.
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Throws IoError ("cannot write PATH: No space left on device ...").
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  /// Replaces bytes already written, for a count in a header that is known only at the end.
  void overwrite(int64_t offset, std::span<const std::byte> bytes);
  /// Throws IoError when the bytes can't be made durable; PATH is then as before.
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
};

/// The whole file as a string. Throws IoError.
std::string read_file(const std::filesystem::path& path);
/// Replaces the file atomically. Throws IoError.
void write_file(const std::filesystem::path& path, std::string_view text);

/// A folder that appears only when complete: fill staging(), then commit() swaps it in place of
/// `path` (an older one of that name is removed after the swap, with everything in it). A crash
/// leaves the old folder or the new one. On file systems that can't exchange two folders (NFS) a
/// crash within commit() can leave the old one as PATH.old-PID-N; the next save puts it back.
class AtomicFolder {
 public:
  /// Makes the staging folder beside `path`, and missing parents. Throws IoError, also when `path`
  /// is a file.
  explicit AtomicFolder(std::filesystem::path path);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  const std::filesystem::path& staging() const { return staging_; }
  /// Makes every file in the staging folder durable, then swaps. Throws IoError; `path` is then as
  /// before.
  void commit();

 private:
  std::filesystem::path path_, staging_;
  bool committed_ = false;
};

}  // namespace cadre
