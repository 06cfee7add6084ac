#pragma once

/// Routing by optimal transport with a limit on nonzeros (Liu, Puigcerver, Blondel,
/// "Sparsity-Constrained Optimal Transport", 2023; the router as in the authors' code): the tokens
/// of a group, one unit of mass each, are carried to the experts, which all receive the same.
///
///   S = softmax over experts of W x; T = the plan of cost -S with at most k nonzeros an expert
///   (k = capacity) or a token; a token goes where T > 0; weight: S there, or T.
/// Needs no balance loss. With capacity factor 1 the optimum is the balanced assignment of most
/// affinity; above it, and with few steps, T is a selection whose rows need not sum to one, and a
/// token may be left without expert.
/// We depart from the paper in one thing, as an option: kExact starts from the potentials of the
/// problem without regulariser, which cost less than ten steps of Adam and leave no token out.
/// Not causal, tokens see each other through T: for decoding name a router that chooses by token.

#include <torch/torch.h>

#include "cadre/routing/expert_choice_router.h"
#include "cadre/routing/router.h"

namespace cadre {

/// Who is held to at most k partners.
enum class TransportAxis { kExpert, kToken };
enum class TransportCombine { kSoftmax, kPlan };
enum class TransportStart { kZero, kExact };

struct SparseTransport {
  TransportAxis axis = TransportAxis::kExpert;
  /// Of experts: k = ceil(factor * T / E), rounded up to a multiple of four. At least 1.
  double capacity_factor = 1.0;
  int64_t k = 1;  ///< of tokens; a group of fewer than E / k tokens gets more, to use all experts
  double gamma = 1.0;
  TransportCombine combine = TransportCombine::kSoftmax;
  TransportStart start = TransportStart::kZero;
  int64_t steps = 20;           ///< of Adam
  double learning_rate = 1e-2;  ///< from zero, a potential moves by at most steps * learning_rate
  ChoiceScope scope = ChoiceScope::kBatch;  ///< the tokens of one transport problem
  double init_std = 0.02;
};

/// Parameter: weight [E, D].
class TransportRouter : public Router {
 public:
  /// Throws UsageError: no experts, a factor below 1, k of 0 or above E, gamma or learning rate not
  /// above 0, steps below 0.
  TransportRouter(int64_t hidden, int64_t experts, const SparseTransport& options);

  /// Knobs: capacity_factor, and k when tokens are limited. Throws UsageError for an input or a
  /// knob that does not fit, Error naming the layer when logits are not finite.
  Routing route(const RouteInput& input) override;
  int64_t experts() const override { return weight.size(0); }
  bool causal() const override { return false; }
  bool batch_invariant() const override { return false; }
  const SparseTransport& options() const { return options_; }
  /// Over the groups of the last call, the largest |sum of T over experts - 1| of a token.
  double row_error() const { return row_error_; }

  torch::Tensor weight;

 private:
  torch::Tensor plan_of(const torch::Tensor& probs, const SparseTransport& options);

  SparseTransport options_;
  double row_error_ = 0;
};

}  // namespace cadre
