#pragma once

/// For tests: a model's experts in files of random bytes, as stored rows at odd offsets or as a
/// pack's records, and what each slot must hold afterwards.

#include <fstream>
#include <string>
#include <vector>

#include "cadre/base/random.h"
#include "cadre/engine/checksum.h"
#include "cadre/engine/expert_files.h"
#include "cadre/engine/file_reader.h"
#include "cadre/formats/test_folder.h"

namespace cadre::engine {

class TestExperts {
 public:
  explicit TestExperts(ExpertFiles::Form form, ExpertGrid grid = {.layers = 3, .experts = 8}) {
    files.grid = grid;
    files.form = form;
    files.paths = {folder_ / "experts"};
    files.parts.resize(grid.size());
    panels.resize(grid.size());
    for (int64_t layer = 0; layer < grid.layers; ++layer) files.layers.push_back(make_layer());
    std::string bytes(form == ExpertFiles::Form::kRows ? 1234 : 4096, 'x');
    for (int64_t id = 0; id < grid.size(); ++id) add_expert(id, bytes);
    bytes.resize((bytes.size() + 4095) / 4096 * 4096);
    std::ofstream(files.paths[0], std::ios::binary) << bytes;
  }

  ExpertFiles files;
  std::vector<std::vector<std::byte>> panels;  ///< by expert: a slot's content

 private:
  static LayerLayout make_layer() {
    LayerLayout layer;
    for (size_t m = 0; m < kExpertMatrices; ++m)
      layer.matrices[m] = {.type = kernels::BlockType::kQ8_0,
                           .rows = m == 2 ? 64 : 96,
                           .columns = m == 2 ? 96 : 64,
                           .stored = kernels::BlockType::kQ8_0};
    lay_out(layer);
    return layer;
  }

  void add_expert(int64_t id, std::string& bytes) {
    const LayerLayout& layer = files.layers[files.grid.layer_of(id)];
    panels[id].assign(layer.bytes, std::byte{0});
    for (size_t m = 0; m < kExpertMatrices; ++m) {
      const MatrixLayout& matrix = layer.matrices[m];
      const std::string rows = random_rows(matrix, id, m);
      pack_matrix(matrix, reinterpret_cast<const std::byte*>(rows.data()),
                  panels[id].data() + matrix.offset);
      if (files.form == ExpertFiles::Form::kPanels) continue;
      files.parts[id][m] = {.file = 0,
                            .offset = static_cast<int64_t>(bytes.size()),
                            .bytes = static_cast<int64_t>(rows.size())};
      bytes += rows;
    }
    if (files.form == ExpertFiles::Form::kRows) return;
    const auto at = static_cast<int64_t>(bytes.size());
    const int64_t split = layer.matrices[2].offset;
    files.parts[id][0] = {.file = 0, .offset = at, .bytes = split};
    files.parts[id][1] = {.file = 0, .offset = at + split, .bytes = layer.bytes - split};
    files.checksums.push_back(crc32c(panels[id]));
    bytes.append(reinterpret_cast<const char*>(panels[id].data()), panels[id].size());
  }

  static std::string random_rows(const MatrixLayout& matrix, int64_t id, size_t m) {
    Random random(11, {static_cast<uint64_t>(id), m});
    std::string rows(matrix.rows * kernels::row_bytes(matrix.type, matrix.columns), '\0');
    for (char& byte : rows) byte = static_cast<char>(random.below(256));
    return rows;
  }

  TestFolder folder_;
};

}  // namespace cadre::engine
