#pragma once

/// Writing GGUF (version 3, little-endian): keys and tensor table first, then the tensors as a
/// stream.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "cadre/formats/gguf.h"

namespace cadre {

/// A file's key-values in the order they are added.
class GgufKeys {
 public:
  /// A number or truth value under the type it has here (int64_t -> i64, float -> f32 ...).
  /// Throws UsageError for a key that is there already, is empty, or longer than 65535 bytes.
  template <typename T>
  requires std::is_arithmetic_v<T>
  void add(const std::string& key, T value) {
    begin(key, type_of<T>());
    put(value);
  }
  void add(const std::string& key, std::string_view text);
  void add(const std::string& key, const char* text) { add(key, std::string_view(text)); }
  void add(const std::string& key, const std::vector<std::string>& texts);
  template <typename T>
  requires std::is_arithmetic_v<T>
  void add(const std::string& key, std::span<const T> numbers) {
    begin(key, GgufType::kArray);
    put(static_cast<uint32_t>(type_of<T>()));
    put(static_cast<uint64_t>(numbers.size()));
    for (const T number : numbers) put(number);
  }
  /// A value as another file holds it.
  void add(const std::string& key, const GgufRawValue& value);

  bool contains(const std::string& key) const;
  /// Forgets a key; nothing happens when it is not there.
  void remove(const std::string& key);

 private:
  friend struct GgufHead;
  struct Entry {
    std::string key;
    GgufType type;
    std::string bytes;
  };

  template <typename T>
  static constexpr GgufType type_of() {
    if constexpr (std::same_as<T, bool>) return GgufType::kBool;
    if constexpr (std::same_as<T, float>) return GgufType::kF32;
    if constexpr (std::same_as<T, double>) return GgufType::kF64;
    constexpr bool kSigned = std::is_signed_v<T>;
    if constexpr (sizeof(T) == 1) return kSigned ? GgufType::kI8 : GgufType::kU8;
    if constexpr (sizeof(T) == 2) return kSigned ? GgufType::kI16 : GgufType::kU16;
    if constexpr (sizeof(T) == 4) return kSigned ? GgufType::kI32 : GgufType::kU32;
    return kSigned ? GgufType::kI64 : GgufType::kU64;
  }

  void begin(const std::string& key, GgufType type);
  template <typename T>
  void put(T value) {
    entries_.back().bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  void put(std::string_view text);

  std::vector<Entry> entries_;
};

struct GgufTensorSpec {
  std::string name;
  std::vector<int64_t> dims;  ///< the fastest-varying first, 1 to 4
  uint32_t type;              ///< id of a GgufTensorType
};

/// Writes one file tensor by tensor, in the order declared; atomic like AtomicFile. Every tensor
/// begins at a multiple of `general.alignment` (32 unless the keys say otherwise).
class GgufWriter {
 public:
  /// Throws IoError, or UsageError for what no file can hold: a tensor twice, an unknown type, rows
  /// that do not fill whole blocks, dimensions that overflow, an alignment that is no power of two
  /// up to 2^20.
  GgufWriter(const std::filesystem::path& path, const GgufKeys& keys,
             std::vector<GgufTensorSpec> tensors);
  ~GgufWriter();

  /// The next bytes of `name`, which must be the tensor that is due; a large one may come in
  /// several pieces. Throws Error for another name or too many bytes, IoError.
  void write(const std::string& name, std::span<const std::byte> bytes);
  /// All tensors written: makes the file appear. Throws Error when bytes are missing, IoError.
  void commit();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Size of the file that a GgufWriter of these would write. Throws as its constructor does.
int64_t gguf_bytes(const GgufKeys& keys, const std::vector<GgufTensorSpec>& tensors);

/// Bytes of a tensor. Throws UsageError as GgufWriter's constructor does.
int64_t tensor_bytes(const GgufTensorSpec& tensor);

}  // namespace cadre
