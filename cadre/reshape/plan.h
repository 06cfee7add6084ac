#pragma once

/// A reshape is a pure function (checkpoints, parameters, statistics) -> checkpoint, in two halves:
/// a ReshapeOp makes a Plan from headers alone, so that memory, disk and output are known before
/// work starts; run() (run.h) executes any plan.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "cadre/reshape/checkpoint.h"
#include "cadre/reshape/params.h"
#include "cadre/reshape/schema.h"

namespace cadre::reshape {

/// Elements a tile has at most, but for one row of a kernel that works on rows. Fixed: results must
/// not depend on memory or threads.
inline constexpr int64_t kTileElements = int64_t{1} << 16;

/// A piece of a step: the same range of elements of every input slice and of the output.
struct Tile {
  std::span<const std::span<const float>> in;
  std::span<float> out;  ///< empty in a pass that only looks
  int64_t first = 0;     ///< the range's first element
  int64_t index = 0;     ///< of this tile among the step's
};

/// Element-wise or row-wise work; all input slices have as many elements as the output. One object
/// serves one step; tiles come from several threads in any order, so what a pass finds is either
/// kept by tile index or independent of order (counts).
class TileKernel {
 public:
  virtual ~TileKernel() = default;
  /// Tiles are cut at multiples of this many elements (a row kernel's columns).
  virtual int64_t grain() const { return 1; }
  /// Passes over the inputs before the output: norms, thresholds.
  virtual int passes() const { return 0; }
  virtual void begin_pass(int /*pass*/, int64_t /*tiles*/) {}
  virtual void look(int /*pass*/, const Tile& /*tile*/) {}
  virtual void end_pass(int /*pass*/) {}
  virtual void compute(const Tile& tile) const = 0;
  /// A thread's memory for one tile, beside inputs and output.
  virtual int64_t scratch_bytes(int64_t /*elements*/) const { return 0; }
};

/// The output's bytes are the inputs' bytes, one slice after the other (any type, all alike).
struct CopyKernel {};

/// Work on whole matrices (SVD, assignment), alone in memory: inputs as float32 (empty where the
/// type is no floating-point one), their bytes, and the outputs: `out[i]` when output i is
/// floating-point, else `out_bytes[i]` (both as long as the output is). May run inside a parallel
/// loop.
struct Whole {
  std::span<const std::span<const float>> in;
  std::span<const std::span<const std::byte>> in_bytes;
  std::span<const std::span<float>> out;
  std::span<const std::span<std::byte>> out_bytes;
};
using WholeKernel = std::function<void(const Whole&)>;

using Kernel = std::variant<CopyKernel, std::shared_ptr<TileKernel>, WholeKernel>;

/// One output tensor (a WholeKernel may have several) and what it is made of.
struct Step {
  std::vector<TensorInfo> out;
  std::vector<SliceRef> in;
  Kernel kernel;
  int64_t scratch_bytes = 0;             ///< a WholeKernel's, beside inputs and outputs
  std::vector<std::string> needs_stats;  ///< names in the statistics file, for messages
};

struct Plan {
  std::vector<Step> steps;
  nlohmann::json config_out;  ///< becomes `config_name`; null = none
  std::string config_name = "config.json";
  std::string weights_stem = "model";        ///< model.safetensors, model-00001-of-...
  int tokenizer_from = 0;                    ///< input whose other files go along; -1 = none
  std::map<std::string, std::string> files;  ///< further files by name, with their content
  std::vector<std::string> notes;            ///< what the user should know, a line each
  nlohmann::json record = nlohmann::json::object();  ///< op and parameters, for the metadata
};

/// Memory the plan needs with so many threads: the largest step's slices, tiles and scratch. Throws
/// UsageError for a step whose slices or outputs do not fit together (names the tensor).
int64_t peak_bytes(const Plan& plan, std::span<const CheckpointPtr> inputs, int threads);

/// Statistics that `cadre calibrate` collected over a text: named float32 tensors in one
/// safetensors file.
class StatsIndex {
 public:
  /// Throws IoError, FormatError.
  explicit StatsIndex(const std::filesystem::path& path);
  bool contains(const std::string& name) const;
  std::vector<int64_t> shape(const std::string& name) const;
  /// Throws UsageError that names the file and the statistic when it is missing.
  std::vector<float> values(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const { return reader_.metadata(); }

 private:
  std::filesystem::path path_;
  SafetensorsReader reader_;
};

struct PlanRequest {
  std::span<const CheckpointPtr> inputs;
  const Params& params;
  const StatsIndex* stats = nullptr;
};

class ReshapeOp {
 public:
  virtual ~ReshapeOp() = default;
  /// Reads schemas; values only where the operation's choice depends on them and cannot wait.
  /// Throws UsageError.
  virtual Plan plan(const PlanRequest& request) const = 0;
};

/// A step that copies a whole tensor under `name` ("" = its own).
Step copy_step(const SchemaTensor& tensor, int checkpoint, const std::string& name = "");
/// A checkpoint with a new config: what an operation's result would look like.
Schema schema_of(const Plan& plan, const std::string& where);
/// The plan's result as an input of another plan, computed when read. Holds the inputs.
CheckpointPtr planned_checkpoint(Plan plan, std::vector<CheckpointPtr> inputs);

}  // namespace cadre::reshape
