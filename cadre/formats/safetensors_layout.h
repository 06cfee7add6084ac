#pragma once

/// How safetensors files and folders of shards are laid out, for writers that place tensors
/// themselves (SafetensorsWriter streams them in order).

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cadre/formats/safetensors.h"

namespace cadre {

/// A file's beginning: length and header, a multiple of 8 bytes; the tensors' bytes follow in this
/// order without gaps. Throws UsageError as SafetensorsWriter does.
std::string safetensors_head(const std::vector<TensorSpec>& tensors,
                             const std::map<std::string, std::string>& metadata);

/// Cut into shards of at most `shard_bytes`, in this order; a larger tensor has one of its own.
std::vector<std::vector<TensorSpec>> cut_shards(std::vector<TensorSpec> tensors,
                                                int64_t shard_bytes);

/// "model.safetensors", "model-00001-of-00003.safetensors"; `shard` counts from 0.
std::string shard_name(const std::string& stem, size_t shard, size_t shards);

/// The content of "model.safetensors.index.json".
std::string shard_index_json(const std::string& stem,
                             const std::vector<std::vector<TensorSpec>>& shards);

}  // namespace cadre
