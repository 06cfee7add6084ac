#pragma once

/// Where each expert's bytes are in a model's files, and how its panels lie in a cache slot.

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "cadre/engine/cache_policy.h"
#include "cadre/engine/expert_provider.h"
#include "cadre/engine/tensor_source.h"
#include "cadre/kernels/panels.h"

namespace cadre::engine {

/// The three matrices in the order they stand in a slot.
enum class ExpertMatrix : uint8_t { kGate, kUp, kDown };
constexpr size_t kExpertMatrices = 3;

/// One matrix in panel form inside a slot.
struct MatrixLayout {
  kernels::BlockType type = kernels::BlockType::kF32;
  int64_t rows = 0, columns = 0;
  int64_t offset = 0;                                    ///< bytes from the start of the slot
  kernels::BlockType stored = kernels::BlockType::kF32;  ///< in the file (kRows)
  Steps steps = {};                                      ///< in the file (kRows)
};

/// How an expert lies in its slot; `bytes` is 0 where the layer has none.
struct LayerLayout {
  std::array<MatrixLayout, kExpertMatrices> matrices;
  int64_t bytes = 0;  ///< of an expert's panels, a multiple of 4096
};

/// A range of a file.
struct FilePart {
  int32_t file = -1;  ///< -1: to be had from memory only
  int64_t offset = 0, bytes = 0;
  const std::byte* memory = nullptr;  ///< the same bytes in a map, if there is one
};

struct ExpertFiles {
  enum class Form {
    kRows,   ///< three parts, gate, up and down as stored rows: repacked after reading
    kPanels  ///< one record, whose first part is gate and up, the second down: read in place
  };

  ExpertGrid grid;
  std::vector<std::filesystem::path> paths;
  Form form = Form::kRows;
  std::vector<LayerLayout> layers;  ///< of all of a layer's experts, or of its largest
  /// By expert, when those of a layer are stored as different types; empty = all as their layer.
  std::vector<LayerLayout> mixed;
  std::vector<std::array<FilePart, kExpertMatrices>> parts;  ///< by expert; unused ones are empty
  std::vector<uint32_t> checksums;                           ///< CRC32C by expert, or empty

  /// Bytes of the largest expert: the size of a slot.
  int64_t slot_bytes() const;
  /// Experts that exist: layers without any do not count.
  int64_t count() const;
  const LayerLayout& layout_of(int64_t id) const;
  /// Points into `slot`, which holds the panels of that expert.
  ExpertPanels panels(int64_t id, const std::byte* slot) const;
};

/// Lays out a layer's slot: offsets and bytes from types, rows and columns. Gate and up come
/// together to a multiple of 4096, as does down.
void lay_out(LayerLayout& layer);

/// What a matrix of the file is kept as: Packer::packed_type(), or stays_as_stored().
using PackedType = std::function<kernels::BlockType(const SourceTensor&)>;
inline kernels::BlockType stays_as_stored(const SourceTensor& matrix) { return matrix.type; }

/// Finds the experts of a GGUF file or a checkpoint directory; the source must outlive the result.
/// Throws FormatError that names the tensor.
ExpertFiles find_expert_files(const TensorSource& source,
                              const PackedType& packed_type = stays_as_stored);

/// Turns one stored matrix (rows as in the file) into panels.
void pack_matrix(const MatrixLayout& matrix, const std::byte* rows, std::byte* panels);

}  // namespace cadre::engine
