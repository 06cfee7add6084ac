#include "cadre/engine/panel_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "cadre/formats/file.h"

namespace cadre::engine {
namespace {

using kernels::BlockType;
using kernels::PanelMatrix;

constexpr int64_t kSlab = int64_t{64} << 20;
constexpr int64_t kAlignment = 64;
/// Bytes of a file that are packed before their pages are given back.
constexpr int64_t kPiece = int64_t{1} << 20;

bool is_float(BlockType type) {
  return type == BlockType::kF32 || type == BlockType::kF16 || type == BlockType::kBF16;
}

/// Rows [first, first + count), one after the other.
std::vector<std::byte> gathered(const StoredRows& stored, int64_t first, int64_t count) {
  const int64_t size = kernels::row_bytes(stored.type, 1);
  std::vector<std::byte> rows(static_cast<size_t>(count * stored.columns * size));
  std::byte* to = rows.data();
  for (int64_t row = first; row < first + count; ++row) {
    const std::byte* from = stored.blocks + row * stored.steps.row * size;
    for (int64_t column = 0; column < stored.columns; ++column, to += size)
      std::memcpy(to, from + column * stored.steps.column * size, static_cast<size_t>(size));
  }
  return rows;
}

}  // namespace

PanelMemory::~PanelMemory() {
  for (const Slab& slab : slabs_) ::munmap(slab.data, static_cast<size_t>(slab.size));
}

std::byte* PanelMemory::allocate(int64_t bytes) {
  const int64_t size = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (slabs_.empty() || slabs_.back().size - slabs_.back().used < size) {
    const int64_t slab = std::max(size, kSlab);
    void* data = ::mmap(nullptr, static_cast<size_t>(slab), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) throw std::bad_alloc();
    ::madvise(data, static_cast<size_t>(slab), MADV_HUGEPAGE);  // advice: refusal costs only speed
    slabs_.push_back({static_cast<std::byte*>(data), slab, 0});
  }
  std::byte* start = slabs_.back().data + slabs_.back().used;
  slabs_.back().used += size;
  bytes_ += size;
  return start;
}

BlockType packed_type(const SourceTensor& matrix, std::optional<BlockType> stored_as) {
  if (!stored_as || !is_float(matrix.type)) return matrix.type;
  if (is_float(*stored_as)) return *stored_as;
  const int64_t columns = matrix.shape.back();
  for (const BlockType type : {*stored_as, BlockType::kQ8_0}) {
    if (columns % kernels::block_info(type).elements == 0) return type;
  }
  return matrix.type;
}

void pack_rows(const StoredRows& stored, BlockType as, int64_t first, int64_t count,
               std::byte* out) {
  const int64_t columns = stored.columns;
  if (!stored.steps.are_plain()) {
    for (int64_t panel = first; panel < first + count; ++panel) {
      const int64_t row = panel * kernels::kPanelRows;
      const int64_t rows = std::min(kernels::kPanelRows, stored.rows - row);
      const std::vector<std::byte> plain = gathered(stored, row, rows);
      pack_rows({stored.type, rows, columns, plain.data()}, as, 0, 1,
                out + panel * kernels::panel_stride(as, columns));
    }
    return;
  }
  if (stored.type == as) {
    kernels::pack_panels(as, stored.rows, columns, stored.blocks, first, count, out);
    return;
  }
  std::vector<float> numbers(static_cast<size_t>(kernels::kPanelRows * columns));
  std::vector<std::byte> blocks(
      static_cast<size_t>(kernels::kPanelRows * kernels::row_bytes(as, columns)));
  for (int64_t panel = first; panel < first + count; ++panel) {
    const int64_t row = panel * kernels::kPanelRows;
    const int64_t rows = std::min(kernels::kPanelRows, stored.rows - row);
    kernels::dequantize(stored.type, stored.blocks + row * kernels::row_bytes(stored.type, columns),
                        rows * columns, numbers.data());
    kernels::quantize(as, numbers.data(), rows * columns, blocks.data());
    kernels::pack_panels(as, rows, columns, blocks.data(), 0, 1,
                         out + panel * kernels::panel_stride(as, columns));
  }
}

PanelMatrix Packer::pack(const SourceTensor& matrix) {
  const StoredRows stored = {matrix.type, matrix.shape[0], matrix.shape[1], matrix.bytes.data(),
                             matrix.steps};
  const BlockType type = packed_type(matrix);
  std::byte* data = memory_.allocate(kernels::panel_bytes(type, stored.rows, stored.columns));
  const int64_t panels = (stored.rows + kernels::kPanelRows - 1) / kernels::kPanelRows;
  const int64_t panel_bytes = kernels::kPanelRows * kernels::row_bytes(stored.type, stored.columns);
  const int64_t step = std::max<int64_t>(1, kPiece / panel_bytes);
  team_.run([&](int thread) {
    const Range range = share_of(panels, 1, thread, team_.threads());
    for (int64_t panel = range.begin; panel < range.end; panel += step) {
      const int64_t count = std::min(step, range.end - panel);
      pack_rows(stored, type, panel, count, data);
      const auto end =
          std::min<size_t>(static_cast<size_t>((panel + count) * panel_bytes), matrix.bytes.size());
      const auto begin = static_cast<size_t>(panel * panel_bytes);
      if (matrix.file >= 0 && matrix.steps.are_plain())
        drop_pages(matrix.bytes.subspan(begin, end - begin));
    }
  });
  if (matrix.file >= 0 && !matrix.steps.are_plain()) drop_pages(matrix.bytes);
  return {type, stored.rows, stored.columns, data};
}

PanelMatrix Packer::pack(const std::vector<float>& values, int64_t rows, int64_t columns,
                         BlockType type) {
  const int64_t row_bytes = kernels::row_bytes(type, columns);
  std::vector<std::byte> blocks(static_cast<size_t>(rows * row_bytes));
  team_.run([&](int thread) {
    const Range range = share_of(rows, 1, thread, team_.threads());
    kernels::quantize(type, values.data() + range.begin * columns,
                      (range.end - range.begin) * columns, blocks.data() + range.begin * row_bytes);
  });
  return pack_blocks(type, rows, columns, blocks.data());
}

PanelMatrix Packer::pack_blocks(BlockType type, int64_t rows, int64_t columns,
                                const std::byte* blocks) {
  std::byte* data = memory_.allocate(kernels::panel_bytes(type, rows, columns));
  const int64_t panels = (rows + kernels::kPanelRows - 1) / kernels::kPanelRows;
  team_.run([&](int thread) {
    const Range range = share_of(panels, 1, thread, team_.threads());
    kernels::pack_panels(type, rows, columns, blocks, range.begin, range.end - range.begin, data);
  });
  return {type, rows, columns, data};
}

std::vector<float> floats_of(const SourceTensor& tensor) {
  int64_t count = 1;
  for (const int64_t size : tensor.shape) count *= size;
  std::vector<float> values(static_cast<size_t>(count));
  kernels::dequantize(tensor.type, tensor.bytes.data(), count, values.data());
  if (tensor.file >= 0) drop_pages(tensor.bytes);
  return values;
}

}  // namespace cadre::engine
