#pragma once

/// The operations "factorize" and "fuse": a dense model's feed-forward layers cut into experts, and
/// back.
///
/// Zhao et al., "FactorLLM" (2024): equal slices of the neurons; with k of N slices at work the
/// output is (N / k) sum of E_i. The factor N goes into the down matrices (exact for a power of 2),
/// and the chosen experts' weights sum to 1: at equal weights that is N / k each, and with all N at
/// work and the router at zero the model is the dense one. Cai et al., "Read-ME" (2024): with
/// partition = "domains" an expert has the neurons most active in one text of the calibration;
/// experts overlap, and weigh 1 when one of them works.

#include "cadre/reshape/ops.h"

namespace cadre::reshape {

OpInfo factorize_op();
OpInfo fuse_op();

}  // namespace cadre::reshape
