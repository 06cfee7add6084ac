#include "cadre/experts/expert_mlp.h"

#include <cmath>

#include "cadre/base/error.h"
#include "cadre/experts/dispatch.h"
#include "cadre/kernels/grouped_gemm.h"
#include "cadre/nn/feed_forward.h"
#include "cadre/nn/tensor_check.h"

namespace cadre {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class GroupedLinear : public torch::autograd::Function<GroupedLinear> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& offsets,
                        const Tensor& weight) {
    const int64_t experts = weight.size(0), n = weight.size(1), k = weight.size(2);
    auto y = torch::empty({x.size(0), n});
    kernels::grouped_gemm(experts, offsets.data_ptr<int64_t>(), n, k, x.data_ptr<float>(),
                          weight.data_ptr<float>(), y.data_ptr<float>());
    context->save_for_backward({x, offsets, weight});
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[2];
    const int64_t* offsets = saved[1].data_ptr<int64_t>();
    const int64_t experts = weight.size(0), n = weight.size(1), k = weight.size(2);
    const auto dy = grads[0].contiguous();
    auto dx = torch::empty_like(x), dweight = torch::empty_like(weight);
    kernels::grouped_gemm_input_grad(experts, offsets, n, k, dy.data_ptr<float>(),
                                     weight.data_ptr<float>(), dx.data_ptr<float>());
    kernels::grouped_gemm_weight_grad(experts, offsets, n, k, dy.data_ptr<float>(),
                                      x.data_ptr<float>(), dweight.data_ptr<float>());
    return {dx, {}, dweight};
  }
};

Tensor uniform(at::IntArrayRef sizes, int64_t inputs) {
  const double bound = 1 / std::sqrt(static_cast<double>(inputs));
  return torch::empty(sizes).uniform_(-bound, bound);
}

}  // namespace

Tensor grouped_linear(const Tensor& x, const Tensor& offsets, const Tensor& weight) {
  join_team();
  check_fp32(x, "grouped_linear's x");
  check_fp32(weight, "grouped_linear's weight");
  const bool fits = x.dim() == 2 && weight.dim() == 3 && x.size(1) == weight.size(2) &&
                    offsets.dim() == 1 && offsets.size(0) == weight.size(0) + 1 &&
                    offsets[-1].item<int64_t>() == x.size(0);
  if (!fits) {
    throw UsageError("grouped_linear: x {}, offsets {} and weight {} do not fit each other",
                     describe(x), describe(offsets), describe(weight));
  }
  return GroupedLinear::apply(x.contiguous(), offsets.contiguous(), weight.contiguous());
}

Tensor activate(const Tensor& x, Activation activation) {
  return activation == Activation::kGelu ? cadre::gelu(x) : torch::relu(x);
}

ExpertMlp::ExpertMlp(const ExpertMlpOptions& options) : options_(options) {
  const auto [in, inner, out, experts, activation] = options;
  if (in < 1 || inner < 1 || out < 1 || experts < 1) {
    throw UsageError("expert MLP: in {}, inner {}, out {} and experts {} must be at least 1", in,
                     inner, out, experts);
  }
  up = register_parameter("up", uniform({experts, inner, in}, in));
  up_bias = register_parameter("up_bias", uniform({experts, inner}, in));
  down = register_parameter("down", uniform({experts, out, inner}, inner));
  down_bias = register_parameter("down_bias", uniform({experts, out}, inner));
}

Tensor ExpertMlp::forward(const Tensor& x, const Routing& routing) {
  if (x.dim() != 2 || x.size(1) != options_.in || x.size(0) != routing.tokens() ||
      routing.experts != options_.experts) {
    throw UsageError("expert MLP: x {} must be [{}, {}], and the routing's {} experts {}",
                     describe(x), routing.tokens(), options_.in, routing.experts, options_.experts);
  }
  const Dispatch slots = dispatch(routing.offsets, routing.expert, routing.experts);
  // Pairs by slot: the inverse of slot_of_pair.
  const auto pair_of_slot = torch::empty_like(slots.slot_of_pair)
                                .scatter_(0, slots.slot_of_pair, torch::arange(routing.pairs()));
  const auto expert = routing.expert.to(torch::kInt64).index_select(0, pair_of_slot);
  const auto weight = routing.weight.index_select(0, pair_of_slot).unsqueeze(1);
  const auto rows = x.index_select(0, slots.token_of_slot);
  const auto inner =
      grouped_linear(rows, slots.expert_offsets, up) + up_bias.index_select(0, expert);
  const auto outputs =
      grouped_linear(activate(inner, options_.activation), slots.expert_offsets, down) +
      down_bias.index_select(0, expert);
  return torch::zeros({x.size(0), options_.out})
      .index_add(0, slots.token_of_slot, outputs * weight);
}

}  // namespace cadre
