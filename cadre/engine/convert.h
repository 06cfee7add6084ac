#pragma once

/// Conversion between checkpoint directories and GGUF, and quantising: what the verbs `convert` and
/// `quantize` do.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "cadre/engine/convert_image.h"

namespace cadre::engine {

/// Every matrix as `type` (F32, F16 or BF16), what stays F32 as it is. A directory's `image` or a
/// GGUF file's. Throws UsageError, IoError.
std::vector<StoredTensor> write_gguf(const std::filesystem::path& path, GgufImage image,
                                     kernels::BlockType type, const ImageProgress& progress = {});

/// The type that most of an image's bytes have, when that is F32, F16 or BF16; else F32.
kernels::BlockType float_type_of(const GgufImage& image);

/// A GGUF file as a checkpoint directory: config.json, tokenizer.json, model.safetensors (in
/// shards when large) with every tensor as `type`; atomic. The file's own config.json is used when
/// it holds one (cadre convert writes it), else one is made for llama, olmoe and deepseek. Throws
/// FormatError (a model that no directory can hold; names the tensor or key), UsageError, IoError.
void write_checkpoint(const std::filesystem::path& folder, const std::filesystem::path& gguf,
                      kernels::BlockType type, const ImageProgress& progress = {});

/// One tensor role and how it is stored: "attn=Q8_0". A role is one of
///   embedding, output, attn, ffn, ffn_gate, ffn_up, ffn_down, experts, shared
/// or a tensor's own name without layer and ending ("attn_v", "ffn_down_exps").
struct RoleType {
  std::string role;
  kernels::BlockType type;
};
/// Throws UsageError for an unknown type. Roles are checked against the model when it is quantised.
RoleType parse_role_type(const std::string& text);

struct QuantizePlan {
  std::vector<kernels::BlockType> types;  ///< of each tensor of the image
  std::vector<std::string> notes;         ///< what could not be had, a line each
};
/// What each tensor will be stored as: `type`, but where a role says otherwise (the last that fits
/// counts); F32 where stays_f32(). Rows that do not fill the type's blocks take the next best: Q6_K
/// becomes Q8_0, Q4_K becomes Q4_0, and either becomes F16 when the row is no multiple of 32.
/// Throws UsageError for a role that no tensor has, and a type that cannot be written.
QuantizePlan plan_quantize(const GgufImage& image, kernels::BlockType type,
                           const std::vector<RoleType>& roles);

/// Size of the file that quantize_gguf() writes.
int64_t quantized_bytes(const GgufImage& image, const QuantizePlan& plan);

/// Throws as write_image does.
std::vector<StoredTensor> quantize_gguf(const std::filesystem::path& path, GgufImage image,
                                        const QuantizePlan& plan,
                                        const ImageProgress& progress = {});

/// The role that a report counts a tensor under: one of the list above, or "other".
std::string role_of(const std::string& tensor_name);

}  // namespace cadre::engine
