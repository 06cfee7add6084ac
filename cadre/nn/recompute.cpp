#include "cadre/nn/transformer.h"

namespace cadre {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// What a second run of a block needs beside its tensors.
struct BlockCall : torch::CustomClassHolder {
  BlockCall(TransformerBlock block, Tensor positions, LayerContext context)
      : block(std::move(block)), positions(std::move(positions)), context(std::move(context)) {
    this->context.aux.clear();
  }

  TransformerBlock block;
  Tensor positions;
  LayerContext context;
  Tensor random_state;

  // Written by the first run.
  std::vector<std::string> aux_names;
  bool leaves_state = false;
};

torch::Generator generator() { return at::detail::getDefaultCPUGenerator(); }

/// Runs the block; returns hidden, router state and the auxiliary losses that it added.
variable_list run(BlockCall& call, LayerContext& context, const Tensor& hidden) {
  variable_list outputs = {call.block->forward(hidden, call.positions, context)};
  outputs.push_back(context.router_state);
  for (const AuxLoss& aux : context.aux) outputs.push_back(aux.value);
  return outputs;
}

/// Stands for an absent router state among autograd's inputs and outputs.
Tensor no_state() { return torch::empty({0}); }

struct RecomputeFunction : torch::autograd::Function<RecomputeFunction> {
  /// inputs: hidden, router state (or no_state()), the block's parameters.
  static variable_list forward(AutogradContext* autograd, const c10::intrusive_ptr<BlockCall>& call,
                               at::TensorList inputs) {
    call->random_state = generator().get_state();
    LayerContext context = call->context;
    variable_list outputs = run(*call, context, inputs[0]);
    call->leaves_state = outputs[1].defined();
    if (!call->leaves_state) outputs[1] = no_state();
    for (const AuxLoss& aux : context.aux) call->aux_names.push_back(aux.name);
    autograd->save_for_backward({inputs[0], inputs[1]});
    autograd->saved_data["call"] = c10::IValue::make_capsule(call);
    autograd->set_materialize_grads(false);
    return outputs;
  }

  static variable_list backward(AutogradContext* autograd, variable_list grads) {
    const auto call =
        c10::static_intrusive_pointer_cast<BlockCall>(autograd->saved_data["call"].toCapsule());
    const variable_list saved = autograd->get_saved_variables();
    variable_list inputs;
    for (const Tensor& x : saved) inputs.push_back(x.detach().set_requires_grad(x.requires_grad()));
    for (const Tensor& x : call->block->parameters()) inputs.push_back(x);

    const variable_list outputs = run_again(*call, inputs);
    variable_list roots, root_grads;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!grads[i].defined() || !outputs[i].defined() || !outputs[i].requires_grad()) continue;
      roots.push_back(outputs[i]);
      root_grads.push_back(grads[i]);
    }
    return gradients(roots, root_grads, inputs);
  }

 private:
  static variable_list run_again(BlockCall& call, const variable_list& inputs) {
    const torch::AutoGradMode with_gradient(true);
    LayerContext context = call.context;
    context.pass = Pass::kRecompute;
    if (context.router_state.defined()) context.router_state = inputs[1];
    torch::Generator random = generator();
    const Tensor now = random.get_state();
    random.set_state(call.random_state);
    variable_list outputs = run(call, context, inputs[0]);
    random.set_state(now);
    return outputs;
  }

  /// One place per argument of forward (the call first); undefined where nothing flows.
  static variable_list gradients(const variable_list& roots, const variable_list& root_grads,
                                 const variable_list& inputs) {
    variable_list wanted, results(1 + inputs.size());
    for (const Tensor& x : inputs) {
      if (x.requires_grad()) wanted.push_back(x);
    }
    if (roots.empty() || wanted.empty()) return results;
    const variable_list found =
        torch::autograd::grad(roots, wanted, root_grads, c10::nullopt, false, true);
    for (size_t i = 0, next = 0; i < inputs.size(); ++i) {
      if (inputs[i].requires_grad()) results[1 + i] = found[next++];
    }
    return results;
  }
};

}  // namespace

Tensor run_block(TransformerBlock& block, Activations activations, const Tensor& hidden,
                 const Tensor& positions, LayerContext& context) {
  if (activations == Activations::kKeep || !torch::GradMode::is_enabled()) {
    return block->forward(hidden, positions, context);
  }
  const auto call = c10::make_intrusive<BlockCall>(block, positions, context);
  const Tensor state = context.router_state.defined() ? context.router_state : no_state();
  variable_list inputs = {hidden, state};
  for (const Tensor& x : block->parameters()) inputs.push_back(x);
  const variable_list outputs = RecomputeFunction::apply(call, at::TensorList(inputs));
  context.router_state = call->leaves_state ? outputs[1] : Tensor();
  for (size_t i = 0; i < call->aux_names.size(); ++i) {
    context.aux.push_back({call->aux_names[i], outputs[2 + i]});
  }
  return outputs[0];
}

}  // namespace cadre
