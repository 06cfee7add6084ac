#include "cadre/formats/safetensors.h"

#include <algorithm>
#include <array>
#include <set>
#include <tuple>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"

namespace cadre {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

struct TypeRow {
  DType type;
  std::string_view name;
  int64_t bytes;
};

constexpr std::array kTypes = {TypeRow{DType::kF64, "F64", 8}, TypeRow{DType::kF32, "F32", 4},
                               TypeRow{DType::kF16, "F16", 2}, TypeRow{DType::kBF16, "BF16", 2},
                               TypeRow{DType::kI64, "I64", 8}, TypeRow{DType::kI32, "I32", 4},
                               TypeRow{DType::kI16, "I16", 2}, TypeRow{DType::kI8, "I8", 1},
                               TypeRow{DType::kU8, "U8", 1},   TypeRow{DType::kBool, "BOOL", 1}};

const TypeRow& row_of(DType type) {
  for (const TypeRow& row : kTypes) {
    if (row.type == type) return row;
  }
  throw Error("no such tensor type: {}", static_cast<int>(type));
}

constexpr int64_t kMaxHeader = 100'000'000;  // the reference implementation's limit
constexpr std::string_view kMetadata = "__metadata__";
constexpr const char* kWeights = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

/// The product of the shape and the element's size, or -1 when it does not fit or a size is
/// negative.
int64_t bytes_of(const std::vector<int64_t>& shape, DType type) {
  int64_t bytes = 1;
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(bytes, size, &bytes)) return -1;
  }
  return __builtin_mul_overflow(bytes, size_of(type), &bytes) ? -1 : bytes;
}

/// Reads the fields of one JSON object; every complaint names the file and the tensor.
class Entry {
 public:
  Entry(const json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) throw FormatError("{}: not a JSON object", where_);
  }

  const json& field(const char* name) const {
    const auto found = object_.find(name);
    if (found == object_.end()) throw FormatError("{}: no field '{}'", where_, name);
    return *found;
  }

  DType dtype() const {
    const json& value = field("dtype");
    if (!value.is_string()) throw FormatError("{}: 'dtype' is not a string", where_);
    try {
      return dtype_named(value.get_ref<const std::string&>());
    } catch (const FormatError& error) {
      throw FormatError("{}: {}", where_, error.what());
    }
  }

  /// An array of integers in [0, 2^63).
  std::vector<int64_t> sizes(const char* name) const {
    const json& value = field(name);
    if (!value.is_array()) throw FormatError("{}: '{}' is not an array", where_, name);
    std::vector<int64_t> sizes;
    for (const json& item : value) {
      if (!item.is_number_unsigned() || item.get<uint64_t>() > uint64_t{INT64_MAX}) {
        throw FormatError("{}: '{}' has an element that is no size", where_, name);
      }
      sizes.push_back(static_cast<int64_t>(item.get<uint64_t>()));
    }
    return sizes;
  }

  const std::string& where() const { return where_; }

 private:
  const json& object_;
  std::string where_;
};

/// The JSON text at a file's begin; the tensors' bytes follow it.
std::string_view header_of(const MappedFile& file) {
  const std::string_view all = file.text();
  const std::string& where = file.path().native();
  if (all.size() < 8) {
    throw FormatError("{}: {} bytes are too few for a safetensors file", where, all.size());
  }
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<uint8_t>(all[i]);
  if (length > uint64_t{kMaxHeader} || length > all.size() - 8) {
    throw FormatError("{}: header length {} runs past the file's {} bytes or the limit of {}",
                      where, length, all.size(), kMaxHeader);
  }
  const std::string_view header = all.substr(8, length);
  if (!header.starts_with('{')) throw FormatError("{}: the header does not begin with '{{'", where);
  return header;
}

struct Placed {
  std::string name;
  TensorView view;
  int64_t begin = 0, end = 0;
};

Placed placed_tensor(const Entry& entry, const std::string& name, std::span<const std::byte> data) {
  Placed tensor{.name = name, .view = {entry.dtype(), entry.sizes("shape"), {}}};
  const std::vector<int64_t> offsets = entry.sizes("data_offsets");
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    throw FormatError("{}: 'data_offsets' is not [begin, end]", entry.where());
  }
  tensor.begin = offsets[0];
  tensor.end = offsets[1];
  if (tensor.end > static_cast<int64_t>(data.size())) {
    throw FormatError("{}: data ends at {}, the file holds {} bytes of data", entry.where(),
                      tensor.end, data.size());
  }
  const int64_t bytes = bytes_of(tensor.view.shape, tensor.view.dtype);
  if (bytes < 0) throw FormatError("{}: 'shape' is too large", entry.where());
  if (bytes != tensor.end - tensor.begin) {
    throw FormatError("{}: shape and dtype need {} bytes, 'data_offsets' gives {}", entry.where(),
                      bytes, tensor.end - tensor.begin);
  }
  tensor.view.bytes = data.subspan(static_cast<size_t>(tensor.begin), static_cast<size_t>(bytes));
  return tensor;
}

/// The tensors must tile the data: no overlap (aliasing is an attack), no hole (a hidden payload).
void check_tiling(std::vector<Placed>& tensors, int64_t data_bytes, const std::string& where) {
  std::sort(tensors.begin(), tensors.end(), [](const Placed& a, const Placed& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  int64_t expected = 0;
  for (const Placed& tensor : tensors) {
    if (tensor.begin != expected) {
      throw FormatError("{}: tensor {} begins at {}, expected {}: data overlaps or has a hole",
                        where, quote(tensor.name), tensor.begin, expected);
    }
    expected = tensor.end;
  }
  if (expected != data_bytes) {
    throw FormatError("{}: tensors end at {}, the file holds {} bytes of data", where, expected,
                      data_bytes);
  }
}

void read_metadata(const json& object, const std::string& where,
                   std::map<std::string, std::string>& metadata) {
  if (!object.is_object()) throw FormatError("{}: '{}' is not an object", where, kMetadata);
  for (const auto& [key, value] : object.items()) {
    if (!value.is_string()) {
      throw FormatError("{}: '{}' holds a value that is no string", where, kMetadata);
    }
    metadata[key] = value.get<std::string>();
  }
}

}  // namespace

int64_t size_of(DType type) { return row_of(type).bytes; }

std::string_view name_of(DType type) { return row_of(type).name; }

DType dtype_named(std::string_view name) {
  for (const TypeRow& row : kTypes) {
    if (row.name == name) return row.type;
  }
  throw FormatError("dtype {} is unknown or not supported", quote(std::string(name)));
}

int64_t TensorView::elements() const { return static_cast<int64_t>(bytes.size()) / size_of(dtype); }

struct SafetensorsReader::State {
  fs::path path;
  std::vector<MappedFile> files;
  std::map<std::string, TensorView> tensors;
  std::map<std::string, std::string> metadata;

  /// Adds a file's tensors and returns their names.
  std::set<std::string> add_file(const fs::path& file_path) {
    const MappedFile& file = files.emplace_back(file_path);
    const std::string& where = file.path().native();
    const std::string_view header = header_of(file);
    const std::span<const std::byte> data = file.bytes().subspan(8 + header.size());
    std::vector<Placed> placed;
    const json parsed = parse_json(header, where);
    for (const auto& [name, value] : parsed.items()) {
      if (name == kMetadata) {
        read_metadata(value, where, metadata);
      } else {
        const Entry entry(value, fmt::format("{}: tensor {}", where, quote(name)));
        placed.push_back(placed_tensor(entry, name, data));
      }
    }
    check_tiling(placed, static_cast<int64_t>(data.size()), where);
    std::set<std::string> names;
    for (Placed& tensor : placed) {
      names.insert(tensor.name);
      if (!tensors.emplace(tensor.name, std::move(tensor.view)).second) {
        throw FormatError("{}: tensor {} is in another shard too", where, quote(tensor.name));
      }
    }
    return names;
  }

  void add_index(const fs::path& index) {
    const std::string& where = index.native();
    const json parsed = parse_json(MappedFile(index).text(), where);
    const Entry entry(parsed, where);
    const json& weight_map = entry.field("weight_map");
    if (!weight_map.is_object()) throw FormatError("{}: 'weight_map' is not an object", where);
    std::map<std::string, std::vector<std::string>> tensors_of;
    for (const auto& [name, shard] : weight_map.items()) {
      if (!shard.is_string()) throw FormatError("{}: shard of {} is no string", where, quote(name));
      tensors_of[shard.get<std::string>()].push_back(name);
    }
    for (const auto& [shard, names] : tensors_of) add_shard(index, shard, names);
  }

  void add_shard(const fs::path& index, const std::string& shard,
                 const std::vector<std::string>& names) {
    const std::string& where = index.native();
    // A path out of the folder would let an index read any file of its user.
    if (shard.empty() || shard == "." || shard == ".." ||
        shard.find_first_of(std::string_view("/\0", 2)) != std::string::npos) {
      throw FormatError("{}: shard {} is not a plain file name", where, quote(shard));
    }
    const fs::path file = index.parent_path() / shard;
    if (!fs::exists(file)) throw FormatError("{}: shard {} is not there", where, quote(shard));
    const std::set<std::string> present = add_file(file);
    for (const std::string& name : names) {
      if (!present.contains(name)) {
        throw FormatError("{}: tensor {} is not in shard {}", where, quote(name), quote(shard));
      }
    }
  }
};

SafetensorsReader::SafetensorsReader(const fs::path& file_or_folder) {
  auto state = std::make_shared<State>();
  std::error_code ignored;
  fs::path path = file_or_folder;
  if (fs::is_directory(path, ignored)) {
    const fs::path weights = path / kWeights, index = path / kIndex;
    path = fs::exists(weights, ignored) || !fs::exists(index, ignored) ? weights : index;
  }
  state->path = path;
  if (path.extension() == ".json") {
    state->add_index(path);
  } else {
    state->add_file(path);
  }
  state_ = std::move(state);
}

const std::map<std::string, TensorView>& SafetensorsReader::tensors() const {
  return state_->tensors;
}

const std::vector<MappedFile>& SafetensorsReader::files() const { return state_->files; }

bool SafetensorsReader::contains(const std::string& name) const {
  return state_->tensors.contains(name);
}

const TensorView& SafetensorsReader::tensor(const std::string& name) const {
  const auto found = state_->tensors.find(name);
  if (found == state_->tensors.end()) {
    throw FormatError("{}: no tensor {}", state_->path.string(), quote(name));
  }
  return found->second;
}

const std::map<std::string, std::string>& SafetensorsReader::metadata() const {
  return state_->metadata;
}

}  // namespace cadre
