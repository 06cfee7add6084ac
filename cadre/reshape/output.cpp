#include "cadre/reshape/output.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <system_error>

#include "cadre/base/error.h"
#include "cadre/base/units.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"
#include "cadre/formats/safetensors_layout.h"

namespace cadre::reshape {
namespace {

namespace fs = std::filesystem;

/// Written bytes after which the disk is told to begin with them.
constexpr int64_t kFlushBytes = int64_t{16} << 20;
constexpr const char* kJournalHead = "cadre reshape journal 1 ";

[[noreturn]] void throw_io(const char* what, const fs::path& path) {
  throw IoError("cannot {} {}: {}", what, path.string(), std::generic_category().message(errno));
}

int open_or_throw(const fs::path& path, int flags) {
  const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  if (descriptor < 0) throw_io("write", path);
  return descriptor;
}

void write_at(int descriptor, const fs::path& path, std::span<const std::byte> bytes,
              int64_t offset) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(descriptor, bytes.data(), bytes.size(), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw_io("write", path);
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += written;
  }
}

void check_replaceable(const fs::path& folder) {
  if (!fs::exists(folder)) return;
  if (!fs::is_directory(folder)) throw UsageError("{}: is a file, not a folder", folder.string());
  bool empty = true;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") return;
    empty = false;
  }
  if (!empty)
    throw UsageError("{}: holds other files than a checkpoint's; choose a new folder",
                     folder.string());
}

int64_t allocated(const fs::path& path) {
  struct stat status = {};
  return ::stat(path.c_str(), &status) == 0 ? int64_t{status.st_blocks} * 512 : 0;
}

}  // namespace

OpenFile::~OpenFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

OutputFolder::OutputFolder(fs::path folder, const OutputLayout& layout) {
  folder_ = fs::absolute(folder).lexically_normal();
  if (!folder_.has_filename()) folder_ = folder_.parent_path();
  check_replaceable(folder_);
  work_ = folder_.parent_path() / fmt::format(".{}.reshape", folder_.filename().string());
  lay_out(layout);
  std::error_code error;
  fs::create_directories(folder_.parent_path(), error);
  if (error) throw IoError("cannot write {}: {}", folder_.string(), error.message());
  check_room();
  fs::create_directory(work_, error);
  if (error) throw IoError("cannot write {}: {}", work_.string(), error.message());
  take_lock();
  read_journal(layout.identity);
  open_shards();
}

void OutputFolder::lay_out(const OutputLayout& layout) {
  std::vector<TensorSpec> tensors = layout.tensors;
  // Wide types first: every tensor stays aligned.
  std::stable_sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return size_of(a.dtype) > size_of(b.dtype);
  });
  safetensors_head(tensors, {});  // complains about names that repeat across shards
  const auto shards = cut_shards(std::move(tensors), layout.shard_bytes);
  for (size_t i = 0; i < shards.size(); ++i) {
    Shard shard = {.path = staging() / shard_name(layout.stem, i, shards.size()),
                   .head = safetensors_head(shards[i], layout.metadata)};
    shard.bytes = static_cast<int64_t>(shard.head.size());
    for (const TensorSpec& tensor : shards[i]) {
      places_[tensor.name] = {i, shard.bytes};
      int64_t bytes = size_of(tensor.dtype);
      for (const int64_t size : tensor.shape) bytes *= size;
      shard.bytes += bytes;
    }
    shards_.push_back(std::move(shard));
  }
  if (shards.size() > 1)
    small_files_[layout.stem + ".safetensors.index.json"] = shard_index_json(layout.stem, shards);
}

void OutputFolder::check_room() const {
  int64_t needed = 0;
  for (const Shard& shard : shards_)
    needed += std::max<int64_t>(0, shard.bytes - allocated(shard.path));
  const fs::space_info space = fs::space(folder_.parent_path());
  if (static_cast<uint64_t>(needed) > space.available)
    throw IoError("cannot write {}: {} are needed, its disk has {} left", folder_.string(),
                  format_bytes(static_cast<uint64_t>(needed)), format_bytes(space.available));
}

void OutputFolder::take_lock() {
  lock_ = OpenFile(open_or_throw(work_ / "lock", O_RDWR | O_CREAT));
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) == 0) return;
  throw IoError("cannot write {}: another run is writing it", folder_.string());
}

void OutputFolder::read_journal(const std::string& identity) {
  const fs::path path = work_ / "journal";
  const std::string head = kJournalHead + identity + "\n";
  std::string text = fs::exists(path) ? read_file(path) : "";
  const bool ours = text.starts_with(head) && fs::is_directory(staging());
  if (!ours) {
    fs::remove_all(staging());
    fs::create_directory(staging());
    write_file(path, head);
    text = head;
  }
  // A line that was cut short has no end: its step is done again.
  const size_t whole = text.rfind('\n') + 1;
  const char* at = text.data() + head.size();
  const char* end = text.data() + whole;
  while (at < end) {
    int64_t step = -1;
    const auto [after, error] = std::from_chars(at, end, step);
    if (error != std::errc() || after == end || *after != '\n')
      throw FormatError("{}: is damaged; remove the folder {} to begin again", path.string(),
                        work_.string());
    finished_.insert(step);
    at = after + 1;
  }
  journal_ = OpenFile(open_or_throw(path, O_WRONLY));
  if (::ftruncate(journal_.get(), static_cast<off_t>(whole)) != 0) throw_io("write", path);
  if (::lseek(journal_.get(), 0, SEEK_END) < 0) throw_io("write", path);
}

void OutputFolder::open_shards() {
  for (Shard& shard : shards_) {
    shard.file = OpenFile(open_or_throw(shard.path, O_WRONLY | O_CREAT));
    if (::ftruncate(shard.file.get(), static_cast<off_t>(shard.bytes)) != 0)
      throw_io("write", shard.path);
    write_at(shard.file.get(), shard.path, std::as_bytes(std::span(shard.head)), 0);
  }
  for (const auto& [name, text] : small_files_) write_file(staging() / name, text);
}

void OutputFolder::write(const std::string& tensor, int64_t offset,
                         std::span<const std::byte> bytes) {
  const Place& place = places_.at(tensor);
  const Shard& shard = shards_[place.shard];
  write_at(shard.file.get(), shard.path, bytes, place.offset + offset);
  // The disk begins now, not when note() waits for it. Where this is not to be had, nothing is
  // lost.
  const int64_t before = written_.fetch_add(static_cast<int64_t>(bytes.size()));
  if (before / kFlushBytes != (before + static_cast<int64_t>(bytes.size())) / kFlushBytes)
    ::sync_file_range(shard.file.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
}

void OutputFolder::note(std::span<const int64_t> steps) {
  if (steps.empty()) return;
  for (const Shard& shard : shards_)
    if (::fdatasync(shard.file.get()) != 0) throw_io("write", shard.path);
  std::string lines;
  for (const int64_t step : steps) lines += fmt::format("{}\n", step);
  if (::write(journal_.get(), lines.data(), lines.size()) != static_cast<ssize_t>(lines.size()) ||
      ::fdatasync(journal_.get()) != 0)
    throw_io("write", work_ / "journal");
}

void OutputFolder::commit() {
  for (Shard& shard : shards_) shard.file = OpenFile();
  AtomicFolder target(folder_);
  fs::remove(target.staging());
  fs::rename(staging(), target.staging());
  target.commit();
  fs::remove_all(work_);
}

}  // namespace cadre::reshape
