#include "cadre/reshape/merge.h"

#include <algorithm>
#include <optional>
#include <set>

#include "cadre/base/error.h"
#include "cadre/formats/json.h"
#include "cadre/reshape/copy.h"
#include "cadre/reshape/merge_methods.h"

namespace cadre::reshape {
namespace {

using nlohmann::json;

constexpr std::string_view kLayerPrefix = "model.layers.";

/// "model.layers.3.mlp.up_proj.weight" for another layer.
std::string in_layer(const std::string& name, int64_t layer) {
  const size_t end = name.find('.', kLayerPrefix.size());
  return fmt::format("{}{}{}", kLayerPrefix, layer, name.substr(end));
}

class MergePlanner {
 public:
  MergePlanner(const MergeConfig& config, std::span<const CheckpointPtr> models)
      : config_(config), models_(models), method_(merge_method_named(config.method)) {
    if (models.size() != config.models.size())
      throw UsageError("{}: names {} models, {} are given", config.where, config.models.size(),
                       models.size());
  }

  Plan plan() {
    const MergeSlice& first = config_.slices.front();
    const MergeSlice& last = config_.slices.back();
    const Schema& schema = schema_of_source(first.sources.front());
    const Schema& end = schema_of_source(last.sources.front());
    for (const SchemaTensor& tensor : schema.tensors())
      if (tensor.layer < 0 && !stands_last(tensor)) add(tensor, first, tensor.info.name, 0, 0);
    int64_t layer = 0;
    for (const MergeSlice& slice : config_.slices) layer = add_slice(slice, layer);
    for (const SchemaTensor& tensor : end.tensors())
      if (tensor.layer < 0 && stands_last(tensor)) add(tensor, last, tensor.info.name, 0, 1);
    check_all_taken();
    plan_.config_out = config_out(layer);
    plan_.tokenizer_from = tokenizer_from();
    return std::move(plan_);
  }

 private:
  static bool stands_last(const SchemaTensor& tensor) {
    return tensor.role == Role::kFinalNorm || tensor.role == Role::kHead;
  }

  int index_of(const std::string& model) const {
    const auto found = std::find(config_.models.begin(), config_.models.end(), model);
    return static_cast<int>(found - config_.models.begin());
  }
  const Schema& schema_of(const std::string& model) const {
    return models_[static_cast<size_t>(index_of(model))]->schema();
  }
  const Schema& schema_of_source(const MergeSource& source) const {
    return schema_of(source.model);
  }

  /// Layers of a slice under their new numbers; returns the next number.
  int64_t add_slice(const MergeSlice& slice, int64_t layer) {
    const MergeSource& first = slice.sources.front();
    const Schema& schema = schema_of_source(first);
    const int64_t end = first.last_layer < 0 ? schema.layers() : first.last_layer;
    for (const MergeSource& source : slice.sources) {
      const int64_t last = source.last_layer < 0 ? end : source.last_layer;
      const int64_t layers = schema_of_source(source).layers();
      if (last > layers || (source.last_layer < 0 && layers != end))
        throw UsageError("{}: model {} has {} layers, {} are asked for", config_.where,
                         quote(source.model), layers, last);
    }
    const int64_t count = end - first.first_layer;
    for (int64_t i = 0; i < count; ++i) {
      const double t = count == 1 ? 1 : static_cast<double>(i) / static_cast<double>(count - 1);
      for (const SchemaTensor& tensor : schema.tensors())
        if (tensor.layer == first.first_layer + i)
          add(tensor, slice, in_layer(tensor.info.name, layer + i), i, t);
    }
    return layer + count;
  }

  /// One output tensor: `like` is the first source's, `offset` the layer's place in the slice.
  void add(const SchemaTensor& like, const MergeSlice& slice, const std::string& name,
           int64_t offset, double t) {
    const std::string base = slice.base.empty() ? config_.base : slice.base;
    MergeTensor tensor = {.out = {name, like.info.dtype, like.info.shape}, .where = config_.where};
    std::vector<const MergeSource*> sources;
    for (const MergeSource& source : slice.sources) {
      const SliceRef ref = find(source, like, offset);
      if (source.model == base && method_.base != MergeBase::kNone) {
        tensor.base = ref;
        tensor.has_base = true;
        continue;
      }
      tensor.models.push_back(ref);
      sources.push_back(&source);
      if (!source.fisher.empty()) tensor.fisher.push_back(ref_in(source.fisher, ref.name, like));
    }
    if (!tensor.has_base && !base.empty() && method_.base != MergeBase::kNone) {
      tensor.base =
          find({.model = base, .first_layer = slice.sources.front().first_layer}, like, offset);
      tensor.has_base = true;
    }
    check_count(tensor);
    choose_types(tensor);
    tensor.parameter = [&, t, name](const std::string& key) {
      return value_of(slice, nullptr, key, name, t);
    };
    tensor.model_parameter = [&, t](const std::string& key, size_t model) {
      return value_of(slice, sources[model], key, tensor.models[model].name, t);
    };
    try {
      plan_.steps.push_back(method_.step(tensor));
    } catch (const UsageError& error) {
      const std::string what = error.what();
      if (what.starts_with(config_.where)) throw;
      throw UsageError("{}: {}", config_.where, what);
    }
  }

  json value_of(const MergeSlice& slice, const MergeSource* source, const std::string& key,
                const std::string& tensor, double t) const {
    if (auto value = merge_parameter(config_, slice, source, key, tensor, t)) return *value;
    const json& fallback = method_.parameter(key).fallback;
    if (!fallback.is_null()) return fallback;
    throw UsageError("{}: method {} needs parameter \"{}\"{} (for tensor {})", config_.where,
                     method_.name, key,
                     source == nullptr ? "" : " of model " + quote(source->model), quote(tensor));
  }

  SliceRef find(const MergeSource& source, const SchemaTensor& like, int64_t offset) {
    const std::string name =
        like.layer < 0 ? like.info.name : in_layer(like.info.name, source.first_layer + offset);
    return ref_in(source.model, name, like);
  }

  SliceRef ref_in(const std::string& model, const std::string& name, const SchemaTensor& like) {
    const SchemaTensor& found = schema_of(model).require(name);
    if (found.info.shape != like.info.shape)
      throw UsageError("{}: tensor {} is [{}] in {}, [{}] in {}", config_.where, quote(name),
                       fmt::join(found.info.shape, ", "), quote(model),
                       fmt::join(like.info.shape, ", "),
                       quote(config_.slices.front().sources.front().model));
    taken_.insert({index_of(model), name});
    return {.checkpoint = index_of(model), .name = name};
  }

  void check_count(const MergeTensor& tensor) const {
    const auto count = static_cast<int>(tensor.models.size());
    if (method_.base == MergeBase::kRequired && !tensor.has_base)
      throw UsageError("{}: method {} needs key \"base_model\"", config_.where, method_.name);
    const int least = method_.min_models, most = method_.max_models;
    const int pair = std::string_view(method_.name) == "slerp" ? (tensor.has_base ? 1 : 2) : count;
    if (count >= least && count <= most && count == pair) return;
    const std::string wanted = pair != count   ? std::to_string(pair)
                               : least == most ? std::to_string(least)
                                               : fmt::format("at least {}", least);
    throw UsageError("{}: method {} takes {} models{}, {} are given", config_.where, method_.name,
                     wanted, tensor.has_base ? " beside the base" : "", count);
  }

  void choose_types(MergeTensor& tensor) const {
    const auto type_of = [&](const SliceRef& ref) {
      return models_[static_cast<size_t>(ref.checkpoint)]->schema().require(ref.name).info.dtype;
    };
    tensor.widest = type_of(tensor.models.empty() ? tensor.base : tensor.models.front());
    for (const SliceRef& ref : tensor.models)
      if (size_of(type_of(ref)) > size_of(tensor.widest)) tensor.widest = type_of(ref);
    const std::string& asked = config_.out_dtype.empty() ? config_.dtype : config_.out_dtype;
    const DType own = tensor.has_base ? type_of(tensor.base) : tensor.out.dtype;
    tensor.out.dtype = dtype_param(asked, own, config_.where);
  }

  /// What another model has and the first lacks would be lost silently. Not of layers, of which a
  /// slice may leave out some.
  void check_all_taken() const {
    const MergeSlice& slice = config_.slices.front();
    for (const MergeSource& source : slice.sources)
      for (const SchemaTensor& tensor : schema_of_source(source).tensors()) {
        const bool whole = source.last_layer < 0 || tensor.layer < 0;
        if (whole && config_.slices.size() == 1 &&
            !taken_.contains({index_of(source.model), tensor.info.name}))
          throw UsageError("{}: model {} has tensor {}, {} has not", config_.where,
                           quote(source.model), quote(tensor.info.name),
                           quote(slice.sources.front().model));
      }
  }

  json config_out(int64_t layers) const {
    const std::string& from =
        config_.base.empty() ? config_.slices.front().sources.front().model : config_.base;
    json config = schema_of(from).config();
    if (config.contains("num_hidden_layers")) config["num_hidden_layers"] = layers;
    const std::string& asked = config_.out_dtype.empty() ? config_.dtype : config_.out_dtype;
    if (!asked.empty() && config.contains("torch_dtype")) {
      const DType type = dtype_param(asked, DType::kF32, config_.where);
      config["torch_dtype"] = type == DType::kBF16  ? "bfloat16"
                              : type == DType::kF16 ? "float16"
                                                    : "float32";
    }
    return config;
  }

  int tokenizer_from() const {
    if (!config_.tokenizer_source.empty() && config_.tokenizer_source != "base")
      return index_of(config_.tokenizer_source);
    return index_of(config_.base.empty() ? config_.slices.front().sources.front().model
                                         : config_.base);
  }

  const MergeConfig& config_;
  const std::span<const CheckpointPtr> models_;
  const MergeMethod& method_;
  std::set<std::pair<int, std::string>> taken_;
  Plan plan_;
};

class MergeOp : public ReshapeOp {
 public:
  Plan plan(const PlanRequest& request) const override {
    const MergeConfig config =
        parse_merge_config(request.params.any("config"), request.params.where());
    return plan_merge(config, request.inputs);
  }
};

}  // namespace

Plan plan_merge(const MergeConfig& config, std::span<const CheckpointPtr> models) {
  return MergePlanner(config, models).plan();
}

OpInfo merge_op() {
  constexpr int kMany = 1000;
  return {.name = "merge",
          .help = "Several models of one architecture become one, by 21 methods",
          .paper = "",
          .min_inputs = 1,
          .max_inputs = kMany,
          .params = {{"config", ParamType::kAny, nullptr, "A mergekit document"}},
          .make = [] { return std::unique_ptr<ReshapeOp>(std::make_unique<MergeOp>()); }};
}

}  // namespace cadre::reshape
