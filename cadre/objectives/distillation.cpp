#include "cadre/objectives/distillation.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "cadre/base/error.h"

namespace cadre {
namespace {

void check_same_shape(const torch::Tensor& student, const torch::Tensor& teacher) {
  if (student.sizes() == teacher.sizes()) return;
  throw UsageError("distillation: the student's shape is not the teacher's");
}

}  // namespace

torch::Tensor teacher_targets(const torch::Tensor& logits, int64_t first, int64_t total,
                              int64_t keep) {
  if (logits.dim() != 2 || first < 0 || first + logits.size(1) > total) {
    throw UsageError("teacher_targets: logits must be [T, n] in columns {} ... of {}", first,
                     total);
  }
  if (keep < 1) throw UsageError("teacher_targets: keep is {}, must be at least 1", keep);
  const torch::NoGradGuard no_grad;
  auto targets = torch::zeros({logits.size(0), total});
  const auto [values, ids] = logits.topk(std::min(keep, logits.size(1)), 1);
  return targets.scatter_(1, ids + first, torch::sigmoid(values));
}

TargetPairs to_pairs(const torch::Tensor& targets, int64_t keep) {
  const auto [values, ids] = targets.topk(std::min(keep, targets.size(1)), 1);
  return {ids.to(torch::kInt32), values};
}

torch::Tensor from_pairs(const TargetPairs& pairs, int64_t total) {
  auto targets = torch::zeros({pairs.classes.size(0), total});
  return targets.scatter_(1, pairs.classes.to(torch::kInt64), pairs.probabilities);
}

torch::Tensor sigmoid_cross_entropy(const torch::Tensor& logits, const torch::Tensor& targets) {
  check_same_shape(logits, targets);
  const auto sum =
      torch::binary_cross_entropy_with_logits(logits, targets, {}, {}, at::Reduction::Sum);
  return sum / static_cast<double>(std::max<int64_t>(1, logits.size(0)));
}

torch::Tensor softmax_distillation(const torch::Tensor& logits, const torch::Tensor& teacher,
                                   double temperature) {
  check_same_shape(logits, teacher);
  if (!(temperature > 0))
    throw UsageError("distillation: temperature {} is not above 0", temperature);
  const auto wanted = torch::log_softmax(teacher.detach() / temperature, -1);
  const auto given = torch::log_softmax(logits / temperature, -1);
  const auto divergence = (wanted.exp() * (wanted - given)).sum(-1);
  return temperature * temperature * divergence.mean();
}

torch::Tensor hidden_distillation(const torch::Tensor& hidden, const torch::Tensor& teacher) {
  check_same_shape(hidden, teacher);
  const auto wanted = teacher.detach();
  return (hidden - wanted).square().mean() / wanted.square().mean().clamp_min(1e-12);
}

SelfPacedScaleImpl::SelfPacedScaleImpl(std::vector<int64_t> classes)
    : classes_(std::move(classes)) {
  std::vector<float> start;
  for (const int64_t n : classes_) {
    if (n < 1) throw UsageError("self-paced scale: a vertical of {} classes", n);
    start.push_back(static_cast<float>(std::log(static_cast<double>(n)) / 2));
  }
  log_scale = register_parameter("log_scale", torch::tensor(start));
}

torch::Tensor SelfPacedScaleImpl::forward(const torch::Tensor& logits) {
  const int64_t total = std::accumulate(classes_.begin(), classes_.end(), int64_t{0});
  if (logits.dim() != 2 || logits.size(1) != total) {
    throw UsageError("self-paced scale: logits must be [T, {}]", total);
  }
  std::vector<torch::Tensor> parts;
  int64_t first = 0;
  for (size_t v = 0; v < classes_.size(); ++v) {
    const auto part = logits.narrow(1, std::exchange(first, first + classes_[v]), classes_[v]);
    // The square root's gradient is infinite at 0.
    const auto length = (part.square().sum(1, true) + 1e-12).sqrt();
    parts.push_back(log_scale[static_cast<int64_t>(v)].exp() * part / (length + 1e-6));
  }
  return torch::cat(parts, 1);
}

}  // namespace cadre
