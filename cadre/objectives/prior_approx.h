#pragma once

/// What a dense layer says to the router of its slices.
///
/// Zhao et al., "FactorLLM: Factorizing Knowledge via Mixture of Experts for Large Language Models"
/// (2024), prior-approximate loss: a feed-forward layer is cut into N slices of which k work on a
/// token, their sum times N / k standing for the dense output. The k slices nearest to their share
/// of it are the router's labels.
/// Departure: the released code returns the loss of a batch's first token; here it is the mean.

#include <torch/torch.h>

#include <cstdint>

namespace cadre {

/// 1 for the k slices with the least mean squared distance of e_i from t k / N, else 0 (ties: the
/// lower slice): [T, N] float32. dense [T, D] is t, slices [N, T, D] are e_i. Without gradient.
/// Throws UsageError for shapes that do not fit or k outside [1, N].
torch::Tensor nearest_slices(const torch::Tensor& dense, const torch::Tensor& slices, int64_t k);

/// KL(p || softmax(labels)), p the softmax of logits [T, N] clipped to [1e-7, 1 - 1e-7]; mean over
/// tokens. 0 iff p is the labels' softmax (positives e times as likely as the others). Throws
/// UsageError for shapes that do not fit.
torch::Tensor prior_approximation(const torch::Tensor& logits, const torch::Tensor& labels);

/// Share of the labels' positives that are among the k largest logits of their token, k the number
/// of positives of a row (equal in all): what chance gives is k / N.
double label_agreement(const torch::Tensor& logits, const torch::Tensor& labels);

}  // namespace cadre
