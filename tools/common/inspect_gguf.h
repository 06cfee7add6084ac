#pragma once

/// What `cadre inspect` shows of a GGUF file: one, the first of a split, or a pack.

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace cadre {

enum class TensorList { kNo, kYes };

/// Keys (long arrays by their size), and tensors by type or one by one. Throws IoError,
/// FormatError.
void print_gguf(const std::filesystem::path& path, TensorList list);
nlohmann::ordered_json gguf_json(const std::filesystem::path& path);

}  // namespace cadre
