#include "cadre/engine/open_experts.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "cadre/base/error.h"
#include "cadre/base/units.h"
#include "cadre/engine/expert_files.h"
#include "cadre/engine/memory_limits.h"
#include "cadre/engine/memory_plan.h"
#include "cadre/engine/pack.h"
#include "cadre/engine/resident_experts.h"
#include "cadre/engine/streaming_provider.h"

namespace cadre::engine {
namespace {

/// Throws the error that lists the names.
template <class Entries>
void check_name(const Entries& entries, const std::string& what, const std::string& name) {
  std::vector<std::string_view> names;
  for (const auto& entry : entries) {
    if (entry.name == name) return;
    names.push_back(entry.name);
  }
  throw UsageError("unknown {} '{}': use one of {}", what, name, fmt::join(names, ", "));
}

ReadMethod method_of(ExpertStorage storage) {
  if (storage == ExpertStorage::kPread) return ReadMethod::kThreads;
  return storage == ExpertStorage::kMmap ? ReadMethod::kMapped : ReadMethod::kRing;
}

void softmax(float* x, int64_t n) {
  const float largest = *std::max_element(x, x + n);
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] = std::exp(x[i] - largest);
  for (int64_t i = 0; i < n; ++i) x[i] /= sum;
}

/// What the router of a layer makes of hidden states that another layer's router saw: a guess, so
/// the plain product and a softmax serve for every router of one matrix over true experts.
class LookAhead {
 public:
  LookAhead(const ModelSpec& spec, const ModelWeights& weights) : spec_(spec), weights_(weights) {}

  bool operator()(int64_t layer, const float* hidden, int64_t tokens,
                  std::vector<float>& probabilities) {
    if (!spec_.has_whole_experts(layer)) return false;
    const Linear& router = weights_.layers[static_cast<size_t>(layer)].router;
    if (spec_.router.scorer != Scorer::kMatrix || router.matrix.rows != spec_.experts) return false;
    const int64_t columns = router.matrix.columns, experts = spec_.experts;
    q_.resize(static_cast<size_t>(tokens * columns));
    scale_.resize(static_cast<size_t>(tokens * columns / kernels::kActivationBlock));
    sums_.resize(2 * scale_.size());
    kernels::quantize_activations(hidden, tokens, columns, q_.data(), scale_.data(), sums_.data());
    probabilities.resize(static_cast<size_t>(tokens * experts));
    const int64_t panels = (experts + kernels::kPanelRows - 1) / kernels::kPanelRows;
    kernels::panel_matmul(router.matrix,
                          {.q = q_.data(),
                           .scale = scale_.data(),
                           .sums = sums_.data(),
                           .values = hidden,
                           .columns = columns},
                          tokens, 0, panels, probabilities.data(), experts);
    for (int64_t t = 0; t < tokens; ++t) {
      float* row = probabilities.data() + t * experts;
      for (size_t e = 0; e < router.bias.size(); ++e) row[e] += router.bias[e];
      softmax(row, experts);
    }
    return true;
  }

 private:
  const ModelSpec& spec_;
  const ModelWeights& weights_;
  std::vector<int8_t> q_;
  std::vector<float> scale_;
  std::vector<int16_t> sums_;
};

}  // namespace

std::optional<kernels::BlockType> kept_as(const TensorSource& source, const ModelOptions& options) {
  if (source.stored_as() == StoredAs::kAsIs) return std::nullopt;
  return options.quantize_to;
}

PackedType packed_types(const TensorSource& source, const ModelOptions& options) {
  return [type = kept_as(source, options)](const SourceTensor& matrix) {
    return packed_type(matrix, type);
  };
}

void check_expert_options(const ModelOptions& options) {
  check_name(cache_policies(), "cache policy", options.cache_policy);
  check_name(predictors(), "predictor", options.predictor);
  if (options.cache_policy == "belady") {
    throw UsageError("cache policy belady needs the future: it serves `cadre replay` only");
  }
  if (options.predictor == "path" && options.predictor_file.empty()) {
    throw UsageError("predictor path needs its weights: name the file with --predictor-file");
  }
}

ExpertPlacement place_experts(const TensorSource& source, const ModelOptions& options,
                              int64_t context) {
  const PackedType packed_type = packed_types(source, options);
  const ExpertFiles files = open_expert_files(source, packed_type);
  const int64_t budget = options.memory > 0 ? options.memory : default_memory(read_memory_limits());
  const MemoryPlan plan = plan_memory(source, files,
                                      {.memory = budget,
                                       .context = context,
                                       .kv_type = options.kv_type,
                                       .pass_tokens = options.prefill},
                                      packed_type);
  if (plan.expert_count == 0) return {};
  const bool fits = budget >= plan.resident;
  if (options.storage == ExpertStorage::kResident) {
    if (fits) return {};
    throw UsageError(
        "holding all experts needs {} of memory, the budget is {}; give more, or let "
        "experts be read from disk",
        format_bytes(static_cast<uint64_t>(plan.resident)),
        format_bytes(static_cast<uint64_t>(budget)));
  }
  if (options.expert_memory) {  // never beyond what the whole budget leaves
    return {.streaming = true, .memory = std::min(*options.expert_memory, plan.experts.bytes)};
  }
  if (fits && options.storage == ExpertStorage::kAuto) return {};
  return {.streaming = true, .memory = plan.experts.bytes};
}

std::unique_ptr<ExpertProvider> open_experts(const TensorSource& source, Packer& packer,
                                             const ModelWeights& weights,
                                             const ModelOptions& options,
                                             const ExpertPlacement& placement) {
  const ReadMethod method = method_of(options.storage);
  if (!placement.streaming) {
    if (!is_pack(source)) return std::make_unique<ResidentExperts>(source, packer);
    return std::make_unique<ResidentExperts>(open_expert_files(source), method);
  }
  ExpertFiles files = open_expert_files(source, packed_types(source, options));
  const ExpertGrid grid = files.grid;
  StreamingOptions streaming = {.memory = placement.memory,
                                .experts_used = source.spec().experts_used,
                                .policy = options.cache_policy,
                                .predictor = options.predictor,
                                .gate = LookAhead(source.spec(), weights),
                                .predictor_file = options.predictor_file,
                                .method = method,
                                .team = &packer.team()};
  if (!options.usage_folder.empty()) {
    const std::string fingerprint = source.fingerprint();
    if (auto rates = load_usage(options.usage_folder, fingerprint, grid)) {
      streaming.usage = std::move(*rates);
    }
    streaming.keep_usage = [folder = options.usage_folder, fingerprint,
                            grid](const std::vector<float>& rates) {
      save_usage(folder, fingerprint, grid, rates);
    };
  }
  return std::make_unique<StreamingProvider>(std::move(files), streaming);
}

}  // namespace cadre::engine
