#pragma once

/// What to merge, in mergekit's vocabulary: its YAML files are read as they are, plan files and
/// commands say the same in TOML and flags.
///
///   merge_method: ties
///   base_model: base
///   models:                       # or slices: with sources: {model, layer_range: [first, last)}
///     - model: a
///       parameters: {weight: 0.5, density: [0.2, 1.0]}     # a list: a gradient over the layers
///   parameters:
///     normalize: true
///     weight: [{filter: mlp, value: 0.3}, {value: 0.7}]    # by part of the tensor's name
///   dtype: bfloat16

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace cadre::reshape {

struct MergeSource {
  std::string model;
  std::string fisher;                        ///< of method fisher: where its information is
  int64_t first_layer = 0, last_layer = -1;  ///< [first, last); -1 = all
  nlohmann::json parameters;
};

struct MergeSlice {
  std::vector<MergeSource> sources;
  std::string base;  ///< "" = the merge's
  nlohmann::json parameters;
};

struct MergeConfig {
  std::string method, base, dtype, out_dtype, tokenizer_source;
  std::vector<MergeSlice> slices;   ///< of a document with `models`: one, of whole models
  std::vector<std::string> models;  ///< every model named, in order of appearance
  nlohmann::json parameters;
  std::string where;  ///< what errors begin with
};

/// Throws UsageError: unknown keys (naming the nearest), what is missing or of the wrong type, what
/// is not supported (modules, tokenizer unions, adapters as models).
MergeConfig parse_merge_config(const nlohmann::json& document, const std::string& where);

/// A parameter's value for a tensor: that of the source, else the slice's, else the merge's; a list
/// of numbers is read at `t` in [0, 1] between its neighbours; of conditions, the first whose
/// filter is part of the tensor's name counts. Nothing when none says.
std::optional<nlohmann::json> merge_parameter(const MergeConfig& config, const MergeSlice& slice,
                                              const MergeSource* source, const std::string& name,
                                              const std::string& tensor, double t);

}  // namespace cadre::reshape
