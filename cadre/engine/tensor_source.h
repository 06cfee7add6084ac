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

/// Numbers from a row to the next and from a column to the next; both 0: rows follow each other,
/// columns contiguous. Otherwise a matrix of floats that is stored transposed, perhaps between the
/// rows of another (dbrx, gpt-oss).
struct Steps {
  int64_t row = 0, column = 0;
  bool operator==(const Steps&) const = default;
  bool are_plain() const { return row == 0 && column == 0; }
};

/// Where a tensor's bytes are. Weights are [rows, columns] with columns contiguous (but for an
/// expert's matrix with steps); experts' tensors are [E, rows, columns].
struct SourceTensor {
  std::string name;
  kernels::BlockType type;
  std::vector<int64_t> shape;  ///< outermost first: [E, rows, columns], [rows, columns], [n]
  std::span<const std::byte> bytes;
  int file = -1;            ///< index into files(), whose map holds the bytes; -1 = other memory
  int64_t file_offset = 0;  ///< of the first byte, for direct reads
  Steps steps = {};
};

/// Whether float matrices may be stored in another type while loading: a directory's yes, a file
/// that was quantised on purpose no.
enum class StoredAs { kAsIs, kAsAsked };

class TensorSource {
 public:
  virtual ~TensorSource() = default;
  virtual const ModelSpec& spec() const = 0;
  /// Null when there is none. Throws FormatError for a type that the engine does not compute with.
  virtual const SourceTensor* find(const std::string& name) const = 0;
  /// Throws FormatError that names the tensor and the file.
  const SourceTensor& require(const std::string& name) const;
  /// Every tensor's name, as find() takes it; experts stored one by one are left out.
  virtual std::vector<std::string> names() const = 0;
  virtual const std::vector<std::filesystem::path>& files() const = 0;
  /// What errors call this model.
  virtual std::string where() const = 0;
  /// Throws FormatError when there is none, or of a kind that is not supported.
  virtual Tokenizer tokenizer() const = 0;
  /// The chat template (Jinja text), when there is one.
  virtual std::optional<std::string> chat_template() const = 0;
  /// One expert's matrix [rows, columns]: a slice of the stacked tensor
  /// ("blk.L.ffn_{gate,up,down}_exps.weight"), half a slice of a fused "ffn_gate_up_exps", or a
  /// tensor of its own, as directories and old Mixtral files have it. Throws FormatError.
  virtual SourceTensor expert_slice(const std::string& stacked_name, int64_t expert) const = 0;
  /// Whether expert_slice() finds it.
  virtual bool has_expert(const std::string& stacked_name, int64_t expert) const {
    (void)stacked_name, (void)expert;
    return false;
  }
  /// A tensor of integers, of an expert or (-1) of none; empty when there is none.
  virtual std::vector<int32_t> integers(const std::string& name, int64_t expert = -1) const {
    (void)name, (void)expert;
    return {};
  }
  virtual StoredAs stored_as() const = 0;
  /// Gives back the memory of the files' pages that were read.
  virtual void drop_pages() const = 0;
  /// 16 hex digits over spec, tensor table and file sizes: names caches and snapshots.
  virtual std::string fingerprint() const = 0;
};

/// Opens a .gguf file (finding its other parts when split) or a checkpoint directory. Throws
/// IoError, FormatError.
std::unique_ptr<TensorSource> open_source(const std::filesystem::path& path);

/// Entries [first, first + count) of a tensor's leading dimension.
SourceTensor slice_of(const SourceTensor& tensor, int64_t first, int64_t count);
/// One entry of it, that dimension dropped.
SourceTensor entry_of(const SourceTensor& tensor, int64_t index);

}  // namespace cadre::engine
