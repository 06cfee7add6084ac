#include "cadre/engine/convert.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/engine/expert_names.h"

namespace cadre::engine {
namespace {

using kernels::BlockType;

constexpr std::array kWritable = {BlockType::kF32,  BlockType::kF16,  BlockType::kBF16,
                                  BlockType::kQ8_0, BlockType::kQ4_0, BlockType::kQ4_K,
                                  BlockType::kQ6_K};
constexpr std::array kRoles = {"embedding", "output",   "attn",    "ffn",   "ffn_gate",
                               "ffn_up",    "ffn_down", "experts", "shared"};

/// llama.cpp's number for a file that is mostly of this type.
uint32_t file_type_of(BlockType type) {
  switch (type) {
    case BlockType::kF32:
      return 0;
    case BlockType::kF16:
      return 1;
    case BlockType::kQ4_0:
      return 2;
    case BlockType::kQ8_0:
      return 7;
    case BlockType::kQ4_K:
      return 14;
    case BlockType::kQ6_K:
      return 18;
    case BlockType::kBF16:
      return 32;
    default:
      return 1024;  // "guessed"
  }
}

/// The type that most of the values have.
BlockType main_type(const GgufImage& image, const std::vector<BlockType>& types) {
  std::map<BlockType, int64_t> counts;
  for (size_t i = 0; i < types.size(); ++i) counts[types[i]] += image.tensors[i].elements();
  const auto most = std::max_element(counts.begin(), counts.end(),
                                     [](auto& a, auto& b) { return a.second < b.second; });
  return most == counts.end() ? BlockType::kF32 : most->first;
}

GgufKeys keys_of(const GgufImage& image, const std::vector<BlockType>& types) {
  GgufKeys keys = image.keys;
  keys.remove("general.file_type");
  keys.remove("general.quantization_version");
  keys.add("general.file_type", file_type_of(main_type(image, types)));
  keys.add("general.quantization_version", uint32_t{2});
  return keys;
}

std::vector<StoredTensor> write_as(const std::filesystem::path& path, GgufImage& image,
                                   const std::vector<BlockType>& types,
                                   const ImageProgress& progress) {
  image.keys = keys_of(image, types);
  return write_image(path, image, types, progress);
}

/// "ffn_down_exps" of "blk.3.ffn_down_exps.weight".
std::string_view base_name(std::string_view name) {
  if (name.starts_with("blk.")) {
    const size_t dot = name.find('.', 4);
    name.remove_prefix(dot == std::string_view::npos ? name.size() : dot + 1);
  }
  return name.substr(0, name.find('.'));
}

bool has_role(std::string_view tensor_name, std::string_view role) {
  const std::string_view base = base_name(tensor_name);
  if (role == base) return true;
  if (role == "embedding") return base == "token_embd";
  if (role == "output") return base == "output";
  if (role == "experts")
    return base.ends_with("_exps") || is_routed_expert(std::string(tensor_name));
  if (role == "shared") return base.ends_with("_shexp");
  if (role == "attn") return base.starts_with("attn_");
  if (role == "ffn") return base.starts_with("ffn_");
  const bool part = role == "ffn_gate" || role == "ffn_up" || role == "ffn_down";
  return part && base.starts_with(role) && (base == role || base[role.size()] == '_');
}

bool fits(const ImageTensor& tensor, BlockType type) {
  return tensor.columns() % kernels::block_info(type).elements == 0;
}

BlockType fitting(const ImageTensor& tensor, BlockType type) {
  if (fits(tensor, type)) return type;
  if (type == BlockType::kQ6_K && fits(tensor, BlockType::kQ8_0)) return BlockType::kQ8_0;
  if (type == BlockType::kQ4_K && fits(tensor, BlockType::kQ4_0)) return BlockType::kQ4_0;
  return BlockType::kF16;
}

void check_writable(BlockType type) {
  if (std::find(kWritable.begin(), kWritable.end(), type) != kWritable.end()) return;
  throw UsageError("{} can be read, not written; choose F16, BF16, Q8_0, Q4_0, Q4_K or Q6_K",
                   kernels::block_info(type).name);
}

void check_role(const GgufImage& image, const RoleType& wanted) {
  check_writable(wanted.type);
  std::set<std::string> names;
  for (const ImageTensor& tensor : image.tensors) {
    if (stays_f32(tensor)) continue;
    if (has_role(tensor.name, wanted.role)) return;
    names.emplace(base_name(tensor.name));
  }
  throw UsageError("{}: no tensor has the role \"{}\" (roles: {}; names: {})", image.where,
                   wanted.role, fmt::join(kRoles, ", "), fmt::join(names, ", "));
}

}  // namespace

RoleType parse_role_type(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0)
    throw UsageError("\"{}\" is no ROLE=TYPE, like attn=Q8_0", text);
  return {text.substr(0, equals), kernels::block_type_named(text.substr(equals + 1))};
}

std::string role_of(const std::string& tensor_name) {
  for (const char* role : {"embedding", "output", "experts", "shared", "attn", "ffn"})
    if (has_role(tensor_name, role)) return role;
  return "other";
}

QuantizePlan plan_quantize(const GgufImage& image, BlockType type,
                           const std::vector<RoleType>& roles) {
  check_writable(type);
  for (const RoleType& wanted : roles) check_role(image, wanted);
  QuantizePlan plan;
  std::map<std::pair<std::string, BlockType>, int64_t> misfits;
  for (const ImageTensor& tensor : image.tensors) {
    BlockType wanted = type;
    for (const RoleType& role : roles)
      if (has_role(tensor.name, role.role)) wanted = role.type;
    if (stays_f32(tensor)) wanted = BlockType::kF32;
    const BlockType stored = fitting(tensor, wanted);
    plan.types.push_back(stored);
    if (stored == wanted) continue;
    ++misfits[{fmt::format("rows of {} do not fill blocks of {}: {}", tensor.columns(),
                           kernels::block_info(wanted).name, base_name(tensor.name)),
               stored}];
  }
  for (const auto& [misfit, count] : misfits)
    plan.notes.push_back(fmt::format("{} ({} tensor{}) stored as {}", misfit.first, count,
                                     count == 1 ? "" : "s",
                                     kernels::block_info(misfit.second).name));
  return plan;
}

int64_t quantized_bytes(const GgufImage& image, const QuantizePlan& plan) {
  return gguf_bytes(keys_of(image, plan.types), specs_of(image, plan.types));
}

std::vector<StoredTensor> quantize_gguf(const std::filesystem::path& path, GgufImage image,
                                        const QuantizePlan& plan, const ImageProgress& progress) {
  return write_as(path, image, plan.types, progress);
}

std::vector<StoredTensor> write_gguf(const std::filesystem::path& path, GgufImage image,
                                     BlockType type, const ImageProgress& progress) {
  std::vector<BlockType> types;
  for (const ImageTensor& tensor : image.tensors)
    types.push_back(stays_f32(tensor) ? BlockType::kF32 : type);
  return write_as(path, image, types, progress);
}

BlockType float_type_of(const GgufImage& image) {
  std::map<BlockType, int64_t> bytes;
  for (const ImageTensor& tensor : image.tensors)
    bytes[tensor.parts.front().type] += tensor.bytes();
  BlockType type = BlockType::kF32;
  int64_t most = 0;
  for (const auto& [candidate, count] : bytes) {
    if (count <= most) continue;
    most = count;
    type = candidate;
  }
  const bool is_float =
      type == BlockType::kF32 || type == BlockType::kF16 || type == BlockType::kBF16;
  return is_float ? type : BlockType::kF32;
}

}  // namespace cadre::engine
