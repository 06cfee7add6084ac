#pragma once

/// Learning from teachers: one or many, each for its own part of the labels.
///
/// Gao et al., "Knowledge Concentration: Learning 100K Object Classifiers in a Single CNN" (2017):
/// classes stand in verticals with a teacher each; a sample's targets are its own vertical's
/// teacher's `keep` largest probabilities, all other classes are negatives; the student's logits
/// are normalised a vertical and scaled by a learned factor, so that it follows each teacher at its
/// own pace. Hinton et al., "Distilling the Knowledge in a Neural Network" (2015) for a single one.

#include <torch/torch.h>

#include <cstdint>
#include <vector>

namespace cadre {

/// Targets [T, N] of samples of one vertical: sigmoid of the teacher's `keep` largest logits of
/// each row, in columns [first, first + n), 0 elsewhere. logits [T, n]; keep >= n keeps all.
/// Without gradient. Throws UsageError for columns outside [0, total) or keep < 1.
torch::Tensor teacher_targets(const torch::Tensor& logits, int64_t first, int64_t total,
                              int64_t keep);

/// The `keep` largest of each row of targets [T, N] as (class id int32, probability) pairs [T,
/// keep]: what a cache of a teacher's answers stores. from_pairs gives them back.
struct TargetPairs {
  torch::Tensor classes, probabilities;
};
TargetPairs to_pairs(const torch::Tensor& targets, int64_t keep);
torch::Tensor from_pairs(const TargetPairs& pairs, int64_t total);

/// -sum over classes of z log s(x) + (1 - z) log(1 - s(x)), mean over rows; its gradient is (s(x) -
/// z) / T. logits and targets [T, N].
torch::Tensor sigmoid_cross_entropy(const torch::Tensor& logits, const torch::Tensor& targets);

/// temperature^2 KL(teacher || student) of softmaxes at the temperature, mean over rows: the
/// gradient's size does not depend on the temperature. logits [..., C], teacher without gradient.
torch::Tensor softmax_distillation(const torch::Tensor& logits, const torch::Tensor& teacher,
                                   double temperature = 2);

/// Mean squared distance of hidden states [..., D] over the teacher's mean square: 0 when equal, 1
/// for a student of zeros. Teacher without gradient.
torch::Tensor hidden_distillation(const torch::Tensor& hidden, const torch::Tensor& teacher);

/// y_v = gamma_v x_v / (||x_v|| + 1e-6) for every vertical v. Parameter: log_scale [M], gamma =
/// exp(log_scale), from gamma_v = sqrt(N_v), which gives logits of unit size. The paper learns
/// gamma itself; under Adam, short trainings need its logarithm (a factor 1 + lr a step, whatever
/// gamma).
class SelfPacedScaleImpl : public torch::nn::Module {
 public:
  /// `classes`: N_v of each vertical, in the order of the columns; at least 1 each.
  explicit SelfPacedScaleImpl(std::vector<int64_t> classes);
  /// logits [T, sum of N_v].
  torch::Tensor forward(const torch::Tensor& logits);

  torch::Tensor log_scale;

 private:
  std::vector<int64_t> classes_;
};
TORCH_MODULE(SelfPacedScale);

}  // namespace cadre
