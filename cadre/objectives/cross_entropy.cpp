#include "cadre/objectives/cross_entropy.h"

#include <algorithm>

#include "cadre/base/error.h"
#include "cadre/kernels/elementwise.h"
#include "cadre/kernels/gemm.h"
#include "cadre/nn/tensor_check.h"

namespace cadre {
namespace {

using kernels::gemm;
using kernels::Op;
using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kIgnored = -100;

/// One call's dense arguments: hidden [tokens, D], weight [V, D], targets [tokens].
struct Problem {
  Tensor hidden, weight, targets;
  int64_t tokens, width, vocabulary, chunk;
};

Problem prepare(const Tensor& hidden, const Tensor& weight, const Tensor& targets, int64_t chunk) {
  join_team();
  check_fp32(hidden, "cross entropy's hidden");
  check_fp32(weight, "cross entropy's weight");
  const bool fits = hidden.dim() >= 1 && weight.dim() == 2 && hidden.size(-1) == weight.size(1) &&
                    targets.defined() &&
                    targets.sizes() == hidden.sizes().slice(0, hidden.dim() - 1);
  if (!fits) {
    throw UsageError(
        "cross entropy: hidden {}, weight {}, targets {} do not fit; expected [..., D], "
        "[V, D] and [...]",
        describe(hidden), describe(weight), describe(targets));
  }
  if (chunk < 1) throw UsageError("cross entropy: a chunk needs at least one token, got {}", chunk);
  return {.hidden = hidden.contiguous(),
          .weight = weight.contiguous(),
          .targets = dense_ids(targets, weight.size(0), "targets", kIgnored),
          .tokens = targets.numel(),
          .width = weight.size(1),
          .vocabulary = weight.size(0),
          .chunk = std::min(chunk, targets.numel())};
}

int64_t count_targets(const Problem& problem) {
  const int64_t* targets = problem.targets.data_ptr<int64_t>();
  return problem.tokens - std::count(targets, targets + problem.tokens, kIgnored);
}

/// Calls use(begin, rows, dlogits) for every chunk, where dlogits [rows, V] is the gradient of
/// scale * (sum of losses); writes one loss per token.
template <typename Use>
void for_chunks(const Problem& problem, float scale, float* losses, Use use) {
  const auto& [hidden, weight, targets, tokens, width, vocabulary, chunk] = problem;
  Tensor logits = torch::empty({chunk, vocabulary}, hidden.options());
  float* data = logits.data_ptr<float>();
  for (int64_t begin = 0; begin < tokens; begin += chunk) {
    const int64_t rows = std::min(chunk, tokens - begin);
    gemm(Op::kNone, Op::kTranspose, rows, vocabulary, width, 1,
         hidden.data_ptr<float>() + begin * width, width, weight.data_ptr<float>(), width, 0, data,
         vocabulary);
    kernels::cross_entropy(data, targets.data_ptr<int64_t>() + begin, rows, vocabulary, scale,
                           losses + begin);
    use(begin, rows, data);
  }
}

Tensor losses_of(const Problem& problem) {
  Tensor losses = torch::empty({problem.tokens}, problem.hidden.options());
  for_chunks(problem, 1, losses.data_ptr<float>(), [](int64_t, int64_t, const float*) {});
  return losses;
}

Tensor mean_of(const Tensor& losses, int64_t counted) {
  return (losses.sum(torch::kFloat64) / std::max<int64_t>(counted, 1)).to(torch::kFloat32);
}

/// The gradients are made in forward, while a chunk's logits are at hand, for a loss gradient of 1.
struct CrossEntropyFunction : torch::autograd::Function<CrossEntropyFunction> {
  static Tensor forward(AutogradContext* context, const Tensor& hidden, const Tensor& weight,
                        const Problem& problem) {
    const int64_t width = problem.width, vocabulary = problem.vocabulary;
    const int64_t counted = count_targets(problem);
    Tensor losses = torch::empty({problem.tokens}, hidden.options());
    Tensor dhidden, dweight;
    if (hidden.requires_grad()) dhidden = torch::empty_like(hidden);
    if (weight.requires_grad())
      dweight = problem.tokens ? torch::empty_like(weight) : torch::zeros_like(weight);
    const auto use = [&](int64_t begin, int64_t rows, const float* dlogits) {
      if (dhidden.defined()) {
        gemm(Op::kNone, Op::kNone, rows, width, vocabulary, 1, dlogits, vocabulary,
             weight.data_ptr<float>(), width, 0, dhidden.data_ptr<float>() + begin * width, width);
      }
      if (dweight.defined()) {
        gemm(Op::kTranspose, Op::kNone, vocabulary, width, rows, 1, dlogits, vocabulary,
             hidden.data_ptr<float>() + begin * width, width, begin == 0 ? 0 : 1,
             dweight.data_ptr<float>(), width);
      }
    };
    const float scale = 1.0f / static_cast<float>(std::max<int64_t>(counted, 1));
    for_chunks(problem, scale, losses.data_ptr<float>(), use);
    context->save_for_backward({dhidden, dweight});
    return mean_of(losses, counted);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    variable_list results = context->get_saved_variables();
    const float scale = grads[0].item<float>();
    for (Tensor& result : results) {
      if (result.defined() && scale != 1) result = result * scale;
    }
    results.emplace_back();
    return results;
  }
};

}  // namespace

Tensor chunked_cross_entropy(const Tensor& hidden, const Tensor& weight, const Tensor& targets,
                             int64_t chunk) {
  const Problem problem = prepare(hidden, weight, targets, chunk);
  if (!needs_gradient(hidden, weight)) {
    const torch::NoGradGuard no_grad;
    return mean_of(losses_of(problem), count_targets(problem));
  }
  return CrossEntropyFunction::apply(problem.hidden, problem.weight, problem);
}

Tensor token_losses(const Tensor& hidden, const Tensor& weight, const Tensor& targets,
                    int64_t chunk) {
  const torch::NoGradGuard no_grad;
  return losses_of(prepare(hidden, weight, targets, chunk)).view(targets.sizes());
}

}  // namespace cadre
