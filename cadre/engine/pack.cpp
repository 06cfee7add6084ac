#include "cadre/engine/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "cadre/base/error.h"
#include "cadre/engine/file_reader.h"
#include "cadre/formats/file.h"
#include "cadre/kernels/blocks.h"

namespace cadre::engine {
namespace {

constexpr const char* kVersionKey = "cadre.pack.version";
constexpr const char* kTypesKey = "cadre.pack.types";
constexpr const char* kShapeKey = "cadre.pack.shape";
constexpr const char* kChecksums = "cadre.pack.checksums";
/// What a model may have at most; more is an attack on our memory.
constexpr int64_t kMaxLayers = 4096, kMaxExperts = 1 << 20, kMaxWidth = 1 << 20;

/// Reads the fields of one pack, all of them suspect.
class PackReader {
 public:
  PackReader(std::span<const std::byte> bytes, const GgufReader& gguf, const std::string& where)
      : bytes_(bytes), gguf_(gguf), where_(where) {}

  ExpertFiles read() {
    if (gguf_.integer(kVersionKey) != kPackVersion)
      fail(kVersionKey, fmt::format("is {}, this program reads {}: pack the model again",
                                    gguf_.integer(kVersionKey), kPackVersion));
    const auto shape = gguf_.integers(kShapeKey);
    if (shape.size() != 2 || shape[0] < 1 || shape[1] < 1 || shape[0] > kMaxWidth ||
        shape[1] > kMaxWidth)
      fail(kShapeKey, "must be two sizes");
    const auto& types = gguf_.strings(kTypesKey);
    const auto layers = static_cast<int64_t>(types.size() / kExpertMatrices);
    if (types.empty() || types.size() % kExpertMatrices != 0 || layers > kMaxLayers)
      fail(kTypesKey, "must name three types a layer");
    files_.form = ExpertFiles::Form::kPanels;
    files_.layers.resize(layers);
    for (int64_t layer = 0; layer < layers; ++layer)
      lay_out_layer(layer, std::span(types).subspan(layer * kExpertMatrices, kExpertMatrices),
                    shape[0], shape[1]);
    find_experts();
    read_checksums();  // their bytes are there: so many experts may be believed
    files_.parts.resize(files_.grid.size());
    for (int64_t layer = 0; layer < layers; ++layer)
      if (files_.layers[layer].bytes > 0) add_records(layer);
    return std::move(files_);
  }

 private:
  [[noreturn]] void fail(const std::string& field, const std::string& what) const {
    throw FormatError("{}: {} {}", where_, field, what);
  }

  const GgufTensor& tensor(const std::string& name) const {
    const GgufTensor* found = gguf_.find_tensor(name);
    if (found == nullptr) fail(name, "is missing");
    return *found;
  }

  static std::string records_name(int64_t layer) {
    return fmt::format("blk.{}.ffn_panels_exps.weight", layer);
  }

  void lay_out_layer(int64_t layer, std::span<const std::string_view> types, int64_t inner,
                     int64_t hidden) {
    if (types[0].empty() && types[1].empty() && types[2].empty()) return;
    LayerLayout& layout = files_.layers[layer];
    for (size_t m = 0; m < kExpertMatrices; ++m) {
      const bool down = m == static_cast<size_t>(ExpertMatrix::kDown);
      MatrixLayout& matrix = layout.matrices[m];
      matrix.type = type_of(types[m]);
      matrix.stored = matrix.type;
      matrix.rows = down ? hidden : inner;
      matrix.columns = down ? inner : hidden;
      if (matrix.columns % kernels::block_info(matrix.type).elements != 0)
        fail(kShapeKey, fmt::format("does not fill blocks of {}", types[m]));
    }
    lay_out(layout);
  }

  kernels::BlockType type_of(std::string_view name) const {
    try {
      return kernels::block_type_named(name);
    } catch (const UsageError& error) {
      fail(kTypesKey, error.what());
    }
  }

  /// Every layer's records say how many experts there are; they must agree.
  void find_experts() {
    const auto layers = static_cast<int64_t>(files_.layers.size());
    int64_t experts = 0;
    for (int64_t layer = 0; layer < layers && experts == 0; ++layer) {
      if (files_.layers[layer].bytes == 0) continue;
      const std::vector<int64_t>& dims = tensor(records_name(layer)).dims;
      if (dims.size() != 2) fail(records_name(layer), "must have two dimensions");
      experts = dims.back();
    }
    if (experts < 1 || experts > kMaxExperts) fail(kTypesKey, "names no layer with experts");
    files_.grid = {.layers = layers, .experts = experts};
  }

  void add_records(int64_t layer) {
    const std::string name = records_name(layer);
    const GgufTensor& records = tensor(name);
    const LayerLayout& layout = files_.layers[layer];
    if (records.dims != std::vector<int64_t>{layout.bytes, files_.grid.experts} ||
        static_cast<int64_t>(records.bytes.size()) != layout.bytes * files_.grid.experts)
      fail(name,
           fmt::format("must hold {} records of {} bytes", files_.grid.experts, layout.bytes));
    const int64_t begin = records.bytes.data() - bytes_.data();
    if (begin % kReadAlignment != 0) fail(name, "does not begin at a multiple of 4096");
    const int64_t split = layout.matrices[static_cast<size_t>(ExpertMatrix::kDown)].offset;
    for (int64_t expert = 0; expert < files_.grid.experts; ++expert) {
      const int64_t at = begin + expert * layout.bytes;
      auto& parts = files_.parts[files_.grid.id(layer, expert)];
      parts[0] = {.file = 0, .offset = at, .bytes = split};
      parts[1] = {.file = 0, .offset = at + split, .bytes = layout.bytes - split};
    }
  }

  void read_checksums() {
    const GgufTensor& checksums = tensor(kChecksums);
    const auto count = static_cast<size_t>(files_.grid.size());
    if (checksums.bytes.size() != count * sizeof(uint32_t))
      fail(kChecksums, fmt::format("must hold {} numbers", count));
    files_.checksums.resize(count);
    std::memcpy(files_.checksums.data(), checksums.bytes.data(), checksums.bytes.size());
  }

  std::span<const std::byte> bytes_;
  const GgufReader& gguf_;
  const std::string& where_;
  ExpertFiles files_;
};

/// The records' sizes are keys of their own: they must say what the model's keys say.
void check_model(const ExpertFiles& files, const TensorSource& source) {
  const ModelSpec& spec = source.spec();
  const auto fail = [&](const char* key) {
    throw FormatError("{}: {} does not fit the model's own keys: pack the model again",
                      source.where(), key);
  };
  if (files.grid.layers != spec.layers || files.grid.experts != spec.experts) fail(kTypesKey);
  for (int64_t layer = 0; layer < spec.layers; ++layer) {
    const LayerLayout& layout = files.layers[layer];
    if ((layout.bytes > 0) != spec.has_experts(layer)) fail(kTypesKey);
    const MatrixLayout& gate = layout.matrices.front();
    const bool fits = gate.rows == spec.expert_intermediate && gate.columns == spec.hidden;
    if (layout.bytes > 0 && !fits) fail(kShapeKey);
  }
}

}  // namespace

bool is_pack(const GgufReader& gguf) { return gguf.contains(kVersionKey); }

bool is_pack(const TensorSource& source) {
  const std::vector<std::string> names = source.names();
  return std::find(names.begin(), names.end(), kChecksums) != names.end();
}

ExpertFiles read_pack(std::span<const std::byte> bytes, const std::string& where) {
  const GgufReader gguf(bytes, where);
  if (!is_pack(gguf))
    throw FormatError("{}: is a GGUF file but no pack; `cadre pack` makes one of it", where);
  return PackReader(bytes, gguf, where).read();
}

ExpertFiles read_pack(const std::filesystem::path& path) {
  const MappedFile map(path);
  ExpertFiles files = read_pack(map.bytes(), path.string());
  files.paths = {path};
  return files;
}

ExpertFiles open_expert_files(const TensorSource& source, const PackedType& packed_type) {
  if (source.spec().experts == 0) return {};
  if (!is_pack(source)) return find_expert_files(source, packed_type);
  ExpertFiles files = read_pack(source.files().front());
  check_model(files, source);
  return files;
}

}  // namespace cadre::engine
