#include "cadre/engine/file_reader.h"

#include <fcntl.h>
#include <liburing.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>

#include "cadre/base/error.h"
#include "cadre/base/log.h"
#include "cadre/formats/file.h"

namespace cadre::engine {
namespace {

namespace fs = std::filesystem;

/// An open file, past the page cache if possible.
class ReadFile {
 public:
  explicit ReadFile(const fs::path& path) {
    descriptor_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
    direct_ = descriptor_ >= 0 && takes_direct_reads();
    if (!direct_) open_buffered(path);
  }
  ~ReadFile() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  ReadFile(ReadFile&& other) noexcept
      : descriptor_(std::exchange(other.descriptor_, -1)), direct_(other.direct_) {}
  ReadFile& operator=(ReadFile&&) = delete;

  int descriptor() const { return descriptor_; }
  bool direct() const { return direct_; }
  /// What is in a slot need not be in the page cache, too.
  void forget(const FileRead& read) const {
    if (!direct_) posix_fadvise(descriptor_, read.offset, read.bytes, POSIX_FADV_DONTNEED);
  }

 private:
  /// Some file systems let O_DIRECT open and refuse to read.
  bool takes_direct_reads() const {
    const std::unique_ptr<void, decltype(&std::free)> page(
        std::aligned_alloc(kReadAlignment, kReadAlignment), &std::free);
    return pread(descriptor_, page.get(), kReadAlignment, 0) >= 0;
  }
  void open_buffered(const fs::path& path) {
    if (descriptor_ >= 0) close(descriptor_);
    descriptor_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor_ < 0) throw IoError("cannot open {}: {}", path.string(), std::strerror(errno));
    posix_fadvise(descriptor_, 0, 0, POSIX_FADV_RANDOM);
  }

  int descriptor_ = -1;
  bool direct_ = false;
};

std::vector<ReadFile> open_files(const std::vector<fs::path>& paths) {
  std::vector<ReadFile> files;
  for (const fs::path& path : paths) files.emplace_back(path);
  return files;
}

bool all_direct(const std::vector<ReadFile>& files) {
  return std::all_of(files.begin(), files.end(), [](const ReadFile& f) { return f.direct(); });
}

/// Registered buffers were left out: they would touch and pin the whole cache at the start, are
/// limited by RLIMIT_MEMLOCK, and save some 10 us of a read of 1 MiB in huge pages.
class RingReader final : public FileReader {
 public:
  /// Throws Error when the kernel refuses the ring.
  RingReader(std::vector<ReadFile> files, int in_flight) : files_(std::move(files)) {
    const int status = io_uring_queue_init(static_cast<unsigned>(in_flight), &ring_, 0);
    if (status < 0) throw Error("io_uring refused: {}", std::strerror(-status));
    reads_.reserve(in_flight);
  }
  ~RingReader() override {
    std::vector<FileReadResult> ignored;
    while (in_flight_ > 0) collect(Wait::kYes, ignored);
    io_uring_queue_exit(&ring_);
  }

  void start(std::span<const FileRead> reads) override {
    for (const FileRead& read : reads) {
      io_uring_sqe* entry = io_uring_get_sqe(&ring_);
      if (entry == nullptr) throw Error("more reads in flight than the ring was made for");
      const size_t place = keep(read);
      io_uring_prep_read(entry, files_[read.file].descriptor(), read.to,
                         static_cast<unsigned>(read.bytes), static_cast<uint64_t>(read.offset));
      io_uring_sqe_set_data64(entry, place);
      ++in_flight_;
    }
    const int status = io_uring_submit(&ring_);
    if (status < 0) throw IoError("cannot start reading: {}", std::strerror(-status));
  }

  void collect(Wait wait, std::vector<FileReadResult>& results) override {
    io_uring_cqe* entry = nullptr;
    if (wait == Wait::kYes && in_flight_ > 0) {
      int status;
      do status = io_uring_wait_cqe(&ring_, &entry);
      while (status == -EINTR);
      if (status < 0) throw IoError("cannot wait for a read: {}", std::strerror(-status));
    }
    while (in_flight_ > 0 && io_uring_peek_cqe(&ring_, &entry) == 0) {
      const size_t place = io_uring_cqe_get_data64(entry);
      results.push_back({.tag = reads_[place].tag, .got = entry->res});
      files_[reads_[place].file].forget(reads_[place]);
      io_uring_cqe_seen(&ring_, entry);
      free_.push_back(place);
      --in_flight_;
    }
  }

  std::string_view name() const override {
    return all_direct(files_) ? "io_uring, direct" : "io_uring through the page cache";
  }

 private:
  size_t keep(const FileRead& read) {
    if (free_.empty()) {
      reads_.push_back(read);
      return reads_.size() - 1;
    }
    const size_t place = free_.back();
    free_.pop_back();
    reads_[place] = read;
    return place;
  }

  std::vector<ReadFile> files_;
  io_uring ring_;
  std::vector<FileRead> reads_;
  std::vector<size_t> free_;
  int64_t in_flight_ = 0;
};

class ThreadReader final : public FileReader {
 public:
  ThreadReader(std::vector<ReadFile> files, int threads) : files_(std::move(files)) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }
  ~ThreadReader() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void start(std::span<const FileRead> reads) override {
    {
      const std::lock_guard lock(mutex_);
      queue_.insert(queue_.end(), reads.begin(), reads.end());
    }
    in_flight_ += static_cast<int64_t>(reads.size());
    wake_.notify_all();
  }

  void collect(Wait wait, std::vector<FileReadResult>& results) override {
    if (in_flight_ == 0) return;
    std::unique_lock lock(mutex_);
    if (wait == Wait::kYes) arrived_.wait(lock, [this] { return !done_.empty(); });
    results.insert(results.end(), done_.begin(), done_.end());
    in_flight_ -= static_cast<int64_t>(done_.size());
    done_.clear();
  }

  std::string_view name() const override {
    return all_direct(files_) ? "pread threads, direct" : "pread threads through the page cache";
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      const FileRead read = queue_.front();
      queue_.pop_front();
      lock.unlock();
      const int64_t got = run(read);
      lock.lock();
      done_.push_back({.tag = read.tag, .got = got});
      arrived_.notify_one();
    }
  }

  int64_t run(const FileRead& read) const {
    const ReadFile& file = files_[read.file];
    ssize_t got;
    do got = pread(file.descriptor(), read.to, read.bytes, read.offset);
    while (got < 0 && errno == EINTR);
    const int64_t result = got < 0 ? -errno : got;
    file.forget(read);
    return result;
  }

  const std::vector<ReadFile> files_;
  std::mutex mutex_;  ///< guards the two queues and stopping_
  std::condition_variable wake_, arrived_;
  std::deque<FileRead> queue_;
  std::vector<FileReadResult> done_;
  bool stopping_ = false;
  int64_t in_flight_ = 0;  ///< the caller's
  std::vector<std::thread> threads_;
};

class MappedReader final : public FileReader {
 public:
  explicit MappedReader(const std::vector<fs::path>& paths) {
    for (const fs::path& path : paths) maps_.emplace_back(path);
  }

  /// The kernel reads ahead while the caller computes; the copy is made when it is waited for.
  void start(std::span<const FileRead> reads) override {
    for (const FileRead& read : reads) {
      const std::span<const std::byte> bytes = part(read);
      if (!bytes.empty())
        madvise(const_cast<std::byte*>(bytes.data()), bytes.size(), MADV_WILLNEED);
      queue_.push_back(read);
    }
  }

  void collect(Wait, std::vector<FileReadResult>& results) override {
    if (queue_.empty()) return;
    const FileRead read = queue_.front();
    queue_.pop_front();
    const std::span<const std::byte> bytes = part(read);
    std::copy(bytes.begin(), bytes.end(), read.to);
    drop_pages(bytes);
    results.push_back({.tag = read.tag, .got = static_cast<int64_t>(bytes.size())});
  }

  std::string_view name() const override { return "memory map"; }

 private:
  std::span<const std::byte> part(const FileRead& read) const {
    const std::span<const std::byte> bytes = maps_[read.file].bytes();
    const auto size = static_cast<int64_t>(bytes.size());
    const int64_t begin = std::min(read.offset, size);
    return bytes.subspan(begin, std::min(read.bytes, size - begin));
  }

  std::vector<MappedFile> maps_;
  std::deque<FileRead> queue_;
};

}  // namespace

std::unique_ptr<FileReader> open_file_reader(const std::vector<fs::path>& paths, ReadMethod method,
                                             int in_flight) {
  if (method == ReadMethod::kMapped) return std::make_unique<MappedReader>(paths);
  if (method == ReadMethod::kRing) {
    try {
      return std::make_unique<RingReader>(open_files(paths), in_flight);
    } catch (const IoError&) {
      throw;
    } catch (const Error& error) {
      logger().debug("{}: reading by threads instead", error.what());
    }
  }
  return std::make_unique<ThreadReader>(open_files(paths), in_flight);
}

}  // namespace cadre::engine
