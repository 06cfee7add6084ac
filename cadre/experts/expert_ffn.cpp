#include "cadre/experts/expert_ffn.h"

#include "cadre/base/error.h"
#include "cadre/experts/dispatch.h"
#include "cadre/kernels/dispatch.h"
#include "cadre/kernels/expert_ffn.h"
#include "cadre/nn/tensor_check.h"

namespace cadre {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

kernels::ExpertFfnShape shape_of(const Tensor& w_gate) {
  return {.experts = w_gate.size(0), .hidden = w_gate.size(2), .inner = w_gate.size(1)};
}

/// What the forward pass computes; the last two only matter for backward.
struct Forward {
  Tensor y;        ///< [T, D]
  Tensor rows;     ///< [pairs, D], x by slot
  Tensor outputs;  ///< [pairs, D], the experts' outputs by slot
};

/// `gate_up` [pairs, 2H] is written when given.
Forward run(const Tensor& x, const Tensor& weight, const Tensor& token_offsets,
            const Dispatch& slots, const Tensor& w_gate, const Tensor& w_up, const Tensor& w_down,
            float* gate_up) {
  const int64_t tokens = x.size(0), width = x.size(1), pairs = weight.size(0);
  Forward result{torch::empty({tokens, width}), torch::empty({pairs, width}),
                 torch::empty({pairs, width})};
  kernels::gather_rows(x.data_ptr<float>(), slots.token_of_slot.data_ptr<int64_t>(), pairs, width,
                       result.rows.data_ptr<float>());
  kernels::expert_ffn(shape_of(w_gate), slots.expert_offsets.data_ptr<int64_t>(),
                      result.rows.data_ptr<float>(), w_gate.data_ptr<float>(),
                      w_up.data_ptr<float>(), w_down.data_ptr<float>(), gate_up,
                      result.outputs.data_ptr<float>());
  kernels::combine_rows(result.outputs.data_ptr<float>(), token_offsets.data_ptr<int64_t>(),
                        slots.slot_of_pair.data_ptr<int64_t>(), weight.data_ptr<float>(), tokens,
                        width, result.y.data_ptr<float>());
  return result;
}

class ExpertFfn : public torch::autograd::Function<ExpertFfn> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight,
                        const Tensor& w_gate, const Tensor& w_up, const Tensor& w_down,
                        const Tensor& token_offsets, const Tensor& expert) {
    const Dispatch slots = dispatch(token_offsets, expert, w_gate.size(0));
    auto gate_up = torch::empty({expert.size(0), 2 * w_gate.size(1)});
    auto result =
        run(x, weight, token_offsets, slots, w_gate, w_up, w_down, gate_up.data_ptr<float>());
    context->save_for_backward({result.rows, gate_up, result.outputs, weight, w_gate, w_up, w_down,
                                token_offsets, slots.expert_offsets, slots.slot_of_pair});
    return result.y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    if (torch::GradMode::is_enabled()) {
      throw UsageError("expert_ffn has no second derivative; call backward without create_graph");
    }
    const auto saved = context->get_saved_variables();
    const auto &rows = saved[0], &gate_up = saved[1], &outputs = saved[2], &weight = saved[3];
    const auto &w_gate = saved[4], &w_up = saved[5], &w_down = saved[6];
    const int64_t* token_offsets = saved[7].data_ptr<int64_t>();
    const int64_t* expert_offsets = saved[8].data_ptr<int64_t>();
    const int64_t* slot_of_pair = saved[9].data_ptr<int64_t>();
    const auto dy = grads[0].contiguous();
    const int64_t tokens = dy.size(0), width = dy.size(1);

    auto doutputs = torch::empty_like(outputs), dweight = torch::empty_like(weight);
    kernels::combine_rows_backward(dy.data_ptr<float>(), outputs.data_ptr<float>(), token_offsets,
                                   slot_of_pair, weight.data_ptr<float>(), tokens, width,
                                   doutputs.data_ptr<float>(), dweight.data_ptr<float>());
    // Handed over as they are written: AccumulateGrad takes them without a copy.
    auto dw_gate = torch::empty_like(w_gate), dw_up = torch::empty_like(w_up),
         dw_down = torch::empty_like(w_down);
    auto drows = torch::empty_like(rows);
    kernels::expert_ffn_backward(
        shape_of(w_gate), expert_offsets, rows.data_ptr<float>(), w_gate.data_ptr<float>(),
        w_up.data_ptr<float>(), w_down.data_ptr<float>(), gate_up.data_ptr<float>(),
        doutputs.data_ptr<float>(), drows.data_ptr<float>(), dw_gate.data_ptr<float>(),
        dw_up.data_ptr<float>(), dw_down.data_ptr<float>());
    auto dx = torch::empty_like(dy);
    kernels::combine_rows(drows.data_ptr<float>(), token_offsets, slot_of_pair, nullptr, tokens,
                          width, dx.data_ptr<float>());
    return {dx, dweight, dw_gate, dw_up, dw_down, {}, {}};
  }
};

void check_shapes(const Tensor& x, const Routing& routing, const Tensor& w_gate, const Tensor& w_up,
                  const Tensor& w_down) {
  check_fp32(x, "expert_ffn's x");
  check_fp32(w_gate, "expert_ffn's w_gate");
  check_fp32(w_up, "expert_ffn's w_up");
  check_fp32(w_down, "expert_ffn's w_down");
  const bool weights_fit = w_gate.dim() == 3 && w_up.sizes() == w_gate.sizes() &&
                           w_down.sizes() == w_gate.transpose(1, 2).sizes();
  if (!weights_fit) {
    throw UsageError(
        "expert_ffn: w_gate {}, w_up {} and w_down {} must be [E, H, D] twice and [E, D, H]",
        describe(w_gate), describe(w_up), describe(w_down));
  }
  if (x.dim() != 2 || x.size(1) != w_gate.size(2) || x.size(0) != routing.tokens()) {
    throw UsageError(
        "expert_ffn: x {} must be [{}, {}], the routing's tokens by the experts' width",
        describe(x), routing.tokens(), w_gate.size(2));
  }
  if (routing.experts != w_gate.size(0)) {
    throw UsageError("expert_ffn: the routing knows {} experts, the weights hold {}",
                     routing.experts, w_gate.size(0));
  }
}

}  // namespace

Tensor expert_ffn(const Tensor& x, const Routing& routing, const Tensor& w_gate, const Tensor& w_up,
                  const Tensor& w_down) {
  join_team();
  check_shapes(x, routing, w_gate, w_up, w_down);
  const auto dense_x = x.contiguous(), weight = routing.weight.contiguous();
  const auto gate = w_gate.contiguous(), up = w_up.contiguous(), down = w_down.contiguous();
  if (needs_gradient(dense_x, weight, gate, up, down)) {
    return ExpertFfn::apply(dense_x, weight, gate, up, down, routing.offsets, routing.expert);
  }
  const Dispatch slots = dispatch(routing.offsets, routing.expert, routing.experts);
  return run(dense_x, weight, routing.offsets, slots, gate, up, down, nullptr).y;
}

}  // namespace cadre
