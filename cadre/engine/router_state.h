#pragma once

/// What recurrent routers (Qiu et al., "Layerwise Recurrent Router for Mixture-of-Experts", 2025)
/// carry from layer to layer: h = cell(proj x, h of the layer below), for each token alone. Nothing
/// is kept from one pass to the next.

#include <cstdint>
#include <vector>

#include "cadre/base/team.h"
#include "cadre/engine/activations.h"
#include "cadre/engine/model_spec.h"
#include "cadre/engine/weights.h"

namespace cadre::engine {

class RouterState {
 public:
  RouterState(Team& team, const ModelSpec& spec) : team_(team), spec_(spec) {}

  /// The state [tokens, p] that the router of `layer` reads, from the layer's x [tokens, hidden].
  /// The lowest layer with experts begins with zeros.
  const Activations& advance(int64_t layer, const LayerWeights& weights, const Activations& x,
                             int64_t tokens);

 private:
  Team& team_;
  const ModelSpec& spec_;
  Activations read_, state_;
  std::vector<float> from_input_, from_state_;  ///< [tokens, gates p]
};

/// One step of a gated recurrent unit for one token, in place: x, h [3n] the products (reset,
/// update, candidate) with their biases, both overwritten; state [n].
void gru_step(float* x, float* h, int64_t n, float* state);
/// The plain cell: state = tanh(x + h); x [n] is overwritten.
void tanh_step(float* x, const float* h, int64_t n, float* state);

}  // namespace cadre::engine
