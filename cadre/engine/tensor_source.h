#pragma once

/// A model's tensors, wherever they come from: GGUF files (one or split) or a checkpoint directory.
/// Tensors go by their GGUF names ("blk.3.ffn_gate_exps.weight"); a directory's names are mapped to
/// them.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cadre/engine/model_spec.h"
#include "cadre/formats/tokenizer.h"
#include "cadre/kernels/blocks.h"

namespace cadre::engine {

/// Where a tensor's bytes are. Weights are [rows, columns] with columns contiguous; experts'
/// tensors are [E, rows, columns].
struct SourceTensor {
  std::string name;
  kernels::BlockType type;
  std::vector<int64_t> shape;  ///< outermost first: [E, rows, columns], [rows, columns] or [n]
  std::span<const std::byte> bytes;  ///< in the map
  int file = 0;                      ///< index into files()
  int64_t file_offset = 0;           ///< of the first byte, for direct reads
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;
  virtual const ModelSpec& spec() const = 0;
  virtual const SourceTensor* find(const std::string& name) const = 0;
  /// Throws FormatError that names the tensor and the file.
  const SourceTensor& require(const std::string& name) const;
  virtual const std::vector<std::filesystem::path>& files() const = 0;
  /// The chat template (Jinja text), when there is one.
  virtual std::optional<std::string> chat_template() const = 0;
  /// A directory stores each expert as a tensor of its own: the slices of
  /// "blk.L.ffn_{gate,up,down}_exps.weight" one by one.
  virtual SourceTensor expert_slice(const std::string& stacked_name, int64_t expert) const = 0;
  /// 16 hex digits over spec, tensor table and file sizes: names caches and snapshots.
  virtual std::string fingerprint() const = 0;
};

/// Opens a .gguf file (finding its other parts when split) or a checkpoint directory. Throws
/// IoError, FormatError.
std::unique_ptr<TensorSource> open_source(const std::filesystem::path& path);

}  // namespace cadre::engine
