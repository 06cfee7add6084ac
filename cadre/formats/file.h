#pragma once

/// Bytes in and out, safely: a mapped file for reading, and a file that appears only when complete.

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace cadre {

/// A read-only memory map of a whole file. Cheap to copy: copies share the map.
class MappedFile {
 public:
  /// Throws IoError when the file can't be opened or mapped. An empty file gives an empty span.
  explicit MappedFile(const std::filesystem::path& path);
  std::span<const std::byte> bytes() const;
  std::string_view text() const;
  const std::filesystem::path& path() const;

 private:
  struct Map;
  std::shared_ptr<const Map> map_;
};

/// Writes to PATH.tmp-PID and renames over PATH in commit(), after fsync of file and folder: a reader sees
/// the old file or the new one, never half of one. Without commit() the destructor removes the temporary.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Throws IoError ("cannot write PATH: No space left on device ...").
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
};

/// The whole file as a string. Throws IoError.
std::string read_file(const std::filesystem::path& path);
/// Replaces the file atomically. Throws IoError.
void write_file(const std::filesystem::path& path, std::string_view text);

/// A folder that appears only when complete: fill staging(), then commit() swaps it in place of `path`
/// (an older one of that name is removed after the swap). A crash leaves the old folder or the new one.
class AtomicFolder {
 public:
  explicit AtomicFolder(std::filesystem::path path);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  const std::filesystem::path& staging() const { return staging_; }
  void commit();

 private:
  std::filesystem::path path_, staging_;
  bool committed_ = false;
};

}  // namespace cadre
