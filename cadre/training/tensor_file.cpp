#include "cadre/training/tensor_file.h"

#include <fmt/ranges.h>

#include <cstring>

#include "cadre/base/error.h"

namespace cadre {
namespace {

torch::ScalarType scalar_type_of(DType type) {
  switch (type) {
    case DType::kF32:
      return torch::kFloat32;
    case DType::kBF16:
      return torch::kBFloat16;
    case DType::kF16:
      return torch::kFloat16;
    default:
      return torch::ScalarType::Undefined;
  }
}

}  // namespace

std::vector<TensorSpec> specs_of(const NamedTensors& tensors) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : tensors) {
    if (tensor.scalar_type() != torch::kFloat32 || !tensor.is_contiguous()) {
      throw Error("tensor {} is not dense fp32", name);
    }
    specs.push_back({name, DType::kF32, tensor.sizes().vec()});
  }
  return specs;
}

std::span<const std::byte> bytes_of(const torch::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

void write_tensors(const std::filesystem::path& file, const NamedTensors& tensors) {
  SafetensorsWriter writer(file, specs_of(tensors), {{"format", "pt"}});
  for (const auto& [name, tensor] : tensors) writer.write(name, bytes_of(tensor));
  writer.commit();
}

void check_tensor(const SafetensorsReader& reader, const std::string& name,
                  const std::vector<int64_t>& shape, const std::filesystem::path& file) {
  if (!reader.contains(name)) throw FormatError("{}: tensor {} is missing", file.string(), name);
  const TensorView& view = reader.tensor(name);
  if (view.shape != shape) {
    throw FormatError("{}: tensor {} has shape [{}], the model needs [{}]", file.string(), name,
                      fmt::join(view.shape, ", "), fmt::join(shape, ", "));
  }
  if (scalar_type_of(view.dtype) == torch::ScalarType::Undefined) {
    throw FormatError("{}: tensor {} is {}, must be F32, BF16 or F16", file.string(), name,
                      name_of(view.dtype));
  }
}

void read_tensors(const SafetensorsReader& reader, const std::filesystem::path& file,
                  const NamedTensors& tensors) {
  const torch::NoGradGuard no_grad;
  for (const auto& [name, tensor] : tensors) {
    check_tensor(reader, name, tensor.sizes().vec(), file);
    const TensorView& view = reader.tensor(name);
    // Through a copy: the file promises no alignment.
    const torch::Tensor stored = torch::empty(view.shape, scalar_type_of(view.dtype));
    std::memcpy(stored.data_ptr(), view.bytes.data(), view.bytes.size());
    torch::Tensor target = tensor;
    target.copy_(stored);
    if (!target.isfinite().all().item<bool>()) {
      throw FormatError("{}: tensor {} holds values that are not finite", file.string(), name);
    }
  }
}

}  // namespace cadre
