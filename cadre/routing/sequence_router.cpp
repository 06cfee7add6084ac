#include "cadre/routing/sequence_router.h"

#include <algorithm>

#include "cadre/base/error.h"
#include "cadre/nn/linear.h"
#include "cadre/routing/affinity.h"
#include "cadre/routing/expert_side.h"
#include "cadre/routing/selection.h"

namespace cadre {
namespace {

/// Which row of the sequences' table each token reads, [T] int64 (0 for padding).
torch::Tensor ranks(const TokenGroups& groups, int64_t tokens) {
  auto rows = torch::zeros({tokens}, torch::kInt64);
  for (size_t row = 0; row < groups.size(); ++row) {
    for (const int64_t t : groups[row]) rows.data_ptr<int64_t>()[t] = static_cast<int64_t>(row);
  }
  return rows;
}

/// The tokens of all groups, one group after the other.
torch::Tensor members_of(const TokenGroups& groups) {
  std::vector<int64_t> members;
  for (const auto& group : groups) members.insert(members.end(), group.begin(), group.end());
  return torch::tensor(members, torch::kInt64);
}

/// [groups, D]; at least one row, so that a batch of padding has something to point at.
torch::Tensor means(const torch::Tensor& hidden, const TokenGroups& groups,
                    const torch::Tensor& rows) {
  const auto count = std::max<int64_t>(1, static_cast<int64_t>(groups.size()));
  const auto members = members_of(groups);
  auto sizes = torch::ones({count, 1});
  for (size_t row = 0; row < groups.size(); ++row) {
    sizes.data_ptr<float>()[row] = static_cast<float>(groups[row].size());
  }
  return torch::zeros({count, hidden.size(1)})
             .index_add(0, rows.index_select(0, members), hidden.index_select(0, members)) /
         sizes;
}

/// [groups, length * D].
torch::Tensor side_by_side(const torch::Tensor& hidden, const TokenGroups& groups, int64_t length) {
  for (const auto& group : groups) {
    if (static_cast<int64_t>(group.size()) != length) {
      throw UsageError("sequence router: a sequence of {} tokens, this router reads exactly {}",
                       group.size(), length);
    }
  }
  if (groups.empty()) return torch::zeros({1, length * hidden.size(1)});
  return hidden.index_select(0, members_of(groups)).view({-1, length * hidden.size(1)});
}

}  // namespace

SequenceRouter::SequenceRouter(int64_t hidden, int64_t experts, const SequenceChoice& options)
    : hidden_(hidden), options_(options) {
  check_router_sizes(hidden, experts);
  check_router_k(options.k, experts);
  if (options.length < 0) {
    throw UsageError("sequence router: length is {}, must not be negative", options.length);
  }
  const int64_t width = hidden * std::max<int64_t>(1, options.length);
  weight = register_parameter("weight", initial_gate(experts, width, options.init_std));
}

Routing SequenceRouter::route(const RouteInput& input) {
  const int64_t k = input.knobs.k.value_or(options_.k);
  check_router_k(k, experts());
  check_router_input(input, hidden_);
  const auto hidden = input.hidden.to(torch::kFloat32);
  const auto valid = valid_tokens_of(input);
  const auto groups = group_by_sequence(hidden.size(0), input.sequence, valid);
  const auto sequence_of_token = ranks(groups, hidden.size(0));
  const auto features = options_.length > 0 ? side_by_side(hidden, groups, options_.length)
                                            : means(hidden, groups, sequence_of_token);
  const auto logits = cadre::linear(features, weight);
  check_finite_logits(logits, input.layer);
  // Every token has its sequence's row.
  const auto probs = torch::softmax(logits, 1).index_select(0, sequence_of_token);
  const Rows rows = rows_of(row_top_k(probs, k), experts(), valid);
  const auto weighting =
      options_.weights == Weights::kNormalized ? Weighting::kNormalized : Weighting::kRaw;
  return routing_of(experts(), rows, row_weights(probs, rows, weighting, options_.scale),
                    logits.index_select(0, sequence_of_token), probs, valid);
}

}  // namespace cadre
