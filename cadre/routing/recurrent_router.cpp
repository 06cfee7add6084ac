#include "cadre/routing/recurrent_router.h"

#include <cmath>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/kernels/recurrent.h"
#include "cadre/nn/linear.h"
#include "cadre/nn/tensor_check.h"
#include "cadre/routing/affinity.h"
#include "cadre/routing/selection.h"

namespace cadre {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Keeps only its inputs: backward computes the gates again, which costs less than storing them.
struct GruFunction : torch::autograd::Function<GruFunction> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& h,
                        const Tensor& state) {
    Tensor next = torch::empty_like(state);
    kernels::gru(x.data_ptr<float>(), h.data_ptr<float>(), state.data_ptr<float>(), state.size(0),
                 state.size(1), next.data_ptr<float>());
    context->save_for_backward({x, h, state});
    return next;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &x = saved[0], &h = saved[1], &state = saved[2];
    const Tensor dnext = grads[0].contiguous();
    Tensor dx = torch::empty_like(x), dh = torch::empty_like(h), dstate = torch::empty_like(state);
    kernels::gru_backward(x.data_ptr<float>(), h.data_ptr<float>(), state.data_ptr<float>(),
                          dnext.data_ptr<float>(), state.size(0), state.size(1),
                          dx.data_ptr<float>(), dh.data_ptr<float>(), dstate.data_ptr<float>());
    return {dx, dh, dstate};
  }
};

}  // namespace

RecurrentCell::RecurrentCell(CellKind kind, int64_t width) : kind_(kind) {
  if (width < 1) throw UsageError("recurrent router: width is {}, must be at least 1", width);
  const int64_t rows = (kind == CellKind::kGru ? 3 : 1) * width;
  const double bound = 1 / std::sqrt(static_cast<double>(width));
  const auto uniform = [&](at::IntArrayRef sizes) {
    return torch::empty(sizes).uniform_(-bound, bound);
  };
  weight_ih = register_parameter("weight_ih", uniform({rows, width}));
  weight_hh = register_parameter("weight_hh", uniform({rows, width}));
  bias_ih = register_parameter("bias_ih", uniform({rows}));
  bias_hh = register_parameter("bias_hh", uniform({rows}));
}

Tensor RecurrentCell::forward(const Tensor& input, const Tensor& state) {
  const Tensor x = cadre::linear(input, weight_ih, bias_ih);
  // A state of zeros needs no product.
  const Tensor h = state.defined() ? cadre::linear(state, weight_hh, bias_hh)
                                   : bias_hh.expand({input.size(0), -1}).contiguous();
  if (kind_ == CellKind::kTanh) return torch::tanh(x + h);
  const Tensor old = state.defined() ? dense_fp32(state, "recurrent router's state")
                                     : torch::zeros({input.size(0), width()});
  return GruFunction::apply(x, h, old);
}

RecurrentRouter::RecurrentRouter(int64_t hidden, int64_t experts, const Recurrent& options,
                                 std::shared_ptr<RecurrentCell> shared)
    : options_(options) {
  check_router_sizes(hidden, experts);
  check_router_k(options.k, experts);
  cell = shared ? std::move(shared) : std::make_shared<RecurrentCell>(options.cell, options.width);
  if (cell->width() != options.width) {
    throw UsageError("recurrent router: its width is {}, that of the cell it shares {}",
                     options.width, cell->width());
  }
  register_module("cell", cell);
  proj = register_parameter("proj", initial_gate(options.width, hidden, options.init_std));
  weight = register_parameter("weight", initial_gate(experts, options.width, options.init_std));
}

void RecurrentRouter::check_state(const RouteInput& input) const {
  const Tensor& state = input.state;
  const int64_t columns = options_.memory == Memory::kResidual ? experts() : options_.width;
  if (!state.defined() || options_.memory == Memory::kNone) return;
  if (state.dim() == 2 && state.size(0) == input.hidden.size(0) && state.size(1) == columns) return;
  throw UsageError("router of layer {}: the state from the layer below is {}, must be [{}, {}]",
                   input.layer, describe(state), input.hidden.size(0), columns);
}

Routing RecurrentRouter::route(const RouteInput& input) {
  const int64_t k = input.knobs.k.value_or(options_.k);
  check_router_k(k, experts());
  check_router_input(input, proj.size(1));
  check_state(input);
  const bool passes = options_.memory == Memory::kFull || options_.memory == Memory::kDetached;
  Tensor before = passes ? input.state : Tensor();
  if (before.defined() && options_.memory == Memory::kDetached) before = before.detach();

  const Tensor read = cadre::linear(input.hidden.to(torch::kFloat32), proj);
  const Tensor state = cell->forward(read, before);
  const Tensor logits = cadre::linear(state, weight);
  check_finite_logits(logits, input.layer);
  const Tensor own = torch::softmax(logits, 1);
  const bool adds = options_.memory == Memory::kResidual && input.state.defined();
  const Tensor probs = adds ? own + options_.residual * input.state : own;

  const Tensor valid = valid_tokens_of(input);
  const Rows rows = rows_of(row_top_k(probs, k), experts(), valid);
  const auto weighting =
      options_.weights == Weights::kNormalized ? Weighting::kNormalized : Weighting::kRaw;
  Routing routing =
      routing_of(experts(), rows, row_weights(probs, rows, weighting), logits, probs, valid);
  routing.state = options_.memory == Memory::kResidual ? own : state;
  return routing;
}

}  // namespace cadre
