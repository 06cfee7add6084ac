#pragma once

/// The safetensors format: 8 bytes little-endian header length, a JSON header, then the tensors'
/// bytes. Reading is a memory map without copies; every field of the header is checked before it is
/// believed.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cadre/formats/file.h"

namespace cadre {

enum class DType { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool };

/// Bytes of one element.
int64_t size_of(DType type);
/// The format's name for it: "F32", "BF16", ... and back (throws FormatError for an unknown name).
std::string_view name_of(DType type);
DType dtype_named(std::string_view name);

/// One tensor of an open file: a view into the map, valid as long as the reader (or a copy of it)
/// lives. The format promises no alignment: copy the bytes (memcpy) where the element type needs
/// one.
struct TensorView {
  DType dtype;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
  int64_t elements() const;
};

/// Reads one file, or a folder's `model.safetensors` or `model.safetensors.index.json` with its
/// shards (whose names must be plain file names of the index's own folder).
class SafetensorsReader {
 public:
  /// Throws IoError (missing) or FormatError that names the file and the field: header length
  /// beyond the file or 100 MB, broken JSON, unknown dtype, negative or overflowing shape, size
  /// that does not match shape and dtype, ranges that overlap, leave holes or run past the end,
  /// duplicate names, a shard or tensor that the index names and is not there.
  explicit SafetensorsReader(const std::filesystem::path& file_or_folder);

  const std::map<std::string, TensorView>& tensors() const;
  bool contains(const std::string& name) const;
  /// Throws FormatError when there is no such tensor.
  const TensorView& tensor(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const;
  /// The file, or the shards; every tensor's bytes lie in one of these maps.
  const std::vector<MappedFile>& files() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

struct TensorSpec {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
};

/// Writes one file as a stream, tensor by tensor, in the order declared; atomic like AtomicFile.
/// The data begins at a multiple of 8 bytes; declare wide types first to keep every tensor aligned.
class SafetensorsWriter {
 public:
  /// Throws UsageError for specs that no file can hold (a name twice or not UTF-8, a negative
  /// size).
  SafetensorsWriter(const std::filesystem::path& path, const std::vector<TensorSpec>& tensors,
                    const std::map<std::string, std::string>& metadata = {});
  ~SafetensorsWriter();

  /// The next tensor's bytes; `name` must be the next declared and the size must fit (throws Error
  /// otherwise).
  void write(const std::string& name, std::span<const std::byte> bytes);
  /// All tensors written: makes the file appear. Throws Error when tensors are missing.
  void commit();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Writes a folder's weights: `model.safetensors`, or shards of at most `shard_bytes` (a larger
/// tensor has a shard of its own) with an index. The metadata is {"format": "pt"}, which Hugging
/// Face's transformers wants to see. Files appear at commit(), the index last, and weights of the
/// other form are removed; to replace weights that are in use, write into an AtomicFolder's staging
/// folder.
class ShardedWriter {
 public:
  ShardedWriter(const std::filesystem::path& folder, std::vector<TensorSpec> tensors,
                int64_t shard_bytes = int64_t{5} << 30);
  ~ShardedWriter();
  void write(const std::string& name, std::span<const std::byte> bytes);
  void commit();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cadre
