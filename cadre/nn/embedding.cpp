#include "cadre/nn/embedding.h"

#include "cadre/base/error.h"
#include "cadre/kernels/dispatch.h"
#include "cadre/nn/tensor_check.h"

namespace cadre {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct EmbeddingFunction : torch::autograd::Function<EmbeddingFunction> {
  static Tensor forward(AutogradContext* context, const Tensor& weight, const Tensor& ids) {
    context->save_for_backward({ids});
    context->saved_data["vocabulary"] = weight.size(0);
    std::vector<int64_t> sizes = ids.sizes().vec();
    sizes.push_back(weight.size(1));
    Tensor y = torch::empty(sizes, weight.options());
    kernels::gather_rows(weight.data_ptr<float>(), ids.data_ptr<int64_t>(), ids.numel(),
                         weight.size(1), y.data_ptr<float>());
    return y;
  }

  // The scatter-add is a combine seen from the table: each row sums the tokens that used it, in
  // their order.
  static variable_list backward(AutogradContext* context, variable_list grads) {
    const Tensor ids = context->get_saved_variables()[0];
    const Tensor dy = grads[0].contiguous();
    const int64_t vocabulary = context->saved_data["vocabulary"].toInt();
    const int64_t width = dy.size(-1);
    const Tensor ids32 = ids.to(torch::kInt32);
    std::vector<int64_t> offsets(vocabulary + 1), order(ids.numel());
    kernels::sort_by_expert(ids32.data_ptr<int32_t>(), ids.numel(), vocabulary, offsets.data(),
                            order.data());
    Tensor dw = torch::empty({vocabulary, width}, dy.options());
    kernels::combine_rows(dy.data_ptr<float>(), offsets.data(), order.data(), nullptr, vocabulary,
                          width, dw.data_ptr<float>());
    return {dw, Tensor()};
  }
};

}  // namespace

Tensor embedding(const Tensor& ids, const Tensor& weight) {
  const Tensor table = dense_fp32(weight, "the embedding's weight");
  if (table.dim() != 2) throw UsageError("embedding: weight {} is not [V, D]", describe(weight));
  return EmbeddingFunction::apply(table, dense_ids(ids, table.size(0), "token ids"));
}

EmbeddingImpl::EmbeddingImpl(int64_t vocabulary, int64_t hidden, double init_std) {
  if (vocabulary < 1 || hidden < 1) {
    throw UsageError("an embedding needs a vocabulary and a width of at least 1, got {} and {}",
                     vocabulary, hidden);
  }
  weight = register_parameter("weight", torch::empty({vocabulary, hidden}).normal_(0, init_std));
}

Tensor EmbeddingImpl::forward(const Tensor& ids) { return cadre::embedding(ids, weight); }

}  // namespace cadre
