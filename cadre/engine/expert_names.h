#pragma once

/// GGUF names of routed experts' weights: a layer's stack "blk.3.ffn_up_exps.weight", or one tensor
/// an expert, "blk.3.ffn_up.7.weight", as old Mixtral files and files of mixed types have it.

#include <cstdint>
#include <optional>
#include <string>

namespace cadre::engine {

/// Either form.
bool is_routed_expert(const std::string& name);
/// "blk.3.ffn_up.7.weight" of the stack's name and 7.
std::string single_expert_name(const std::string& stacked_name, int64_t expert);

/// L of "blk.L.ffn_up_exps.weight"; -1 for a name of no layer.
int64_t layer_of_tensor(const std::string& name);

/// Key of a GGUF file whose layer's experts are merged: which stored expert each one is, an array
/// of integers.
std::string expert_map_key(int64_t layer);
/// Its layer; none for another key.
std::optional<int64_t> layer_of_map_key(const std::string& key);

}  // namespace cadre::engine
