#include "cadre/routing/selection.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/kernels/top_k.h"

namespace cadre {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kTokenGrain = 512;
/// Keeps the sum of selected scores off zero; far below the smallest score that matters.
constexpr float kTiny = 1e-20F;

void check_mask(const Tensor& valid, int64_t tokens) {
  if (!valid.defined() || (valid.dim() == 1 && valid.size(0) == tokens)) return;
  throw UsageError("routing: the mask of valid tokens must be [{}]", tokens);
}

const bool* mask_of(const Tensor& valid) {
  return valid.defined() ? valid.data_ptr<bool>() : nullptr;
}

/// Offsets of rows that keep kept[t] of their ids.
Tensor offsets_of(const std::vector<int64_t>& kept) {
  auto offsets = torch::empty({static_cast<int64_t>(kept.size()) + 1}, torch::kInt64);
  int64_t* at = offsets.data_ptr<int64_t>();
  at[0] = 0;
  for (size_t t = 0; t < kept.size(); ++t) at[t + 1] = at[t] + kept[t];
  return offsets;
}

/// Copies the true ids of each row [T, k] to the row's place.
void pack(const Tensor& ids, int64_t experts, Rows& rows) {
  const int64_t tokens = ids.size(0), k = ids.size(1);
  const int32_t* from = ids.data_ptr<int32_t>();
  const int64_t* offset = rows.offsets.data_ptr<int64_t>();
  int32_t* to = rows.ids.data_ptr<int32_t>();
  parallel_for(tokens, kTokenGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      if (offset[t] == offset[t + 1]) continue;
      std::copy_if(from + t * k, from + (t + 1) * k, to + offset[t],
                   [experts](int32_t id) { return id < experts; });
    }
  });
}

/// Weights of one row: values in, weights out; returns d weight / d value at the row's sum.
float weigh(Weighting weighting, float scale, int64_t k, float* w) {
  if (weighting == Weighting::kRaw) {
    for (int64_t j = 0; j < k; ++j) w[j] *= scale;
    return scale;
  }
  float sum = 0;
  const float most = weighting == Weighting::kSoftmax && k > 0 ? *std::max_element(w, w + k) : 0;
  for (int64_t j = 0; j < k; ++j) {
    if (weighting == Weighting::kSoftmax) w[j] = std::exp(w[j] - most);
    sum += w[j];
  }
  const float factor = scale / (sum + kTiny);
  for (int64_t j = 0; j < k; ++j) w[j] *= factor;
  return factor;
}

struct RowWeights : torch::autograd::Function<RowWeights> {
  static Tensor forward(AutogradContext* ctx, const Tensor& values, const Tensor& offsets,
                        const Tensor& ids, int64_t weighting, double scale) {
    const int64_t tokens = offsets.size(0) - 1, n = values.size(1);
    auto weights = torch::empty({ids.size(0)}, torch::kFloat32);
    auto factors = torch::empty({tokens}, torch::kFloat32);
    const float* value = values.data_ptr<float>();
    const int64_t* offset = offsets.data_ptr<int64_t>();
    const int32_t* id = ids.data_ptr<int32_t>();
    float* w = weights.data_ptr<float>();
    parallel_for(tokens, kTokenGrain, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        for (int64_t j = offset[t]; j < offset[t + 1]; ++j) w[j] = value[t * n + id[j]];
        factors.data_ptr<float>()[t] =
            weigh(static_cast<Weighting>(weighting), static_cast<float>(scale),
                  offset[t + 1] - offset[t], w + offset[t]);
      }
    });
    ctx->save_for_backward({offsets, ids, weights, factors});
    ctx->saved_data["weighting"] = weighting;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["columns"] = n;
    return weights;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const int64_t tokens = saved[0].size(0) - 1, n = ctx->saved_data["columns"].toInt();
    const auto weighting = static_cast<Weighting>(ctx->saved_data["weighting"].toInt());
    const auto scale = static_cast<float>(ctx->saved_data["scale"].toDouble());
    const auto dweights = grads[0].contiguous();
    auto dvalues = torch::zeros({tokens, n}, torch::kFloat32);
    const int64_t* offset = saved[0].data_ptr<int64_t>();
    const int32_t* id = saved[1].data_ptr<int32_t>();
    const float* w = saved[2].data_ptr<float>();
    const float* factor = saved[3].data_ptr<float>();
    const float* dw = dweights.data_ptr<float>();
    float* dv = dvalues.data_ptr<float>();
    parallel_for(tokens, kTokenGrain, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        // d(scale v_j / s): the sum s takes back the mean of the gradients, weighted by v / s.
        float mean = 0;
        for (int64_t j = offset[t]; weighting != Weighting::kRaw && j < offset[t + 1]; ++j) {
          mean += dw[j] * w[j] / scale;
        }
        for (int64_t j = offset[t]; j < offset[t + 1]; ++j) {
          const float slope = weighting == Weighting::kSoftmax ? w[j] : factor[t];
          dv[t * n + id[j]] = slope * (dw[j] - mean);
        }
      }
    });
    return {dvalues, {}, {}, {}, {}};
  }
};

}  // namespace

Rows rows_of(const Tensor& selected, int64_t experts, const Tensor& valid) {
  if (selected.dim() != 2) throw UsageError("routing: selected ids must be [tokens, k]");
  const auto ids = selected.to(torch::kInt32).contiguous();
  const int64_t tokens = ids.size(0), k = ids.size(1);
  check_mask(valid, tokens);
  const bool* is_valid = mask_of(valid);
  const int32_t* id = ids.data_ptr<int32_t>();
  std::vector<int64_t> kept(tokens, 0);
  Rows rows;
  for (int64_t t = 0; t < tokens; ++t) {
    if (is_valid && !is_valid[t]) continue;
    for (int64_t j = t * k; j < (t + 1) * k; ++j) {
      if (id[j] < 0) throw UsageError("routing: token {} has expert {}", t, id[j]);
      kept[t] += id[j] < experts;
    }
    rows.null += k - kept[t];
  }
  rows.offsets = offsets_of(kept);
  const int64_t pairs = rows.offsets[tokens].item<int64_t>();
  if (pairs == ids.numel()) {
    rows.ids = ids.view(-1);
  } else {
    rows.ids = torch::empty({pairs}, torch::kInt32);
    pack(ids, experts, rows);
  }
  return rows;
}

Rows row_prefix(const Tensor& probs, double p, const Tensor& valid) {
  const auto dense = probs.detach().contiguous();
  const int64_t tokens = dense.size(0), n = dense.size(1);
  check_mask(valid, tokens);
  auto ids = torch::empty({tokens, n}, torch::kInt32);
  std::vector<int64_t> kept(tokens);
  kernels::top_p(dense.data_ptr<float>(), tokens, n, static_cast<float>(p), ids.data_ptr<int32_t>(),
                 kept.data());
  const bool* is_valid = mask_of(valid);
  for (int64_t t = 0; is_valid && t < tokens; ++t) kept[t] = is_valid[t] ? kept[t] : 0;
  Rows rows{.offsets = offsets_of(kept)};
  rows.ids = torch::empty({rows.offsets[tokens].item<int64_t>()}, torch::kInt32);
  for (int64_t t = 0; t < tokens; ++t) {
    std::copy_n(ids.data_ptr<int32_t>() + t * n, kept[t],
                rows.ids.data_ptr<int32_t>() + rows.offsets.data_ptr<int64_t>()[t]);
  }
  return rows;
}

Tensor row_weights(const Tensor& values, const Rows& rows, Weighting weighting, double scale) {
  if (values.dim() != 2 || values.size(0) != rows.tokens()) {
    throw UsageError("routing: values for weights must be [{}, experts]", rows.tokens());
  }
  return RowWeights::apply(values.to(torch::kFloat32).contiguous(), rows.offsets, rows.ids,
                           static_cast<int64_t>(weighting), scale);
}

Routing routing_of(int64_t experts, const Rows& rows, const Tensor& weights, const Tensor& logits,
                   const Tensor& probs, const Tensor& valid) {
  return {.experts = experts,
          .offsets = rows.offsets,
          .expert = rows.ids,
          .weight = weights,
          .logits = logits,
          .probs = probs,
          .valid = valid,
          .null = rows.null};
}

}  // namespace cadre
