#include "cadre/reshape/checkpoint.h"

#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"
#include "cadre/reshape/values.h"

namespace cadre::reshape {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kFingerprintBytes = 4096;
constexpr int64_t kHashTile = int64_t{1} << 20;

nlohmann::json config_of(const fs::path& folder) {
  const fs::path file = folder / "config.json";
  if (!fs::exists(file)) return nlohmann::json::object();
  nlohmann::json config = parse_json(read_file(file), file.string());
  if (!config.is_object()) throw FormatError("{}: must hold a JSON object", file.string());
  return config;
}

/// In the order of the files' bytes, so that operations which follow the schema read forward.
std::vector<TensorInfo> infos_of(const SafetensorsReader& reader) {
  std::vector<std::pair<const std::byte*, TensorInfo>> placed;
  for (const auto& [name, view] : reader.tensors())
    placed.push_back({view.bytes.data(), {name, view.dtype, view.shape}});
  std::stable_sort(placed.begin(), placed.end(),
                   [](const auto& a, const auto& b) { return std::less<>()(a.first, b.first); });
  std::vector<TensorInfo> infos;
  for (auto& [place, info] : placed) infos.push_back(std::move(info));
  return infos;
}

std::string hex(uint64_t number) { return fmt::format("{:016x}", number); }

class Directory : public Checkpoint {
 public:
  explicit Directory(const fs::path& folder)
      : folder_(folder),
        reader_(folder),
        schema_(config_of(folder), infos_of(reader_), folder.string()) {
    for (const SchemaTensor& tensor : schema_.tensors()) {
      const auto bytes = reader_.tensor(tensor.info.name).bytes;
      if (extents_.empty() || extents_.back().data() + extents_.back().size() != bytes.data())
        extents_.push_back(bytes);
      else
        extents_.back() = {extents_.back().data(), extents_.back().size() + bytes.size()};
    }
  }

  const Schema& schema() const override { return schema_; }
  const fs::path& folder() const override { return folder_; }

  std::string fingerprint() const override {
    std::string text = schema_.config().dump(-1, ' ', true);
    for (const auto& [name, view] : reader_.tensors()) {
      const size_t head = std::min<size_t>(view.bytes.size(), kFingerprintBytes);
      text += fmt::format("\n{} {} {} {}", name, name_of(view.dtype), fmt::join(view.shape, ","),
                          hex(XXH3_64bits(view.bytes.data(), head)));
      drop(view.bytes.first(head));
    }
    return hex(XXH3_64bits(text.data(), text.size()));
  }

  std::span<const std::byte> bytes(const SchemaTensor& tensor, int64_t first, int64_t count,
                                   std::vector<std::byte>&) const override {
    const auto range = range_of(tensor, first, count);
#ifdef MADV_POPULATE_READ
    // One call maps what page faults would map in sixteens. Older kernels refuse it: faults then.
    if (!range.empty()) advise(around(range, page()), MADV_POPULATE_READ);
#endif
    return range;
  }

  void drop(const SchemaTensor& tensor, int64_t first, int64_t count) const override {
    drop(range_of(tensor, first, count));
  }

 private:
  std::span<const std::byte> range_of(const SchemaTensor& tensor, int64_t first,
                                      int64_t count) const {
    const TensorView& view = reader_.tensor(tensor.info.name);
    const auto size = static_cast<size_t>(size_of(view.dtype));
    return view.bytes.subspan(static_cast<size_t>(first) * size, static_cast<size_t>(count) * size);
  }

  struct Pages {
    uintptr_t first, last;
  };
  static Pages around(std::span<const std::byte> view, uintptr_t unit) {
    const auto begin = reinterpret_cast<uintptr_t>(view.data());
    return {begin / unit * unit, (begin + view.size() + unit - 1) / unit * unit};
  }
  static uintptr_t page() {
    static const auto kPage = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    return kPage;
  }

  static void advise(const Pages& pages, int advice) {
    madvise(reinterpret_cast<void*>(pages.first), pages.last - pages.first, advice);
  }

  /// A fault maps the 64 KiB around it, too: those pages of neighbours go as well, or half of what
  /// was read would stay (a neighbour still in use is mapped again from the page cache). Never
  /// beyond the file's own tensors: what else stands in memory there is not ours.
  void drop(std::span<const std::byte> view) const {
    constexpr uintptr_t kFaultAround = uintptr_t{64} << 10;
    if (view.empty()) return;
    const auto after = std::upper_bound(
        extents_.begin(), extents_.end(), view.data(),
        [](const std::byte* at, const auto& extent) { return std::less<>()(at, extent.data()); });
    const Pages file = around(*std::prev(after), page());
    const Pages wide = around(view, kFaultAround);
    advise({std::max(wide.first, file.first), std::min(wide.last, file.last)}, MADV_DONTNEED);
  }

  fs::path folder_;
  SafetensorsReader reader_;
  Schema schema_;
  std::vector<std::span<const std::byte>> extents_;  ///< of the files' tensors, by rising address
};

}  // namespace

CheckpointPtr open_checkpoint(const fs::path& folder) {
  if (!fs::exists(folder)) throw IoError("{}: no such file or folder", folder.string());
  if (!fs::is_directory(folder))
    throw UsageError("{}: is no checkpoint folder (config.json, *.safetensors)", folder.string());
  return std::make_shared<Directory>(folder);
}

void read_values(const Checkpoint& checkpoint, const SchemaTensor& tensor, int64_t first,
                 std::span<float> values) {
  const DType type = tensor.info.dtype;
  if (!is_floating(type))
    throw UsageError("{}: tensor {} has type {}, must be a floating-point one", checkpoint.where(),
                     quote(tensor.info.name), name_of(type));
  std::vector<std::byte> buffer;
  const auto bytes = checkpoint.bytes(tensor, first, static_cast<int64_t>(values.size()), buffer);
  decode(type, bytes, values);
  checkpoint.drop(tensor, first, static_cast<int64_t>(values.size()));
  if (!all_finite(values))
    throw UsageError(
        "{}: tensor {} holds a NaN or an infinity: a model with such weights is broken",
        checkpoint.where(), quote(tensor.info.name));
}

std::vector<float> read_values(const Checkpoint& checkpoint, const SchemaTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(elements_of(tensor.info.shape)));
  read_values(checkpoint, tensor, 0, values);
  return values;
}

std::string content_hash(const Checkpoint& checkpoint) {
  struct Part {
    const SchemaTensor* tensor;
    int64_t first, count;
  };
  std::vector<Part> parts;
  std::string table;
  for (const SchemaTensor& tensor : checkpoint.schema().tensors()) {
    const int64_t elements = elements_of(tensor.info.shape);
    table += fmt::format("{} {} {}\n", tensor.info.name, name_of(tensor.info.dtype),
                         fmt::join(tensor.info.shape, ","));
    for (int64_t first = 0; first < elements; first += kHashTile)
      parts.push_back({&tensor, first, std::min(kHashTile, elements - first)});
  }
  std::vector<uint64_t> hashes(parts.size());
  parallel_tasks(static_cast<int64_t>(parts.size()), [&](int64_t i) {
    std::vector<std::byte> buffer;
    const Part& part = parts[static_cast<size_t>(i)];
    const auto bytes = checkpoint.bytes(*part.tensor, part.first, part.count, buffer);
    hashes[static_cast<size_t>(i)] = XXH3_64bits(bytes.data(), bytes.size());
    checkpoint.drop(*part.tensor, part.first, part.count);
  });
  const uint64_t names = XXH3_64bits(table.data(), table.size());
  return hex(XXH3_64bits_withSeed(hashes.data(), hashes.size() * sizeof(uint64_t), names));
}

}  // namespace cadre::reshape
