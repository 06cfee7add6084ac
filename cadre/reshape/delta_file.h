#pragma once

/// A ternary residual in a file (.cdelta): what separates a fine-tuned model from its base.
///
///     "cdelta01" | u32 bytes of the header | u32 CRC32C of header and index | header (JSON) |
///     index: for each block u32 (survivors << 15 | bytes), u32 CRC32C | the blocks' bytes
///
/// Numbers are little-endian. The tensors' entries stand one after the other in the header's order;
/// blocks are 2^16 entries of that order, whatever tensor they belong to, so that all of them
/// decode in parallel and one tensor's are found without reading the others.

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "cadre/formats/file.h"
#include "cadre/reshape/ternary.h"

namespace cadre::reshape {

struct DeltaTensor {
  std::string name;
  std::vector<int64_t> shape;
  int64_t first = 0;  ///< place of its first entry in the flat order; set by reader and writer
  int64_t entries() const;
};

struct DeltaHeader {
  std::vector<DeltaTensor> tensors;
  /// content_hash() of the checkpoint that the residual is to be added to; "" = to zeros (a
  /// compressed adapter).
  std::string base;
  TernaryOptions options;                    ///< that it was made with
  double deviation = 0;                      ///< of all entries before
  float scale = 0;                           ///< of every survivor
  std::map<std::string, std::string> notes;  ///< anything, for people

  int64_t entries() const;
};

/// Compresses a vector that `read` gives piece by piece: `header` needs tensors, base, options and
/// notes. Two passes choose, a third encodes; memory stays at 64 blocks whatever the size. Returns
/// the header as written. Throws UsageError (choose_ternary's, tensors without entries or of one
/// name), IoError.
DeltaHeader write_delta(const std::filesystem::path& path, DeltaHeader header,
                        const FlatReader& read);

class DeltaReader {
 public:
  /// Throws IoError, or FormatError that names file and field.
  explicit DeltaReader(const std::filesystem::path& path);

  const DeltaHeader& header() const { return header_; }
  const std::filesystem::path& path() const { return file_.path(); }
  int64_t entries() const { return header_.entries(); }
  int64_t blocks() const { return static_cast<int64_t>(index_.size()); }
  int64_t kept() const;
  /// Of the whole file.
  int64_t bytes() const { return static_cast<int64_t>(file_.bytes().size()); }
  /// Throws UsageError that names the file when it has no such tensor.
  const DeltaTensor& tensor(const std::string& name) const;

  /// Masks of block `block` ([kTernaryWords] each, the last block's rest 0). Any thread may call
  /// it. Throws FormatError for bytes that do not have their checksum or are no block.
  void block(int64_t block, uint64_t* plus, uint64_t* minus) const;
  int64_t block_entries(int64_t block) const;
  /// values[i] += weight * entry[first + i]. Any thread may call it.
  void add_to(int64_t first, float weight, std::span<float> values) const;
  /// All of it, or one tensor.
  TernaryVector ternary() const;
  TernaryVector ternary(const DeltaTensor& tensor) const;

 private:
  struct Block {
    int64_t offset;
    uint32_t kept, bytes, checksum;
  };
  TernaryVector range(int64_t first, int64_t entries) const;

  MappedFile file_;
  DeltaHeader header_;
  std::vector<Block> index_;
};

}  // namespace cadre::reshape
