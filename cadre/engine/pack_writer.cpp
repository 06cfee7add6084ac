#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "cadre/base/error.h"
#include "cadre/engine/checksum.h"
#include "cadre/engine/expert_names.h"
#include "cadre/engine/file_reader.h"
#include "cadre/engine/pack.h"
#include "cadre/engine/tensor_source.h"
#include "cadre/formats/gguf_writer.h"

namespace cadre::engine {
namespace {

constexpr uint32_t kI8 = 24, kI32 = 26;

class PackWriter {
 public:
  PackWriter(const std::filesystem::path& path,
             const std::function<void(const PackProgress&)>& progress)
      : source_(open_source(path)), progress_(progress) {
    if (std::filesystem::is_directory(path))
      throw UsageError("{}: only GGUF models can be packed; make one with `cadre convert`",
                       path.string());
    if (source_->spec().experts == 0)
      throw UsageError("{}: the model has no routed experts, there is nothing to pack",
                       path.string());
    for (const auto& file : source_->files()) readers_.emplace_back(file);
    if (is_pack(readers_.front())) throw UsageError("{}: is a pack already", path.string());
    files_ = find_expert_files(*source_);
    if (!files_.mixed.empty())
      throw UsageError("{}: experts of one layer have different types; a pack needs them alike",
                       path.string());
    checksums_.resize(files_.grid.size());
  }

  void write(const std::filesystem::path& out) {
    const GgufKeys keys = make_keys();
    const std::vector<GgufTensorSpec> specs = make_specs();
    for (const GgufTensorSpec& spec : specs) total_ += tensor_bytes(spec);
    GgufWriter writer(out, keys, specs);
    for (const GgufTensor* tensor : trunk_) {
      writer.write(tensor->name, tensor->bytes);
      advance(static_cast<int64_t>(tensor->bytes.size()));
    }
    for (int64_t layer = 0; layer < files_.grid.layers; ++layer)
      if (files_.layers[layer].bytes > 0) write_layer(writer, layer);
    writer.write("cadre.pack.checksums", std::as_bytes(std::span(checksums_)));
    writer.commit();
  }

 private:
  GgufKeys make_keys() const {
    GgufKeys keys;
    for (const auto& [key, value] : readers_.front().raw_metadata())
      if (!key.starts_with("split.") && key != "general.alignment") keys.add(key, value);
    keys.add("general.alignment", static_cast<uint32_t>(kReadAlignment));
    keys.add("cadre.pack.version", static_cast<uint32_t>(kPackVersion));
    std::vector<std::string> types;
    std::array<int64_t, 2> shape = {};
    for (const LayerLayout& layer : files_.layers)
      for (const MatrixLayout& matrix : layer.matrices) {
        const bool exists = layer.bytes > 0;
        types.emplace_back(exists ? kernels::block_info(matrix.type).name : "");
        if (exists) shape = {layer.matrices[0].rows, layer.matrices[0].columns};
      }
    keys.add("cadre.pack.types", types);
    keys.add("cadre.pack.shape", std::span<const int64_t>(shape));
    return keys;
  }

  std::vector<GgufTensorSpec> make_specs() {
    std::vector<GgufTensorSpec> specs;
    for (const GgufReader& reader : readers_)
      for (const GgufTensor& tensor : reader.tensors()) {
        if (is_routed_expert(tensor.name)) continue;
        trunk_.push_back(&tensor);
        specs.push_back({tensor.name, tensor.dims, tensor.type.id});
      }
    for (int64_t layer = 0; layer < files_.grid.layers; ++layer)
      if (files_.layers[layer].bytes > 0)
        specs.push_back(
            {records_name(layer), {files_.layers[layer].bytes, files_.grid.experts}, kI8});
    specs.push_back({"cadre.pack.checksums", {files_.grid.experts, files_.grid.layers}, kI32});
    return specs;
  }

  static std::string records_name(int64_t layer) {
    return fmt::format("blk.{}.ffn_panels_exps.weight", layer);
  }

  void write_layer(GgufWriter& writer, int64_t layer) {
    const LayerLayout& layout = files_.layers[layer];
    for (int64_t expert = 0; expert < files_.grid.experts; ++expert) {
      // Zeros between the panels: the same model always gives the same file.
      record_.assign(layout.bytes, std::byte{0});
      const int64_t id = files_.grid.id(layer, expert);
      for (size_t m = 0; m < kExpertMatrices; ++m)
        pack_matrix(layout.matrices[m], files_.parts[id][m].memory,
                    record_.data() + layout.matrices[m].offset);
      checksums_[id] = crc32c(record_);
      writer.write(records_name(layer), record_);
      advance(layout.bytes);
    }
  }

  void advance(int64_t bytes) {
    done_ += bytes;
    if (progress_) progress_({.done = done_, .total = total_});
  }

  std::unique_ptr<TensorSource> source_;
  const std::function<void(const PackProgress&)>& progress_;
  std::vector<GgufReader> readers_;
  ExpertFiles files_;
  std::vector<const GgufTensor*> trunk_;
  std::vector<uint32_t> checksums_;
  std::vector<std::byte> record_;
  int64_t done_ = 0, total_ = 0;
};

}  // namespace

void write_pack(const std::filesystem::path& gguf, const std::filesystem::path& out,
                const std::function<void(const PackProgress&)>& progress) {
  PackWriter(gguf, progress).write(out);
}

}  // namespace cadre::engine
