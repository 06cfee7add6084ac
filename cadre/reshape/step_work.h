#pragma once

/// One step over its inputs: what a run and a planned checkpoint share.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "cadre/reshape/plan.h"

namespace cadre::reshape {

/// Calls body(worker, task) for every task on up to `workers` threads; the first exception stops
/// the others at their next task and is rethrown.
void for_tasks(int workers, int64_t tasks, const std::function<void(int, int64_t)>& body);

/// What one thread works in; reused from tile to tile.
struct TileBuffers {
  std::vector<std::vector<std::byte>> stored;  ///< of inputs that are no views
  std::vector<std::vector<float>> decoded;
  std::vector<std::span<const float>> in;
  std::vector<float> out;
  std::vector<std::byte> encoded;
};

/// A step whose kernel is a copy or a TileKernel.
class TiledStep {
 public:
  /// Throws UsageError when slices and output do not fit together; names the tensor.
  TiledStep(const Step& step, std::span<const CheckpointPtr> inputs);

  int64_t tiles() const { return tiles_; }
  int64_t first_of(int64_t tile) const { return tile * tile_elements_; }
  int64_t count_of(int64_t tile) const;
  int64_t tile_elements() const { return tile_elements_; }
  /// The kernel's passes over all tiles.
  void prepare(int workers) const;
  /// The tile's bytes as the output stores them, in `buffers`.
  std::span<const std::byte> compute(int64_t tile, TileBuffers& buffers) const;
  /// One thread's buffers and views.
  int64_t tile_bytes() const;

 private:
  struct Input {
    const Checkpoint* checkpoint;
    const SchemaTensor* tensor;
    int64_t first, count;  ///< elements of the slice
  };
  Tile read_tile(int64_t tile, TileBuffers& buffers) const;
  void drop_views(int64_t tile, TileBuffers& buffers) const;
  std::span<const std::byte> copy(int64_t tile, TileBuffers& buffers) const;

  const Step& step_;
  std::vector<Input> inputs_;
  TileKernel* kernel_ = nullptr;  ///< null = copy
  int64_t elements_ = 0, tile_elements_ = 0, tiles_ = 0;
};

/// Runs a step whose kernel is a WholeKernel; each output's bytes as they are stored.
std::vector<std::vector<std::byte>> compute_whole(const Step& step,
                                                  std::span<const CheckpointPtr> inputs);
/// Memory that takes.
int64_t whole_bytes(const Step& step, std::span<const CheckpointPtr> inputs);
bool is_whole(const Step& step);

/// Bytes of the slices a step reads once.
int64_t input_bytes(const Step& step, std::span<const CheckpointPtr> inputs);

}  // namespace cadre::reshape
