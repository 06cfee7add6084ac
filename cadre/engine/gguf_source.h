#pragma once

/// A model in GGUF files, as a TensorSource.

#include <filesystem>
#include <memory>

#include "cadre/engine/tensor_source.h"

namespace cadre::engine {

/// Opens `path` and, when it is one of "NAME-00001-of-0000N.gguf", the other parts beside it.
std::unique_ptr<TensorSource> open_gguf(const std::filesystem::path& path);

}  // namespace cadre::engine
