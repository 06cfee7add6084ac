#include "cadre/reshape/delta.h"

#include <algorithm>
#include <map>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/reshape/values.h"

namespace cadre::reshape {
namespace {

const SchemaTensor& twin_of(const SchemaTensor& tensor, const Checkpoint& other) {
  const SchemaTensor& twin = other.schema().require(tensor.info.name);
  if (twin.info.shape != tensor.info.shape || !is_floating(twin.info.dtype)) {
    throw UsageError("{}: tensor {} has not the shape or type it has in the other checkpoint",
                     other.where(), tensor.info.name);
  }
  return twin;
}

/// Reads a flat range of several tensors: body(tensor index, first element, values).
void for_parts(const std::vector<DeltaTensor>& tensors, int64_t first, std::span<float> values,
               const std::function<void(size_t, int64_t, std::span<float>)>& body) {
  auto at = std::upper_bound(tensors.begin(), tensors.end(), first,
                             [](int64_t place, const DeltaTensor& t) { return place < t.first; });
  for (--at; !values.empty(); ++at) {
    const int64_t begin = first - at->first;
    const auto count = std::min(at->entries() - begin, static_cast<int64_t>(values.size()));
    body(static_cast<size_t>(at - tensors.begin()), begin, values.first(count));
    values = values.subspan(count);
    first += count;
  }
}

/// Adds deltas to a tensor of the base.
class AddDeltas : public TileKernel {
 public:
  struct Term {
    std::shared_ptr<const DeltaReader> delta;
    int64_t first;
    float weight;
  };
  explicit AddDeltas(std::vector<Term> terms) : terms_(std::move(terms)) {}
  void compute(const Tile& tile) const override {
    std::copy(tile.in[0].begin(), tile.in[0].end(), tile.out.begin());
    for (const Term& term : terms_) {
      term.delta->add_to(term.first + tile.first, term.weight, tile.out);
    }
  }

 private:
  std::vector<Term> terms_;
};

void check_fits(const DeltaReader& delta, const Checkpoint& base) {
  for (const DeltaTensor& tensor : delta.header().tensors) {
    const SchemaTensor* found = base.schema().find(tensor.name);
    if (found == nullptr || found->info.shape != tensor.shape || !is_floating(found->info.dtype)) {
      throw UsageError("{} changes a tensor {} that {} has not, or has in another shape",
                       delta.path().string(), tensor.name, base.where());
    }
  }
}

std::vector<AddDeltas::Term> terms_for(const std::string& name,
                                       const std::vector<WeightedDelta>& deltas) {
  std::vector<AddDeltas::Term> terms;
  for (const WeightedDelta& item : deltas) {
    for (const DeltaTensor& tensor : item.delta->header().tensors) {
      if (tensor.name != name) continue;
      terms.push_back({item.delta, tensor.first, static_cast<float>(item.weight)});
    }
  }
  return terms;
}

/// Per entry the mean of the terms on the side of the sum; zero when they cancel.
void elect(const std::vector<std::vector<float>>& terms, std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    double sum = 0, kept = 0;
    int count = 0;
    for (const auto& term : terms) sum += term[i];
    for (const auto& term : terms) {
      if (term[i] * sum <= 0) continue;
      kept += term[i];
      ++count;
    }
    out[i] = count > 0 ? static_cast<float>(kept / count) : 0.0F;
  }
}

class ApplyDeltaOp : public ReshapeOp {
 public:
  Plan plan(const PlanRequest& request) const override {
    const auto paths = request.params.texts("deltas");
    const auto weights = request.params.numbers("weights");
    if (!weights.empty() && weights.size() != paths.size()) {
      throw UsageError("{}: {} weights for {} deltas", request.params.where(), weights.size(),
                       paths.size());
    }
    std::vector<WeightedDelta> deltas;
    for (size_t i = 0; i < paths.size(); ++i) {
      deltas.push_back({.delta = std::make_shared<DeltaReader>(paths[i]),
                        .weight = weights.empty() ? 1.0 : weights[i]});
    }
    return apply_deltas(request.inputs[0], deltas);
  }
};

}  // namespace

DeltaHeader extract_delta(const std::filesystem::path& path, const Checkpoint* base,
                          const Checkpoint& tuned, const TernaryOptions& options) {
  const Checkpoint& order = base != nullptr ? *base : tuned;
  DeltaHeader header{.base = base != nullptr ? content_hash(*base) : "", .options = options};
  std::vector<std::pair<const SchemaTensor*, const SchemaTensor*>> pairs;
  for (const SchemaTensor& tensor : order.schema().tensors()) {
    if (!is_floating(tensor.info.dtype) || elements_of(tensor.info.shape) == 0) continue;
    pairs.emplace_back(&tensor, &twin_of(tensor, tuned));
    header.tensors.push_back({.name = tensor.info.name, .shape = tensor.info.shape});
  }
  for (const SchemaTensor& tensor : tuned.schema().tensors())
    order.schema().require(tensor.info.name);
  int64_t first = 0;
  for (DeltaTensor& tensor : header.tensors) {
    tensor.first = std::exchange(first, first + tensor.entries());
  }
  const std::vector<DeltaTensor> tensors = header.tensors;
  const auto read = [&](int64_t from, std::span<float> values) {
    for_parts(tensors, from, values, [&](size_t i, int64_t begin, std::span<float> part) {
      read_values(tuned, *pairs[i].second, begin, part);
      if (base == nullptr) return;
      std::vector<float> before(part.size());
      read_values(*base, *pairs[i].first, begin, before);
      for (size_t j = 0; j < part.size(); ++j) part[j] -= before[j];
    });
  };
  return write_delta(path, std::move(header), read);
}

Plan apply_deltas(const CheckpointPtr& base, const std::vector<WeightedDelta>& deltas) {
  if (deltas.empty()) throw UsageError("no delta is given");
  const std::string hash = content_hash(*base);
  for (const WeightedDelta& item : deltas) {
    const std::string& wanted = item.delta->header().base;
    if (!wanted.empty() && wanted != hash) {
      throw UsageError("{} was made for another base (content {}) than {} (content {})",
                       item.delta->path().string(), wanted, base->where(), hash);
    }
    check_fits(*item.delta, *base);
  }
  Plan plan{.config_out = base->schema().config()};
  for (const SchemaTensor& tensor : base->schema().tensors()) {
    Step step = copy_step(tensor, 0);
    const auto terms = terms_for(tensor.info.name, deltas);
    if (!terms.empty()) step.kernel = std::make_shared<AddDeltas>(terms);
    plan.steps.push_back(std::move(step));
  }
  return plan;
}

DeltaHeader combine_deltas(const std::filesystem::path& path,
                           const std::vector<WeightedDelta>& deltas, DeltaMerge merge,
                           const TernaryOptions& options) {
  if (deltas.empty()) throw UsageError("no delta is given");
  const DeltaHeader& first = deltas.front().delta->header();
  for (const WeightedDelta& item : deltas) {
    const DeltaHeader& other = item.delta->header();
    const bool same = std::equal(
        first.tensors.begin(), first.tensors.end(), other.tensors.begin(), other.tensors.end(),
        [](const auto& a, const auto& b) { return a.name == b.name && a.shape == b.shape; });
    if (!same || first.base != other.base) {
      throw UsageError("{} and {} have other tensors or another base: they can't be combined",
                       deltas.front().delta->path().string(), item.delta->path().string());
    }
  }
  const auto read = [&](int64_t from, std::span<float> values) {
    std::vector<std::vector<float>> terms;
    for (const WeightedDelta& item : deltas) {
      terms.emplace_back(values.size());
      item.delta->add_to(from, static_cast<float>(item.weight), terms.back());
    }
    if (merge == DeltaMerge::kTies) return elect(terms, values);
    std::fill(values.begin(), values.end(), 0.0F);
    for (const auto& term : terms) {
      for (size_t i = 0; i < values.size(); ++i) values[i] += term[i];
    }
  };
  DeltaHeader header{.tensors = first.tensors, .base = first.base, .options = options};
  return write_delta(path, std::move(header), read);
}

OpInfo apply_delta_op() {
  return {.name = "apply_delta",
          .help = "A base with ternary residuals (.cdelta files) added",
          .paper =
              "ComPEFT: Compression for Communicating Parameter Efficient Updates via "
              "Sparsification and Quantization, 2023",
          .min_inputs = 1,
          .max_inputs = 1,
          .params = {{"deltas", ParamType::kTexts, nullptr, ".cdelta files"},
                     {"weights", ParamType::kNumbers, nlohmann::json::array(),
                      "one a delta; default: 1 each"}},
          .make = [] { return std::unique_ptr<ReshapeOp>(std::make_unique<ApplyDeltaOp>()); }};
}

}  // namespace cadre::reshape
