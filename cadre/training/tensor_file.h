#pragma once

/// Torch tensors from and to safetensors files, in fp32.

#include <torch/torch.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "cadre/formats/safetensors.h"

namespace cadre {

using NamedTensors = std::vector<std::pair<std::string, torch::Tensor>>;

/// What a safetensors writer wants to know of dense fp32 tensors, and the bytes of one of them.
std::vector<TensorSpec> specs_of(const NamedTensors& tensors);
std::span<const std::byte> bytes_of(const torch::Tensor& tensor);

/// Writes dense fp32 tensors as one file, atomically. Throws IoError.
void write_tensors(const std::filesystem::path& file, const NamedTensors& tensors);

/// Throws FormatError naming file and tensor unless the reader holds each name with this shape and
/// a type that becomes fp32 (F32, BF16, F16). Other tensors are let be.
void check_tensor(const SafetensorsReader& reader, const std::string& name,
                  const std::vector<int64_t>& shape, const std::filesystem::path& file);

/// Fills `tensors` (without gradient) from the reader, checked as above; FormatError too when a
/// value is not finite.
void read_tensors(const SafetensorsReader& reader, const std::filesystem::path& file,
                  const NamedTensors& tensors);

}  // namespace cadre
