#include "cadre/experts/attention_experts.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cadre/base/error.h"
#include "cadre/experts/dispatch.h"
#include "cadre/experts/expert_mlp.h"
#include "cadre/nn/tensor_check.h"

namespace cadre {
namespace {

using torch::Tensor;

/// Each expert's tokens of each sequence as a list of equal, padded length.
struct Lists {
  int64_t count = 0;   ///< E * B
  int64_t length = 0;  ///< L, the longest
  Tensor place;        ///< [slots] int64: list * L + rank, in order of time
  Tensor held;         ///< [lists] int64: tokens of the list
};

/// Slots are sorted by expert and, within, by token: a list is a stretch of slots.
Lists lists_of(const Dispatch& slots, int64_t experts, int64_t sequences, int64_t tokens) {
  const int64_t pairs = slots.token_of_slot.size(0);
  const int64_t* offset = slots.expert_offsets.data_ptr<int64_t>();
  const int64_t* token = slots.token_of_slot.data_ptr<int64_t>();
  Lists lists{.count = experts * sequences,
              .place = torch::empty({pairs}, torch::kInt64),
              .held = torch::zeros({experts * sequences}, torch::kInt64)};
  int64_t* held = lists.held.data_ptr<int64_t>();
  std::vector<int64_t> rank(pairs);
  const auto list_of = [&](int64_t e, int64_t slot) {
    return e * sequences + token[slot] / tokens;
  };
  for (int64_t e = 0; e < experts; ++e) {
    for (int64_t s = offset[e]; s < offset[e + 1]; ++s) rank[s] = held[list_of(e, s)]++;
  }
  lists.length = lists.count ? *std::max_element(held, held + lists.count) : 0;
  for (int64_t e = 0; e < experts; ++e) {
    for (int64_t s = offset[e]; s < offset[e + 1]; ++s) {
      lists.place.data_ptr<int64_t>()[s] = list_of(e, s) * lists.length + rank[s];
    }
  }
  return lists;
}

/// [lists, L, L] bool: what a query may not see. A list without tokens sees its padding, so that no
/// row of scores is empty.
Tensor hidden_keys(const Lists& lists, kernels::Mask mask) {
  const auto rank = torch::arange(lists.length);
  auto hidden = (rank.unsqueeze(0) >= lists.held.clamp_min(1).unsqueeze(1)).unsqueeze(1);
  hidden = hidden.expand({lists.count, lists.length, lists.length});
  if (mask == kernels::Mask::kNone) return hidden;
  return hidden.logical_or((rank.unsqueeze(0) > rank.unsqueeze(1)).unsqueeze(0));
}

/// slots [slots, heads * dim] as [lists * heads, L, dim], zeros where a list is short.
Tensor padded(const Tensor& slots, const Lists& lists, int64_t heads) {
  const int64_t width = slots.size(1);
  return torch::zeros({lists.count * lists.length, width})
      .index_copy(0, lists.place, slots)
      .view({lists.count, lists.length, heads, width / heads})
      .transpose(1, 2)
      .reshape({lists.count * heads, lists.length, width / heads});
}

/// The inverse of padded.
Tensor unpadded(const Tensor& rows, const Lists& lists, int64_t heads) {
  const int64_t dim = rows.size(2);
  return rows.view({lists.count, heads, lists.length, dim})
      .transpose(1, 2)
      .reshape({lists.count * lists.length, heads * dim})
      .index_select(0, lists.place);
}

}  // namespace

AttentionExperts::AttentionExperts(const AttentionExpertsOptions& options) : options_(options) {
  if (options.hidden < 1 || options.experts < 1 || options.heads < 1 || options.head_dim < 1) {
    throw UsageError(
        "attention experts: hidden {}, experts {}, heads {} and head_dim {} must be at least 1",
        options.hidden, options.experts, options.heads, options.head_dim);
  }
  const int64_t width = options.heads * options.head_dim;
  const auto normal = [&](int64_t rows, int64_t columns) {
    return torch::empty({options.experts, rows, columns}).normal_(0.0, options.init_std);
  };
  q_proj = register_parameter("q_proj", normal(width, options.hidden));
  k_proj = register_parameter("k_proj", normal(width, options.hidden));
  v_proj = register_parameter("v_proj", normal(width, options.hidden));
  o_proj = register_parameter("o_proj", normal(options.hidden, width));
}

Tensor AttentionExperts::forward(const Tensor& x, const Routing& routing) {
  if (x.dim() != 3 || x.size(2) != options_.hidden || x.size(0) * x.size(1) != routing.tokens() ||
      routing.experts != options_.experts) {
    throw UsageError(
        "attention experts: x {} must be [sequences, tokens, {}], the routing's {} tokens over {} "
        "experts",
        describe(x), options_.hidden, routing.tokens(), options_.experts);
  }
  const auto rows = x.reshape({-1, options_.hidden});
  const Dispatch slots = dispatch(routing.offsets, routing.expert, routing.experts);
  const Lists lists = lists_of(slots, routing.experts, x.size(0), x.size(1));
  const auto taken = rows.index_select(0, slots.token_of_slot);
  const auto project = [&](const Tensor& weight) {
    return padded(grouped_linear(taken, slots.expert_offsets, weight), lists, options_.heads);
  };
  const double scale = 1 / std::sqrt(static_cast<double>(options_.head_dim));
  const auto scores = torch::bmm(project(q_proj) * scale, project(k_proj).transpose(1, 2));
  const auto hidden = hidden_keys(lists, options_.mask).repeat_interleave(options_.heads, 0);
  const auto shares =
      torch::softmax(scores.masked_fill(hidden, -std::numeric_limits<float>::infinity()), -1);
  const auto attended = unpadded(torch::bmm(shares, project(v_proj)), lists, options_.heads);
  const auto outputs = grouped_linear(attended, slots.expert_offsets, o_proj);

  const auto weight = torch::empty_like(routing.weight)
                          .index_copy(0, slots.slot_of_pair, routing.weight)
                          .unsqueeze(1);
  return torch::zeros_like(rows)
      .index_add(0, slots.token_of_slot, outputs * weight)
      .view(x.sizes());
}

}  // namespace cadre
