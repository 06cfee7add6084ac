// Writing an image: decode a slab of rows, check it, encode it, all threads at once, then the next.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/engine/convert_image.h"
#include "cadre/formats/json.h"

namespace cadre::engine {
namespace {

using kernels::BlockType;

constexpr int64_t kSlabValues = int64_t{1} << 24;

/// Row `row` of the result comes from here: halves to adjacent pairs within its head.
int64_t source_row(int64_t row, int64_t rows, int64_t heads) {
  if (heads == 0) return row;
  const int64_t width = rows / heads, within = row % width;
  return row - within + (within % 2) * (width / 2) + within / 2;
}

/// A vector that is re-ordered has rows of one value.
int64_t columns_of(const ImageTensor& tensor, const ImagePart& part) {
  return part.rotary_heads > 0 && tensor.shape.size() == 1 ? 1 : tensor.columns();
}

/// The stored row that becomes row `row` of the result.
const std::byte* row_at(const ImageTensor& tensor, const ImagePart& part, int64_t row) {
  const int64_t size = kernels::row_bytes(part.type, columns_of(tensor, part));
  const int64_t rows = static_cast<int64_t>(part.bytes.size()) / size;
  return part.bytes.data() + source_row(row, rows, part.rotary_heads) * size;
}

/// One tensor's way through the slabs.
class Encoder {
 public:
  Encoder(const ImageTensor& tensor, BlockType to, const std::string& where)
      : tensor_(tensor), where_(where) {
    stored_ = {.name = tensor.name,
               .from = tensor.parts.front().type,
               .to = to,
               .bytes_before = tensor.bytes()};
  }

  /// The rows [first, first + count) of a part, encoded; valid until the next call.
  std::span<const std::byte> encode(const ImagePart& part, int64_t first, int64_t count) {
    const int64_t columns = columns_of(tensor_, part);
    const int64_t row_size = kernels::row_bytes(stored_.to, columns);
    encoded_.resize(static_cast<size_t>(count * row_size));
    errors_.assign(static_cast<size_t>(count), {});
    const int64_t grain = std::max<int64_t>(1, (1 << 16) / columns);
    parallel_for(count, grain, [&](int64_t begin, int64_t end) {
      std::vector<float> values(static_cast<size_t>(columns)), back(values.size());
      for (int64_t row = begin; row < end; ++row) {
        read_rows(tensor_, part, first + row, 1, values.data());
        std::byte* out = encoded_.data() + row * row_size;
        check(values);
        if (part.type == stored_.to) {  // encoding a second time would lose more
          std::memcpy(out, row_at(tensor_, part, first + row), static_cast<size_t>(row_size));
        } else {
          kernels::quantize(stored_.to, values.data(), columns, out);
        }
        kernels::dequantize(stored_.to, out, columns, back.data());
        errors_[row] = error_of(values, back);
      }
    });
    // In the order of rows, so that the sums do not depend on threads.
    for (const RowError& error : errors_) {
      stored_.squared_error += error.difference;
      stored_.squared_sum += error.value;
    }
    stored_.bytes_after += static_cast<int64_t>(encoded_.size());
    return encoded_;
  }

  const StoredTensor& stored() const { return stored_; }

 private:
  struct RowError {
    double difference = 0, value = 0;
  };

  void check(const std::vector<float>& values) const {
    for (const float value : values) {
      if (!std::isfinite(value))
        throw UsageError("{}: tensor {} holds {}: a model with such weights is broken", where_,
                         quote(tensor_.name), value);
    }
  }

  RowError error_of(const std::vector<float>& values, const std::vector<float>& back) const {
    RowError error;
    for (size_t i = 0; i < values.size(); ++i) {
      if (!std::isfinite(back[i]))
        throw UsageError("{}: tensor {} holds {}, beyond what {} can store; choose BF16", where_,
                         quote(tensor_.name), values[i], kernels::block_info(stored_.to).name);
      const double difference = double{back[i]} - values[i];
      error.difference += difference * difference;
      error.value += double{values[i]} * values[i];
    }
    return error;
  }

  const ImageTensor& tensor_;
  const std::string& where_;
  StoredTensor stored_;
  std::vector<std::byte> encoded_;
  std::vector<RowError> errors_;
};

}  // namespace

void read_rows(const ImageTensor& tensor, const ImagePart& part, int64_t first, int64_t count,
               float* values) {
  const int64_t columns = columns_of(tensor, part);
  for (int64_t row = first; row < first + count; ++row, values += columns)
    kernels::dequantize(part.type, row_at(tensor, part, row), columns, values);
}

std::vector<GgufTensorSpec> specs_of(const GgufImage& image, const std::vector<BlockType>& types) {
  std::vector<GgufTensorSpec> specs;
  for (size_t i = 0; i < image.tensors.size(); ++i) {
    const ImageTensor& tensor = image.tensors[i];
    const std::string_view type = kernels::block_info(types[i]).name;
    specs.push_back({tensor.name,
                     {tensor.shape.rbegin(), tensor.shape.rend()},
                     find_gguf_tensor_type(type)->id});
  }
  return specs;
}

std::vector<StoredTensor> write_image(const std::filesystem::path& path, const GgufImage& image,
                                      const std::vector<BlockType>& types,
                                      const ImageProgress& progress) {
  GgufWriter writer(path, image.keys, specs_of(image, types));
  std::vector<StoredTensor> stored;
  for (size_t i = 0; i < image.tensors.size(); ++i) {
    const ImageTensor& tensor = image.tensors[i];
    Encoder encoder(tensor, types[i], image.where);
    for (const ImagePart& part : tensor.parts) {
      const int64_t columns = columns_of(tensor, part);
      if (part.bytes.empty()) continue;
      const int64_t row_size = kernels::row_bytes(part.type, columns);
      const int64_t rows = static_cast<int64_t>(part.bytes.size()) / row_size;
      const int64_t slab = std::max<int64_t>(1, kSlabValues / columns);
      for (int64_t row = 0; row < rows; row += slab) {
        const int64_t count = std::min(slab, rows - row);
        writer.write(tensor.name, encoder.encode(part, row, count));
        if (progress) progress(count * row_size);
      }
    }
    stored.push_back(encoder.stored());
  }
  writer.commit();
  return stored;
}

}  // namespace cadre::engine
