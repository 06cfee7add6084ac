#include "cadre/reshape/merge_experts.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <numeric>

#include "cadre/base/error.h"
#include "cadre/reshape/align.h"
#include "cadre/reshape/expert_groups.h"
#include "cadre/reshape/expert_steps.h"
#include "cadre/reshape/layer_stats.h"
#include "cadre/reshape/mix_kernels.h"

namespace cadre::reshape {
namespace {

/// Values read at a time where all experts of a layer are compared.
constexpr int64_t kCompared = 1 << 16;

/// Finds experts' permutations when a step first needs them; gate, up and down share them.
class Aligner {
 public:
  Aligner(CheckpointPtr checkpoint, int64_t layer)
      : checkpoint_(std::move(checkpoint)), layer_(layer) {}

  /// Place i takes the member's neuron order[i].
  const std::vector<int32_t>& order(int64_t reference, int64_t member) {
    const std::lock_guard lock(mutex_);
    auto [found, is_new] = orders_.try_emplace({reference, member});
    if (!is_new) return found->second;
    const Expert a = read(reference), b = read(member);
    found->second = align_by_weights(a.view(), b.view()).neurons;
    return found->second;
  }

  static int64_t scratch_bytes(const Schema& schema, int64_t layer) {
    const auto shape = schema.expert_shape(Role::kExpertGate, layer, 0);
    return 6 * 4 * shape[0] * shape[1] + align_scratch_bytes(shape[0]);
  }

 private:
  struct Expert {
    int64_t hidden, inner;
    std::vector<float> gate, up, down;
    ExpertView view() const { return {hidden, inner, gate.data(), up.data(), down.data()}; }
  };
  Expert read(int64_t expert) const {
    const auto shape = checkpoint_->schema().expert_shape(Role::kExpertGate, layer_, expert);
    return {.hidden = shape[1],
            .inner = shape[0],
            .gate = read_expert(*checkpoint_, Role::kExpertGate, layer_, expert),
            .up = read_expert(*checkpoint_, Role::kExpertUp, layer_, expert),
            .down = read_expert(*checkpoint_, Role::kExpertDown, layer_, expert)};
  }

  CheckpointPtr checkpoint_;
  int64_t layer_;
  std::mutex mutex_;
  std::map<std::pair<int64_t, int64_t>, std::vector<int32_t>> orders_;
};

/// One group of one layer.
struct Merge {
  int64_t layer = 0;
  std::vector<int32_t> members;
  std::vector<double> weights;
  int64_t reference = 0;
  std::shared_ptr<Aligner> aligner;  ///< null = neurons stay as they are
};

WholeKernel aligned_sum(Merge merge, Role role, int64_t rows, int64_t columns) {
  return [merge = std::move(merge), role, rows, columns](const Whole& whole) {
    std::vector<double> sum(static_cast<size_t>(rows * columns), 0);
    for (size_t m = 0; m < merge.members.size(); ++m) {
      const auto& order = merge.aligner->order(merge.reference, merge.members[m]);
      const std::span<const float> in = whole.in[m];
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < columns; ++c) {
          const int64_t from = role == Role::kExpertDown
                                   ? r * columns + order[static_cast<size_t>(c)]
                                   : order[static_cast<size_t>(r)] * columns + c;
          sum[static_cast<size_t>(r * columns + c)] +=
              merge.weights[m] * in[static_cast<size_t>(from)];
        }
      }
    }
    std::transform(sum.begin(), sum.end(), whole.out[0].begin(),
                   [](double value) { return static_cast<float>(value); });
  };
}

Step merge_step(const Schema& schema, const Merge& merge, Role role, const std::string& name) {
  const int32_t first = merge.members.front();
  const auto shape = schema.expert_shape(role, merge.layer, first);
  Step step = {.out = {{name, expert_dtype(schema, role, merge.layer, first), shape}}};
  for (const int32_t e : merge.members) {
    step.in.push_back(schema.expert_matrix(role, merge.layer, e));
  }
  if (merge.members.size() == 1) {
    step.kernel = CopyKernel{};
  } else if (merge.aligner == nullptr) {
    step.kernel = linear_kernel(merge.weights, Weights::kAsGiven);
  } else {
    step.kernel = aligned_sum(merge, role, shape[0], shape[1]);
    step.scratch_bytes = 8 * shape[0] * shape[1] + Aligner::scratch_bytes(schema, merge.layer);
  }
  return step;
}

/// Gram matrix of the experts' weights, read side by side.
std::vector<double> weights_gram(const Checkpoint& checkpoint, int64_t layer, int64_t experts) {
  const Schema& schema = checkpoint.schema();
  const auto n = static_cast<size_t>(experts);
  std::vector<double> gram(n * n, 0);
  std::vector<float> values(n * kCompared);
  for (const Role role : kExpertRoles) {
    const auto shape = schema.expert_shape(role, layer, 0);
    const int64_t size = shape[0] * shape[1];
    for (int64_t at = 0; at < size; at += kCompared) {
      const auto count = static_cast<size_t>(std::min(kCompared, size - at));
      for (size_t e = 0; e < n; ++e) {
        const SliceRef slice = schema.expert_matrix(role, layer, static_cast<int64_t>(e));
        read_values(checkpoint, schema.require(slice.name), slice.first_row * shape[1] + at,
                    std::span(values).subspan(e * count, count));
      }
      for (size_t i = 0; i < n; ++i) {
        for (size_t j = 0; j <= i; ++j) {
          const double dot =
              std::inner_product(values.begin() + static_cast<int64_t>(i * count),
                                 values.begin() + static_cast<int64_t>((i + 1) * count),
                                 values.begin() + static_cast<int64_t>(j * count), 0.0);
          gram[i * n + j] += dot;
          if (i != j) gram[j * n + i] += dot;
        }
      }
    }
  }
  return gram;
}

uint64_t hash_of(const Checkpoint& checkpoint, int64_t layer, int64_t expert) {
  const Schema& schema = checkpoint.schema();
  uint64_t hash = 0;
  for (const Role role : kExpertRoles) {
    const SliceRef slice = schema.expert_matrix(role, layer, expert);
    const SchemaTensor& tensor = schema.require(slice.name);
    const int64_t columns = columns_of(tensor.info.shape);
    for (int64_t row = 0; row < slice.rows; row += 1024) {
      const int64_t count = std::min<int64_t>(1024, slice.rows - row) * columns;
      const int64_t first = (slice.first_row + row) * columns;
      std::vector<std::byte> buffer;
      const auto bytes = checkpoint.bytes(tensor, first, count, buffer);
      hash = XXH3_64bits_withSeed(bytes.data(), bytes.size(), hash);
      checkpoint.drop(tensor, first, count);
    }
  }
  return hash;
}

/// Experts with the same bytes.
ExpertGroups identical_groups(const Checkpoint& checkpoint, int64_t layer, int64_t experts) {
  ExpertGroups groups;
  std::vector<uint64_t> hashes;
  for (int64_t e = 0; e < experts; ++e) {
    const uint64_t hash = hash_of(checkpoint, layer, e);
    const auto known = std::find(hashes.begin(), hashes.end(), hash);
    groups.group_of.push_back(static_cast<int32_t>(known - hashes.begin()));
    if (known != hashes.end()) continue;
    hashes.push_back(hash);
    groups.dominant.push_back(static_cast<int32_t>(e));
  }
  return groups;
}

class MergeExperts : public ReshapeOp {
 public:
  Plan plan(const PlanRequest& request) const override { return Planner(request).plan(); }

 private:
  class Planner {
   public:
    explicit Planner(const PlanRequest& request)
        : request_(request),
          params_(request.params),
          input_(request.inputs[0]),
          schema_(input_->schema()),
          layers_(expert_layers(schema_)) {}

    Plan plan() {
      check();
      choose_layers();
      plan_.config_out = schema_.config();
      nlohmann::json stored = nlohmann::json::array();
      for (size_t i = 0; i < merged_.size(); ++i) {
        const ExpertGroups groups = groups_of(i);
        stored.push_back(groups.groups());
        add_layer(i, groups);
      }
      for (const SchemaTensor& tensor : schema_.tensors()) {
        const bool replaced = is_routed_expert(tensor) && is_merged(tensor.layer);
        if (!replaced) plan_.steps.push_back(copy_step(tensor, 0));
      }
      plan_.record["groups"] = stored;
      plan_.record["usage"] = usage_;  // a resumed run must have had the same statistics
      return std::move(plan_);
    }

   private:
    void check() const {
      for (const int64_t layer : layers_) {
        if (schema_.experts_of(layer) == schema_.experts()) continue;
        throw UsageError("{}: the experts of layer {} are merged already: start from the original",
                         schema_.where(), layer);
      }
      for (const char* key : {"by", "budget", "align", "reference"}) choice(key);
      member_weights_named(params_.text("weights"));
    }

    /// A text parameter, one of those it may be.
    std::string choice(const std::string& key) const {
      static const std::map<std::string, std::vector<std::string>> kChoices = {
          {"by", {"router", "outputs", "weights", "random", "identical"}},
          {"budget", {"adaptive", "uniform"}},
          {"align", {"weights", "none"}},
          {"reference", {"expert0", "dominant"}}};
      const std::string value = params_.text(key);
      const auto& known = kChoices.at(key);
      if (std::find(known.begin(), known.end(), value) != known.end()) return value;
      throw UsageError("{}: {} is \"{}\", must be one of {}", params_.where(), key, value,
                       fmt::join(known, ", "));
    }

    bool is_merged(int64_t layer) const {
      return std::find(merged_.begin(), merged_.end(), layer) != merged_.end();
    }

    void choose_layers() {
      const auto kept = params_.numbers("keep_layers");
      for (const int64_t layer : layers_) {
        if (std::find(kept.begin(), kept.end(), static_cast<double>(layer)) == kept.end()) {
          merged_.push_back(layer);
        }
      }
      for (const int64_t layer : merged_) usage_.push_back(usage_of(layer));
      if (choice("by") == "identical") return;
      if (params_.integer("experts") < 1) {
        throw UsageError(
            "{}: experts is {}, must be at least 1: how many a layer keeps, on average",
            params_.where(), params_.integer("experts"));
      }
      counts_ = group_counts(
          usage_, params_.integer("experts"),
          choice("budget") == "adaptive" ? GroupBudget::kAdaptive : GroupBudget::kUniform);
    }

    std::vector<double> usage_of(int64_t layer) const {
      const auto experts = static_cast<size_t>(schema_.experts());
      const std::string by = choice("by");
      const bool matters =
          by == "router" || by == "outputs" || params_.text("weights") != "uniform";
      if (request_.stats == nullptr && (by == "identical" || !matters)) {
        return std::vector<double>(experts, 1.0 / static_cast<double>(experts));
      }
      return layer_stat(need_stats(request_, "merge_experts"), layer, kUsage, {schema_.experts()});
    }

    ExpertGroups groups_of(size_t i) const {
      const std::string by = choice("by");
      const int64_t layer = merged_[i], experts = schema_.experts();
      if (by == "identical") return identical_groups(*input_, layer, experts);
      const auto seed = static_cast<uint64_t>(params_.integer("seed"));
      if (by == "random") {
        return group_at_random(usage_[i], counts_[i], seed * 1000 + static_cast<uint64_t>(layer));
      }
      std::vector<double> gram;
      if (by == "router") {
        gram = layer_stat(*request_.stats, layer, kLogitsGram, {experts, experts});
      } else if (by == "weights") {
        gram = weights_gram(*input_, layer, experts);
      } else {
        gram = outputs_gram(layer, experts);
      }
      return group_by_similarity(usage_[i], similarity_of_gram(experts, gram), counts_[i],
                                 params_.integer("capacity"));
    }

    std::vector<double> outputs_gram(int64_t layer, int64_t experts) const {
      const int64_t width = schema_.hidden();
      const auto x = layer_stat(*request_.stats, layer, kExpertOutput, {experts, width});
      std::vector<double> gram;
      for (int64_t i = 0; i < experts; ++i) {
        for (int64_t j = 0; j < experts; ++j) {
          gram.push_back(std::inner_product(x.begin() + i * width, x.begin() + (i + 1) * width,
                                            x.begin() + j * width, 0.0));
        }
      }
      return gram;
    }

    void add_layer(size_t i, const ExpertGroups& groups) {
      const int64_t layer = merged_[i];
      std::shared_ptr<Aligner> aligner;
      if (choice("align") == "weights") aligner = std::make_shared<Aligner>(input_, layer);
      for (int64_t g = 0; g < groups.groups(); ++g) {
        Merge merge = {.layer = layer, .members = members_of(groups, g), .aligner = aligner};
        merge.weights =
            member_weights(usage_[i], merge.members, member_weights_named(params_.text("weights")));
        if (choice("by") == "identical") merge = only_first(std::move(merge));
        const int32_t dominant = groups.dominant[static_cast<size_t>(g)];
        merge.reference = choice("reference") == "dominant" ? dominant : 0;
        add_group(merge, members_of(groups, g), g);
      }
      if (params_.flag("expand")) return;
      plan_.steps.push_back(map_step(layer, groups));
    }

    static Merge only_first(Merge merge) {
      merge.members.resize(1);
      merge.weights = {1.0};
      return merge;
    }

    void add_group(const Merge& merge, const std::vector<int32_t>& members, int64_t group) {
      const auto copies =
          params_.flag("expand") ? members : std::vector<int32_t>{static_cast<int32_t>(group)};
      for (const Role role : kExpertRoles) {
        for (const int32_t e : copies) {
          plan_.steps.push_back(merge_step(
              schema_, merge, role, tensor_name(schema_.model_type(), role, merge.layer, e)));
        }
      }
    }

    Step map_step(int64_t layer, const ExpertGroups& groups) const {
      std::string name = tensor_name(schema_.model_type(), Role::kRouter, layer, -1, "");
      name = name.substr(0, name.rfind('.')) + ".expert_map";
      return {.out = {{name, DType::kI32, {schema_.experts()}}},
              .kernel = WholeKernel([map = groups.group_of](const Whole& whole) {
                std::memcpy(whole.out_bytes[0].data(), map.data(), map.size() * sizeof(map[0]));
              })};
    }

    const PlanRequest& request_;
    const Params& params_;
    const CheckpointPtr& input_;
    const Schema& schema_;
    std::vector<int64_t> layers_, merged_;  ///< with experts; of them, those that are merged
    std::vector<std::vector<double>> usage_;
    std::vector<int64_t> counts_;
    Plan plan_;
  };
};

}  // namespace

OpInfo merge_experts_op() {
  return {
      .name = "merge_experts",
      .help = "Fewer experts: align, group by routing statistics, average by usage",
      .paper =
          "Merge, Then Compress: Demystify Efficient SMoE with Hints from Its Routing Policy, "
          "2024",
      .min_inputs = 1,
      .max_inputs = 1,
      .params =
          {{"experts", ParamType::kInteger, 0, "Experts a layer keeps, on average"},
           {"by", ParamType::kText, "router",
            "What makes experts alike: router (logits), outputs, weights, random, identical (equal "
            "bytes: lossless)"},
           {"budget", ParamType::kText, "adaptive",
            "adaptive (layers with evenly used experts keep more) or uniform"},
           {"weights", ParamType::kText, "usage",
            "Members' weights: usage, uniform, reversed, dominant (keeps the most used alone)"},
           {"align", ParamType::kText, "weights", "Matching of neurons: weights or none"},
           {"reference", ParamType::kText, "expert0",
            "What neurons are matched to: expert0 (the paper) or dominant (of the group)"},
           {"capacity", ParamType::kInteger, 0, "Most experts of a group; 0 = any number"},
           {"keep_layers", ParamType::kNumbers, nlohmann::json::array(), "Layers left as they are"},
           {"expand", ParamType::kFlag, false,
            "Write a copy for each of the router's experts, for other programs"},
           {"seed", ParamType::kInteger, 0, "Of random groups"}},
      .make = [] { return std::unique_ptr<ReshapeOp>(std::make_unique<MergeExperts>()); }};
}

}  // namespace cadre::reshape
