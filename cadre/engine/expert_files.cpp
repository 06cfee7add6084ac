#include "cadre/engine/expert_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "cadre/base/error.h"
#include "cadre/engine/panel_memory.h"

namespace cadre::engine {
namespace {

using kernels::BlockType;

constexpr std::array<const char*, kExpertMatrices> kNames = {"gate", "up", "down"};
constexpr int64_t kAlignment = 4096;

int64_t align(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

MatrixLayout matrix_of(const SourceTensor& slice, const PackedType& packed_type) {
  if (slice.shape.size() != 2)
    throw FormatError("{}: an expert's matrix has {} dimensions, not 2", slice.name,
                      slice.shape.size());
  const MatrixLayout matrix = {.type = packed_type(slice),
                               .rows = slice.shape[0],
                               .columns = slice.shape[1],
                               .offset = 0,
                               .stored = slice.type,
                               .steps = slice.steps};
  // Stepped ones reach from their first number to their last.
  const Steps& steps = matrix.steps;
  const int64_t bytes =
      steps.are_plain()
          ? matrix.rows * kernels::row_bytes(matrix.stored, matrix.columns)
          : kernels::row_bytes(matrix.stored, (matrix.rows - 1) * steps.row +
                                                  (matrix.columns - 1) * steps.column + 1);
  if (bytes != static_cast<int64_t>(slice.bytes.size()))
    throw FormatError("{}: an expert's matrix has {} bytes, should have {}", slice.name,
                      slice.bytes.size(), bytes);
  return matrix;
}

bool same_shape(const MatrixLayout& a, const MatrixLayout& b) {
  return a.rows == b.rows && a.columns == b.columns && a.steps == b.steps;
}
bool alike(const LayerLayout& a, const LayerLayout& b) {
  const auto same = [](const MatrixLayout& x, const MatrixLayout& y) {
    return x.type == y.type && x.stored == y.stored;
  };
  return std::equal(a.matrices.begin(), a.matrices.end(), b.matrices.begin(), same);
}

void add_layer(const TensorSource& source, int64_t layer, const PackedType& packed_type,
               ExpertFiles& files) {
  for (int64_t expert = 0; expert < files.grid.experts; ++expert) {
    const int64_t id = files.grid.id(layer, expert);
    LayerLayout& layout = files.mixed[id];
    for (size_t m = 0; m < kExpertMatrices; ++m) {
      const std::string stem = fmt::format("blk.{}.ffn_{}_exps", layer, kNames[m]);
      const SourceTensor slice = source.expert_slice(stem + ".weight", expert);
      layout.matrices[m] = matrix_of(slice, packed_type);
      if (!same_shape(layout.matrices[m], files.mixed[files.grid.id(layer, 0)].matrices[m]))
        throw FormatError("{}: expert {} has another shape than expert 0", stem, expert);
      files.parts[id][m] = {.file = slice.file,
                            .offset = slice.file_offset,
                            .bytes = static_cast<int64_t>(slice.bytes.size()),
                            .memory = slice.bytes.data()};
    }
    lay_out(layout);
    if (layout.bytes > files.layers[layer].bytes) files.layers[layer] = layout;
  }
}

/// Every expert is laid out as its layer's largest.
bool are_alike(const ExpertFiles& files) {
  for (int64_t id = 0; id < files.grid.size(); ++id)
    if (!alike(files.mixed[id], files.layers[files.grid.layer_of(id)])) return false;
  return true;
}

}  // namespace

void lay_out(LayerLayout& layer) {
  auto& [gate, up, down] = layer.matrices;
  gate.offset = 0;
  up.offset = kernels::panel_bytes(gate.type, gate.rows, gate.columns);
  down.offset = align(up.offset + kernels::panel_bytes(up.type, up.rows, up.columns));
  layer.bytes = align(down.offset + kernels::panel_bytes(down.type, down.rows, down.columns));
}

int64_t ExpertFiles::slot_bytes() const {
  int64_t bytes = 0;
  for (const LayerLayout& layer : layers) bytes = std::max(bytes, layer.bytes);
  return bytes;
}

int64_t ExpertFiles::count() const {
  return grid.experts * std::count_if(layers.begin(), layers.end(),
                                      [](const LayerLayout& layer) { return layer.bytes > 0; });
}

const LayerLayout& ExpertFiles::layout_of(int64_t id) const {
  return mixed.empty() ? layers[grid.layer_of(id)] : mixed[id];
}

ExpertPanels ExpertFiles::panels(int64_t id, const std::byte* slot) const {
  const auto matrix = [&](ExpertMatrix m) {
    const MatrixLayout& from = layout_of(id).matrices[static_cast<size_t>(m)];
    return kernels::PanelMatrix{
        .type = from.type, .rows = from.rows, .columns = from.columns, .data = slot + from.offset};
  };
  return {.gate = matrix(ExpertMatrix::kGate),
          .up = matrix(ExpertMatrix::kUp),
          .down = matrix(ExpertMatrix::kDown)};
}

ExpertFiles find_expert_files(const TensorSource& source, const PackedType& packed_type) {
  const ModelSpec& spec = source.spec();
  ExpertFiles files;
  files.grid = {.layers = spec.layers, .experts = spec.experts};
  files.paths = source.files();
  files.layers.resize(spec.layers);
  files.parts.resize(files.grid.size());
  files.mixed.resize(files.grid.size());
  for (int64_t layer = 0; layer < spec.layers; ++layer)
    if (spec.has_whole_experts(layer)) add_layer(source, layer, packed_type, files);
  if (are_alike(files)) files.mixed.clear();
  return files;
}

void pack_matrix(const MatrixLayout& matrix, const std::byte* rows, std::byte* panels) {
  const int64_t count = (matrix.rows + kernels::kPanelRows - 1) / kernels::kPanelRows;
  pack_rows({matrix.stored, matrix.rows, matrix.columns, rows, matrix.steps}, matrix.type, 0, count,
            panels);
}

}  // namespace cadre::engine
