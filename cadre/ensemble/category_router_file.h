#pragma once

/// A category router with its categories' names, as one safetensors file.

#include <filesystem>
#include <string>
#include <vector>

#include "cadre/ensemble/category_router.h"

namespace cadre::ensemble {

struct NamedCategories {
  CategoryRouter router;
  std::vector<std::string> names;  ///< [categories], all different
};

/// Replaces the file atomically. Throws IoError, UsageError when the names do not fit.
void write_category_router(const std::filesystem::path& path, const NamedCategories& categories);

/// Throws IoError, FormatError that names file and field.
NamedCategories read_category_router(const std::filesystem::path& path);

}  // namespace cadre::ensemble
