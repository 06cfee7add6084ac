#pragma once

/// Where an operation reads: a checkpoint directory, or what another plan would write (chained
/// plans compute their inputs tile by tile; the intermediate never touches the disk).

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cadre/formats/safetensors.h"
#include "cadre/reshape/schema.h"

namespace cadre::reshape {

class Checkpoint {
 public:
  virtual ~Checkpoint() = default;
  virtual const Schema& schema() const = 0;
  /// What errors call it.
  const std::string& where() const { return schema().where(); }
  /// The directory whose tokenizer and the like go along.
  virtual const std::filesystem::path& folder() const = 0;
  /// 16 hex digits over config, tensor table and the first 4 KiB of every tensor: finds a changed
  /// input without reading all of it.
  virtual std::string fingerprint() const = 0;
  /// Elements [first, first + count) as they are stored. The span is a view of the file or of
  /// `buffer`; call drop() after use. Any thread may call it.
  virtual std::span<const std::byte> bytes(const SchemaTensor& tensor, int64_t first, int64_t count,
                                           std::vector<std::byte>& buffer) const = 0;
  /// Gives those elements' pages back, so that resident memory stays in the budget.
  virtual void drop(const SchemaTensor& /*tensor*/, int64_t /*first*/, int64_t /*count*/) const {}
  /// Memory that one call of bytes() works in, beside its buffer.
  virtual int64_t working_bytes() const { return 0; }
  /// Every folder that is read.
  virtual std::vector<std::filesystem::path> sources() const { return {folder()}; }
};

using CheckpointPtr = std::shared_ptr<const Checkpoint>;

/// A directory (config.json, *.safetensors), or a directory of weights without config.json. Throws
/// IoError, FormatError.
CheckpointPtr open_checkpoint(const std::filesystem::path& folder);

/// A tensor's values from `first` on, as float32. Throws UsageError that names checkpoint and
/// tensor for a NaN or an infinity, or a type that is no floating-point one.
void read_values(const Checkpoint& checkpoint, const SchemaTensor& tensor, int64_t first,
                 std::span<float> values);
/// All of it.
std::vector<float> read_values(const Checkpoint& checkpoint, const SchemaTensor& tensor);

/// 16 hex digits over all bytes of all tensors (xxHash, in parallel, in streams): the identity of a
/// delta's base.
std::string content_hash(const Checkpoint& checkpoint);

}  // namespace cadre::reshape
