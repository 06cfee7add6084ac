#include "cadre/engine/convert_image.h"

#include <array>
#include <charconv>
#include <optional>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/engine/expert_names.h"
#include "cadre/formats/gguf.h"
#include "cadre/formats/json.h"

namespace cadre::engine {
namespace {

namespace fs = std::filesystem;
using kernels::BlockType;

constexpr int64_t kMaxParts = 99999;  // the width of the number in a part's name

/// The parts of "NAME-00001-of-00003.gguf", or the file itself.
std::vector<fs::path> parts_of(const fs::path& path, int64_t count) {
  if (count <= 1) return {path};
  const std::string text = path.string();
  const std::string tail = fmt::format("-00001-of-{:05d}.gguf", count);
  if (count > kMaxParts || !text.ends_with(tail))
    throw UsageError("{}: is one of {} parts: give the first, whose name ends in {}", text, count,
                     tail);
  std::vector<fs::path> parts;
  const std::string stem = text.substr(0, text.size() - tail.size());
  for (int64_t i = 1; i <= count; ++i)
    parts.emplace_back(fmt::format("{}-{:05d}-of-{:05d}.gguf", stem, i, count));
  return parts;
}

BlockType block_type_of(const GgufTensor& tensor, const std::string& where) {
  try {
    return kernels::block_type_named(tensor.type.name);
  } catch (const UsageError&) {
    throw FormatError("{}: tensor {} is stored as {}, which cannot be decoded", where,
                      quote(tensor.name), tensor.type.name);
  }
}

}  // namespace

int64_t ImageTensor::elements() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

int64_t ImageTensor::bytes() const {
  int64_t total = 0;
  for (const ImagePart& part : parts) total += static_cast<int64_t>(part.bytes.size());
  return total;
}

bool stays_f32(const ImageTensor& tensor) {
  constexpr std::array kNames = {"_norm.",         "ffn_gate_inp", "ssm_conv1d.",
                                 "position_embd.", "token_types.", "attn_rel_b."};
  if (tensor.shape.size() < 2 || !tensor.name.ends_with(".weight")) return true;
  for (const char* name : kNames)
    if (tensor.name.find(name) != std::string::npos) return true;
  return false;
}

GgufImage image_of_gguf(const fs::path& path) {
  GgufImage image = {.where = path.string()};
  const std::string count_key = "split.count";
  int64_t count = 1;
  for (size_t i = 0; i < parts_of(path, count).size(); ++i) {
    const fs::path part = parts_of(path, count)[i];
    const auto file = std::make_shared<const GgufReader>(part);
    image.files.push_back(file);
    if (i == 0) {
      if (file->contains(count_key)) count = file->integer(count_key);
      for (const auto& [key, value] : file->raw_metadata()) {
        if (key.starts_with("split.")) continue;
        image.keys.add(key, value);
        if (const auto layer = layer_of_map_key(key)) {
          const auto map = file->integers(key);
          image.expert_maps[*layer] = {map.begin(), map.end()};
        }
      }
    }
    for (const GgufTensor& tensor : file->tensors()) {
      image.tensors.push_back({.name = tensor.name,
                               .shape = {tensor.dims.rbegin(), tensor.dims.rend()},
                               .parts = {{tensor.bytes, block_type_of(tensor, part.string())}}});
      if (image.tensors.back().shape.empty()) image.tensors.back().shape = {1};
    }
  }
  return image;
}

GgufImage open_image(const fs::path& path) {
  if (fs::is_directory(path)) return image_of_checkpoint(path);
  return image_of_gguf(path);
}

}  // namespace cadre::engine
