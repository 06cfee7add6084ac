#pragma once

/// The slot of a transformer block that works on each token alone: dense feed-forward networks
/// here, expert layers in cadre/experts.

#include <torch/torch.h>

#include <string>
#include <vector>

#include "cadre/nn/linear.h"

namespace cadre {

/// A named loss term that a layer adds to the objective: `value` is a scalar, already times its
/// coefficient.
struct AuxLoss {
  std::string name;
  torch::Tensor value;
};

/// Why a block runs: for its result, or once more because backward wants its activations
/// (Activations::kRecompute). The second run must return the same bits and count nothing again.
enum class Pass { kForward, kRecompute };

/// What flows through the layers beside the hidden states. One per forward pass.
struct LayerContext {
  int64_t layer = 0;  ///< index of the block that runs
  int64_t step = 0;   ///< optimiser step, for schedules and random keys
  int64_t total_steps = 0;
  uint64_t seed = 0;        ///< the run's seed, for routers that draw
  int64_t draw = 0;         ///< which of several stochastic passes over the same batch
  torch::Tensor token_ids;  ///< [B, T] int64
  torch::Tensor padding;    ///< [B, T] bool, true = padding; undefined = none
  torch::Tensor
      router_state;  ///< [B * T, p] carried from router to router over depth; undefined = none
  std::vector<AuxLoss> aux;  ///< what the layers add
  Pass pass = Pass::kForward;
};

/// A block's token-wise part.
class TokenLayer : public torch::nn::Module {
 public:
  /// hidden [B, T, D] (normalised); returns [B, T, D], to be added to the residual stream.
  virtual torch::Tensor forward(const torch::Tensor& hidden, LayerContext& context) = 0;
};

/// silu(gate) * up of SwiGLU (Shazeer, "GLU Variants Improve Transformer", 2020). gate_up [..., 2H]
/// holds both products; returns [..., H].
torch::Tensor silu_mul(const torch::Tensor& gate_up);
/// W_down (silu(W_gate x) * (W_up x)) as one differentiable function. x [..., D], w_gate and w_up
/// [H, D], w_down [D, H]; returns [..., D].
torch::Tensor swi_glu(const torch::Tensor& x, const torch::Tensor& w_gate,
                      const torch::Tensor& w_up, const torch::Tensor& w_down);
/// GELU, tanh form.
torch::Tensor gelu(const torch::Tensor& x);

/// W_down (silu(W_gate x) * (W_up x)). Modules: gate_proj, up_proj, down_proj, without bias.
class SwiGlu : public TokenLayer {
 public:
  SwiGlu(int64_t hidden, int64_t inner, double init_std = 0.02);
  torch::Tensor forward(const torch::Tensor& hidden, LayerContext& context) override;
  /// The same without a context: x [..., D].
  torch::Tensor forward(const torch::Tensor& x);

  Linear gate_proj{nullptr}, up_proj{nullptr}, down_proj{nullptr};
};

/// W_down gelu(W_up x). Modules: up_proj, down_proj, with bias.
class GeluFeedForward : public TokenLayer {
 public:
  GeluFeedForward(int64_t hidden, int64_t inner, double init_std = 0.02);
  torch::Tensor forward(const torch::Tensor& hidden, LayerContext& context) override;

  Linear up_proj{nullptr}, down_proj{nullptr};
};

}  // namespace cadre
