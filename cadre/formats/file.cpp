#include "cadre/formats/file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <system_error>

#include "cadre/base/error.h"

namespace cadre {

namespace fs = std::filesystem;

namespace {

[[noreturn]] void throw_io(std::string_view action, const fs::path& path, int error) {
  throw IoError("cannot {} {}: {}", action, path.string(), std::generic_category().message(error));
}

/// A descriptor that closes itself; reading has no errors worth reporting at close.
class Descriptor {
 public:
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  ~Descriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

/// Opens for reading. O_NONBLOCK, so that opening a pipe nobody writes to does not hang.
int open_to_read(const fs::path& path, int flags) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | flags);
  if (descriptor < 0) throw_io("open", path, errno);
  return descriptor;
}

void write_all(int descriptor, const fs::path& path, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw_io("write", path, errno);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

/// Devices and pipes have nothing to sync and say EINVAL or EROFS.
void sync(int descriptor, const fs::path& path) {
  if (::fsync(descriptor) != 0 && errno != EINVAL && errno != EROFS) throw_io("write", path, errno);
}

void sync_path(const fs::path& path) {
  const Descriptor descriptor(open_to_read(path, O_NONBLOCK));
  sync(descriptor.get(), path);
}

/// Makes a folder's files and folders durable, itself last.
void sync_tree(const fs::path& folder) {
  std::error_code error;
  for (const auto& entry : fs::recursive_directory_iterator(folder, error)) {
    const fs::file_status status = entry.symlink_status(error);
    if (fs::is_regular_file(status) || fs::is_directory(status)) sync_path(entry.path());
  }
  if (error) throw_io("read", folder, error.value());
  sync_path(folder);
}

/// The folder that holds `path`; a plain name lies in the current one.
fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

/// Follows symbolic links and drops "." and trailing slashes, so that a rename hits the real thing.
fs::path resolve(const fs::path& path) {
  std::error_code error;
  fs::path resolved = fs::weakly_canonical(path, error);
  if (error) resolved = path;
  if (!resolved.has_filename()) resolved = resolved.parent_path();
  if (!resolved.has_filename()) throw IoError("cannot write {}: not a usable name", path.string());
  return resolved;
}

constexpr std::string_view kTemporary = ".tmp-";
constexpr std::string_view kReplaced = ".old-";

fs::path beside(const fs::path& path, std::string_view kind) {
  static std::atomic<int> serial{0};
  return path.string() + fmt::format("{}{}-{}", kind, ::getpid(), serial++);
}

/// Whether `name` is NAME + kind + PID-N of a process that no longer runs.
bool is_left_behind(std::string_view name, std::string_view of, std::string_view kind) {
  if (!name.starts_with(of) || !name.substr(of.size()).starts_with(kind)) return false;
  name.remove_prefix(of.size() + kind.size());
  pid_t process = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), process);
  if (error != std::errc() || process <= 0 || end == name.data() + name.size() || *end != '-') {
    return false;
  }
  return ::kill(process, 0) != 0 && errno == ESRCH;
}

/// Removes what killed saves of `path` left; a folder that such a save had moved away is put back.
void clean_up_after_the_dead(const fs::path& path) {
  const std::string name = path.filename().string();
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder_of(path), ignored)) {
    const std::string found = entry.path().filename().string();
    if (is_left_behind(found, name, kReplaced) && !fs::exists(path, ignored)) {
      fs::rename(entry.path(), path, ignored);
    } else if (is_left_behind(found, name, kTemporary) || is_left_behind(found, name, kReplaced)) {
      fs::remove_all(entry.path(), ignored);
    }
  }
}

/// Swaps two folders in one step where the file system can, else in two.
void exchange_folders(const fs::path& staging, const fs::path& path) {
  if (::renameat2(AT_FDCWD, staging.c_str(), AT_FDCWD, path.c_str(), RENAME_EXCHANGE) == 0) return;
  if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP) throw_io("replace", path, errno);
  const fs::path replaced = beside(path, kReplaced);
  if (::rename(path.c_str(), replaced.c_str()) != 0) throw_io("replace", path, errno);
  if (::rename(staging.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::rename(replaced.c_str(), path.c_str());
    throw_io("replace", path, error);
  }
  ::rename(replaced.c_str(), staging.c_str());
}

}  // namespace

struct MappedFile::Map {
  fs::path path;
  void* data = nullptr;
  size_t size = 0;

  explicit Map(const fs::path& file) : path(file) {
    const Descriptor descriptor(open_to_read(path, O_NONBLOCK));
    struct stat status;
    if (::fstat(descriptor.get(), &status) != 0) throw_io("read", path, errno);
    if (S_ISDIR(status.st_mode)) throw_io("read", path, EISDIR);
    if (!S_ISREG(status.st_mode)) throw IoError("cannot map {}: not a regular file", path.string());
    if (status.st_size == 0) return;
    void* mapped = ::mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ, MAP_SHARED,
                          descriptor.get(), 0);
    if (mapped == MAP_FAILED) throw_io("map", path, errno);
    data = mapped;
    size = static_cast<size_t>(status.st_size);
  }
  ~Map() {
    if (data != nullptr) ::munmap(data, size);
  }
  Map(const Map&) = delete;
  Map& operator=(const Map&) = delete;
};

MappedFile::MappedFile(const fs::path& path) : map_(std::make_shared<const Map>(path)) {}

std::span<const std::byte> MappedFile::bytes() const {
  return {static_cast<const std::byte*>(map_->data), map_->size};
}

std::string_view MappedFile::text() const {
  return {static_cast<const char*>(map_->data), map_->size};
}

const fs::path& MappedFile::path() const { return map_->path; }

void drop_pages(std::span<const std::byte> mapped) {
  static const auto kPage = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<uintptr_t>(mapped.data()) / kPage * kPage;
  const auto last = reinterpret_cast<uintptr_t>(mapped.data() + mapped.size());
  if (!mapped.empty()) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

AtomicFile::AtomicFile(fs::path path) : path_(resolve(path)) {
  std::error_code ignored;
  const fs::file_status status = fs::status(path_, ignored);
  if (fs::is_directory(status)) throw_io("write", path_, EISDIR);
  const bool replaces = !fs::exists(status) || fs::is_regular_file(status);
  if (replaces) {
    clean_up_after_the_dead(path_);
    temporary_ = beside(path_, kTemporary);
    descriptor_ =
        ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
  } else {
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
  }
  if (descriptor_ < 0) throw_io("write", path_, errno);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) { write_all(descriptor_, path_, bytes); }

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void AtomicFile::overwrite(int64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(descriptor_, bytes.data(), bytes.size(), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw_io("write", path_, errno);
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += written;
  }
}

void AtomicFile::commit() {
  sync(descriptor_, path_);
  // Network file systems report a full disk only here.
  const int closed = ::close(std::exchange(descriptor_, -1));
  if (closed != 0 && errno != EINTR) throw_io("write", path_, errno);
  if (temporary_.empty()) return;
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) throw_io("replace", path_, errno);
  temporary_.clear();
  sync_path(folder_of(path_));
}

std::string read_file(const fs::path& path) {
  const Descriptor descriptor(open_to_read(path, 0));
  struct stat status;
  if (::fstat(descriptor.get(), &status) != 0) throw_io("read", path, errno);
  // One byte more than there is, so that the read that finds the end needs no more room.
  std::string text(static_cast<size_t>(status.st_size) + 1, '\0');
  size_t size = 0;
  while (true) {
    const ssize_t got = ::read(descriptor.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_io("read", path, errno);
    if (got == 0) break;
    size += static_cast<size_t>(got);
    if (size == text.size()) text.resize(2 * size);
  }
  text.resize(size);
  return text;
}

void write_file(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

AtomicFolder::AtomicFolder(fs::path path) : path_(resolve(path)) {
  std::error_code error;
  const fs::file_status status = fs::status(path_, error);
  if (fs::exists(status) && !fs::is_directory(status)) throw_io("write folder", path_, ENOTDIR);
  fs::create_directories(folder_of(path_), error);
  if (error) throw_io("write", path_, error.value());
  clean_up_after_the_dead(path_);
  staging_ = beside(path_, kTemporary);
  fs::remove_all(staging_, error);
  if (!fs::create_directory(staging_, error)) throw_io("write", path_, error.value());
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  fs::remove_all(staging_, ignored);
}

void AtomicFolder::commit() {
  if (committed_) throw Error("folder {} is committed twice", path_.string());
  sync_tree(staging_);
  std::error_code ignored;
  if (fs::exists(path_, ignored)) {
    exchange_folders(staging_, path_);
  } else if (::rename(staging_.c_str(), path_.c_str()) != 0) {
    throw_io("write", path_, errno);
  }
  committed_ = true;
  sync_path(folder_of(path_));
  fs::remove_all(staging_, ignored);
}

}  // namespace cadre
