#pragma once

/// GGUF files (version 2 and 3, little-endian): key-values, then tensor infos, then the aligned
/// tensor data. Reading makes no copies; every length is checked against the file before it is
/// believed.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"

namespace cadre {

/// Types of metadata values, as numbered in the file.
enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

/// An array of one type: numbers as they lie in the file, strings as views, or arrays again.
struct GgufArray {
  GgufType type = GgufType::kU8;
  uint64_t size = 0;
  std::span<const std::byte> numbers;     ///< when the type has a fixed size
  std::vector<std::string_view> strings;  ///< when kString
  std::vector<GgufArray> arrays;          ///< when kArray
};

using GgufValue = std::variant<uint64_t, int64_t, double, bool, std::string_view, GgufArray>;

/// How a tensor's numbers are stored: blocks of `elements` numbers in `bytes` bytes.
struct GgufTensorType {
  uint32_t id;
  const char* name;
  int64_t elements, bytes;
};
/// By its number in the file, or by name in any case; null when there is none.
const GgufTensorType* find_gguf_tensor_type(uint32_t id);
const GgufTensorType* find_gguf_tensor_type(std::string_view name);

/// A value as it lies in the file, for copying it to another one.
struct GgufRawValue {
  GgufType type;
  std::span<const std::byte> bytes;
};

struct GgufTensor {
  std::string name;
  std::vector<int64_t> dims;  ///< the fastest-varying first, as in the file; at most 4
  GgufTensorType type;
  uint64_t offset = 0;               ///< from the start of the data section
  std::span<const std::byte> bytes;  ///< lies inside the file
};

/// Views into the file: valid as long as the reader (or a copy of it) lives.
class GgufReader {
 public:
  /// Throws IoError (missing) or FormatError that names the file and the field: wrong magic or
  /// version, counts and lengths beyond the file, unknown types, nesting beyond 4, repeated names,
  /// dimensions that overflow or do not fit the type's blocks, tensors that are unaligned or run
  /// past the end.
  explicit GgufReader(const std::filesystem::path& path);
  /// The same from memory, which must outlive the reader; `where` names it in errors.
  GgufReader(std::span<const std::byte> bytes, const std::string& where);

  uint32_t version() const { return version_; }
  const std::map<std::string, GgufValue>& metadata() const { return metadata_; }
  bool contains(const std::string& key) const { return metadata_.contains(key); }
  /// The same values unread.
  const std::map<std::string, GgufRawValue>& raw_metadata() const { return raw_metadata_; }
  /// Typed access. Throws FormatError when the key is missing or of another type.
  int64_t integer(const std::string& key) const;
  double number(const std::string& key) const;
  bool flag(const std::string& key) const;
  std::string_view text(const std::string& key) const;
  const std::vector<std::string_view>& strings(const std::string& key) const;
  /// An array of integers of any width; throws when one does not fit int64.
  std::vector<int64_t> integers(const std::string& key) const;
  /// An array of floating-point numbers.
  std::vector<float> numbers(const std::string& key) const;

  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  /// Null when there is no such tensor.
  const GgufTensor* find_tensor(const std::string& name) const;

 private:
  const GgufValue& value(const std::string& key) const;
  void read(std::span<const std::byte> bytes);

  std::optional<MappedFile> file_;
  std::string where_;
  uint32_t version_ = 0;
  std::map<std::string, GgufValue> metadata_;
  std::map<std::string, GgufRawValue> raw_metadata_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, size_t> tensor_index_;
};

}  // namespace cadre
