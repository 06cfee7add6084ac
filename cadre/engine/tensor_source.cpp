#include "cadre/engine/tensor_source.h"

#include "cadre/base/error.h"
#include "cadre/engine/checkpoint_source.h"
#include "cadre/engine/fingerprint.h"
#include "cadre/engine/gguf_source.h"
#include "cadre/formats/json.h"

namespace cadre::engine {

std::string Fingerprint::digits() const { return fmt::format("{:016x}", hash_); }

const SourceTensor& TensorSource::require(const std::string& name) const {
  const SourceTensor* tensor = find(name);
  if (tensor == nullptr) throw FormatError("{}: tensor {} is missing", where(), quote(name));
  return *tensor;
}

SourceTensor slice_of(const SourceTensor& tensor, int64_t first, int64_t count) {
  SourceTensor slice = tensor;
  const auto each = tensor.bytes.size() / static_cast<size_t>(tensor.shape[0]);
  slice.bytes =
      tensor.bytes.subspan(static_cast<size_t>(first) * each, static_cast<size_t>(count) * each);
  slice.file_offset += first * static_cast<int64_t>(each);
  slice.shape[0] = count;
  return slice;
}

SourceTensor entry_of(const SourceTensor& tensor, int64_t index) {
  SourceTensor entry = slice_of(tensor, index, 1);
  entry.shape.erase(entry.shape.begin());
  return entry;
}

std::unique_ptr<TensorSource> open_source(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) return open_checkpoint(path);
  return open_gguf(path);
}

}  // namespace cadre::engine
