#pragma once

/// Anonymous memory for packed weights, and the packing. Weights that stay never share the page
/// cache: evicted pages of a mapped trunk cost more than all expert misses.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "cadre/base/team.h"
#include "cadre/engine/tensor_source.h"
#include "cadre/kernels/panels.h"

namespace cadre::engine {

/// Grows by slabs of 64 MiB in huge pages; frees everything at once.
class PanelMemory {
 public:
  PanelMemory() = default;
  ~PanelMemory();
  PanelMemory(const PanelMemory&) = delete;
  PanelMemory& operator=(const PanelMemory&) = delete;

  /// Zeroed, aligned to 64 bytes. Throws std::bad_alloc.
  std::byte* allocate(int64_t bytes);
  /// Handed out so far.
  int64_t bytes() const { return bytes_; }

 private:
  struct Slab {
    std::byte* data;
    int64_t size, used;
  };
  std::vector<Slab> slabs_;
  int64_t bytes_ = 0;
};

/// What Packer stores a file's matrix as. Rows that do not fill the wanted blocks take Q8_0's
/// smaller ones, or stay as they are.
kernels::BlockType packed_type(const SourceTensor& matrix,
                               std::optional<kernels::BlockType> stored_as);

/// Packs panels [first, first + count) of a matrix of stored rows, `out` being the whole matrix's
/// panels. Takes little memory beside them: rows that change their type go through 16 at a time.
struct StoredRows {
  kernels::BlockType type;
  int64_t rows, columns;
  const std::byte* blocks;
  Steps steps = {};
};
void pack_rows(const StoredRows& stored, kernels::BlockType as, int64_t first, int64_t count,
               std::byte* out);

/// Rearranges stored matrices into panels with all threads of a team.
class Packer {
 public:
  /// `stored_as`: what float matrices become; absent = they stay as they are.
  Packer(PanelMemory& memory, Team& team, std::optional<kernels::BlockType> stored_as)
      : memory_(memory), team_(team), stored_as_(stored_as) {}

  /// A matrix [rows, columns] of the file.
  kernels::PanelMatrix pack(const SourceTensor& matrix);
  /// A matrix computed while loading, as `type`.
  kernels::PanelMatrix pack(const std::vector<float>& values, int64_t rows, int64_t columns,
                            kernels::BlockType type);
  /// What pack() stores a file's matrix as.
  kernels::BlockType packed_type(const SourceTensor& matrix) const {
    return engine::packed_type(matrix, stored_as_);
  }
  Team& team() const { return team_; }

 private:
  kernels::PanelMatrix pack_blocks(kernels::BlockType type, int64_t rows, int64_t columns,
                                   const std::byte* blocks);

  PanelMemory& memory_;
  Team& team_;
  std::optional<kernels::BlockType> stored_as_;
};

/// All of a tensor's numbers.
std::vector<float> floats_of(const SourceTensor& tensor);

}  // namespace cadre::engine
