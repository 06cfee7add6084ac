#pragma once

/// A router with the memory of the routers below it (Qiu et al., "Layerwise Recurrent Router for
/// Mixture-of-Experts", 2025, RMoE): a recurrent cell, shared by all layers, runs over depth for
/// each token.
///
///   r_i = Proj_i x_i;  h_i = GRU(r_i, h_{i-1}), h_0 = 0;  g = softmax(G_i h_i); the k largest,
///   divided by their sum. h_i goes to the next layer's router (Routing.state), with its gradient.
/// Nothing is recurrent over time: tokens stay parallel, decoding keeps no state. With k = 1 use
/// raw weights: a normalised one is 1 and gives the router no gradient.

#include <torch/torch.h>

#include <memory>

#include "cadre/routing/router.h"
#include "cadre/routing/top_k_router.h"

namespace cadre {

/// kGru: LibTorch's convention and gate order (reset, update, candidate). kTanh: the plain cell of
/// the released code's "rnn", h = tanh(W r + c + U h + e).
enum class CellKind { kGru, kTanh };

/// Parameters, all U(-1 / sqrt(p), 1 / sqrt(p)) as in LibTorch's cells: weight_ih, weight_hh
/// [gates * p, p], bias_ih, bias_hh [gates * p], gates = 3 for a GRU, else 1.
class RecurrentCell : public torch::nn::Module {
 public:
  /// Throws UsageError for a width below 1.
  RecurrentCell(CellKind kind, int64_t width);
  /// input [T, p], state [T, p] or undefined (zeros); returns the next state [T, p].
  torch::Tensor forward(const torch::Tensor& input, const torch::Tensor& state);
  int64_t width() const { return weight_hh.size(1); }

  torch::Tensor weight_ih, weight_hh, bias_ih, bias_hh;

 private:
  CellKind kind_;
};

/// What reaches a router of the one below.
enum class Memory {
  kFull,      ///< h_{i-1}, with gradient through all layers: the method
  kDetached,  ///< h_{i-1} without gradient
  kNone,      ///< nothing (the paper's NP): the same parameters, no recurrence
  /// Nothing in the cell; instead g = softmax(G_i h_i) + residual * softmax(G_{i-1} h_{i-1}) (the
  /// paper's r-a). The state is the lower layer's own softmax [T, E].
  kResidual
};

struct Recurrent {
  int64_t k = 2;
  int64_t width = 128;  ///< p; the paper's choice
  CellKind cell = CellKind::kGru;
  Memory memory = Memory::kFull;
  double residual = 0.5;
  Weights weights = Weights::kNormalized;
  double init_std = 0.02;
};

/// Parameters: proj [p, D], weight (G) [E, p]; module cell, the same object in every layer: a
/// model's parameters name it once a layer (unique_parameters() of cadre/nn/parameters.h).
class RecurrentRouter : public Router {
 public:
  /// `cell` of the layers below; null = this is the first one and makes it. Throws UsageError: no
  /// experts, k of 0 or above E, a width below 1 or not the cell's.
  RecurrentRouter(int64_t hidden, int64_t experts, const Recurrent& options,
                  std::shared_ptr<RecurrentCell> cell = nullptr);

  /// Knob: k. Throws UsageError for an input, a state or a knob that does not fit, Error naming the
  /// layer when logits are not finite.
  Routing route(const RouteInput& input) override;
  int64_t experts() const override { return weight.size(0); }
  const Recurrent& options() const { return options_; }

  torch::Tensor proj, weight;
  std::shared_ptr<RecurrentCell> cell;

 private:
  void check_state(const RouteInput& input) const;

  Recurrent options_;
};

}  // namespace cadre
