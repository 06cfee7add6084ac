#pragma once

/// A GGUF file to be: its keys, and tensors whose values lie in other files until they are written.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cadre/formats/gguf_writer.h"
#include "cadre/kernels/blocks.h"

namespace cadre::engine {

/// Rows as a file stores them.
struct ImagePart {
  std::span<const std::byte> bytes;
  kernels::BlockType type;
  /// > 0: so many heads' rows are re-ordered, from rotary halves (i pairs with i + width / 2) to
  /// adjacent pairs.
  int64_t rotary_heads = 0;
};

struct ImageTensor {
  std::string name;
  std::vector<int64_t> shape;    ///< outermost first
  std::vector<ImagePart> parts;  ///< of equally many rows, one after the other
  int64_t columns() const { return shape.back(); }
  int64_t elements() const;
  int64_t rows() const { return columns() == 0 ? 0 : elements() / columns(); }
  int64_t bytes() const;
};

struct GgufImage {
  std::string where;  ///< what errors call the source
  GgufKeys keys;
  std::vector<ImageTensor> tensors;
  std::vector<std::string> notes;                  ///< what the user should know, a line each
  std::vector<std::shared_ptr<const void>> files;  ///< keeps the parts' bytes mapped
  /// By layer whose experts are merged: the stored expert of each. `keys` say it, too.
  std::map<int64_t, std::vector<int32_t>> expert_maps;
};

/// A .gguf file, with its other parts when it is one of a split. Throws IoError, FormatError (among
/// others for a tensor type that cannot be decoded).
GgufImage image_of_gguf(const std::filesystem::path& path);
/// A checkpoint directory: llama, mixtral, olmoe, deepseek, qwen2, qwen3, qwen2_moe, qwen3_moe.
/// The directory's config.json goes along under "cadre.config", and its tokenizer.json under
/// "tokenizer.huggingface.json" when GGUF's lists do not say all of it. Throws IoError,
/// FormatError.
GgufImage image_of_checkpoint(const std::filesystem::path& folder);
/// Whichever `path` is.
GgufImage open_image(const std::filesystem::path& path);

/// Keys under which GGUF files hold what only a directory knows.
inline constexpr const char* kConfigKey = "cadre.config";
inline constexpr const char* kTokenizerJsonKey = "tokenizer.huggingface.json";

/// Norms, biases, routers and vectors stay F32, as llama.cpp expects them.
bool stays_f32(const ImageTensor& tensor);

/// What storing a tensor as another type did to it.
struct StoredTensor {
  std::string name;
  kernels::BlockType from, to;
  int64_t bytes_before = 0, bytes_after = 0;
  double squared_error = 0;  ///< sum over all values of (stored - original)^2
  double squared_sum = 0;    ///< sum over all values of original^2
};

/// The tensor table of the file, tensor i stored as types[i].
std::vector<GgufTensorSpec> specs_of(const GgufImage& image,
                                     const std::vector<kernels::BlockType>& types);

/// Called after each piece with the bytes of the source that are done.
using ImageProgress = std::function<void(int64_t bytes)>;

/// Writes the file, tensor i stored as types[i], a slab of rows at a time (64 MiB of values) on all
/// threads; atomic. Throws UsageError that names the tensor for a value that is NaN or infinite, or
/// that `types[i]` cannot hold; IoError.
std::vector<StoredTensor> write_image(const std::filesystem::path& path, const GgufImage& image,
                                      const std::vector<kernels::BlockType>& types,
                                      const ImageProgress& progress = {});

/// Decodes `count` rows of one part from `first` on, re-ordered as it asks. values [count,
/// columns].
void read_rows(const ImageTensor& tensor, const ImagePart& part, int64_t first, int64_t count,
               float* values);

}  // namespace cadre::engine
