#include "cadre/nn/attention.h"

#include <algorithm>
#include <cmath>

#include "cadre/base/error.h"
#include "cadre/kernels/elementwise.h"
#include "cadre/nn/tensor_check.h"

namespace cadre {
namespace {

using kernels::AttentionShape;
using kernels::Mask;
using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

enum class Turn { kForth, kBack };

/// Rotates dense x [B, T, heads, dim] in place; positions dense [B, T].
void rotate(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin,
            Turn turn) {
  kernels::rotary(x.data_ptr<float>(), positions.data_ptr<int64_t>(), cos.data_ptr<float>(),
                  sin.data_ptr<float>(), positions.numel(), x.size(2), x.size(3),
                  x.size(2) * x.size(3), turn == Turn::kForth ? 1.0f : -1.0f);
}

Tensor rotated(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin,
               Turn turn) {
  Tensor y = x.clone(torch::MemoryFormat::Contiguous);
  rotate(y, positions, cos, sin, turn);
  return y;
}

struct RotaryFunction : torch::autograd::Function<RotaryFunction> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& positions,
                        const Tensor& cos, const Tensor& sin) {
    context->save_for_backward({positions, cos, sin});
    return rotated(x, positions, cos, sin, Turn::kForth);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    return {rotated(grads[0], saved[0], saved[1], saved[2], Turn::kBack), {}, {}, {}};
  }
};

AttentionShape shape_of(const Tensor& q, const Tensor& k, const Tensor& v, Mask mask) {
  return {.batch = q.size(0),
          .length = q.size(1),
          .key_length = k.size(1),
          .heads = q.size(2),
          .kv_heads = k.size(2),
          .dim = q.size(3),
          .q_stride = q.stride(1),
          .k_stride = k.stride(1),
          .v_stride = v.stride(1),
          .mask = mask,
          .scale = 1.0f / std::sqrt(static_cast<float>(q.size(3)))};
}

/// Rotary positions inside the attention function, all undefined = none. q and k are then rotated
/// where they lie, and their gradients rotated back: four passes over memory less. Only for a
/// caller who made q and k by functions that do not keep their outputs, and reads them no more.
struct Rotation {
  Tensor positions, cos, sin;
};

struct AttentionFunction : torch::autograd::Function<AttentionFunction> {
  static Tensor forward(AutogradContext* context, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Rotation& rotation, Mask mask) {
    const auto& [positions, cos, sin] = rotation;
    if (positions.defined()) {
      rotate(q, positions, cos, sin, Turn::kForth);
      rotate(k, positions, cos, sin, Turn::kForth);
    }
    Tensor out = torch::empty_like(q);
    Tensor lse = torch::empty({q.size(0), q.size(2), q.size(1)}, q.options());
    kernels::attention(shape_of(q, k, v, mask), q.data_ptr<float>(), k.data_ptr<float>(),
                       v.data_ptr<float>(), out.data_ptr<float>(), lse.data_ptr<float>());
    context->save_for_backward({q, k, v, out, lse, positions, cos, sin});
    context->saved_data["mask"] = static_cast<int64_t>(mask);
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2], &out = saved[3], &lse = saved[4];
    const Tensor &positions = saved[5], &cos = saved[6], &sin = saved[7];
    const Tensor dout = grads[0].contiguous();
    const Mask mask = static_cast<Mask>(context->saved_data["mask"].toInt());
    Tensor dq = torch::empty_like(q), dk = torch::empty_like(k), dv = torch::empty_like(v);
    kernels::attention_backward(shape_of(q, k, v, mask), q.data_ptr<float>(), k.data_ptr<float>(),
                                v.data_ptr<float>(), out.data_ptr<float>(), lse.data_ptr<float>(),
                                dout.data_ptr<float>(), dq.data_ptr<float>(), dk.data_ptr<float>(),
                                dv.data_ptr<float>());
    if (positions.defined()) {
      rotate(dq, positions, cos, sin, Turn::kBack);
      rotate(dk, positions, cos, sin, Turn::kBack);
    }
    return {dq, dk, dv, {}, {}};
  }
};

/// True when the kernel can read x [B, S, heads, dim] as it lies: heads dense within a token.
bool tokens_dense(const Tensor& x) { return x.stride(3) == 1 && x.stride(2) == x.size(3); }

/// Without gradient, and sequence by sequence: the views of a cache have gaps between sequences.
Tensor attention_over_views(const Tensor& q, const Tensor& k, const Tensor& v, Mask mask) {
  Tensor out = torch::empty(q.sizes(), q.options());
  for (int64_t b = 0; b < q.size(0); ++b) {
    const Tensor q_b = q.narrow(0, b, 1), k_b = k.narrow(0, b, 1), v_b = v.narrow(0, b, 1);
    kernels::attention(shape_of(q_b, k_b, v_b, mask), q_b.data_ptr<float>(), k_b.data_ptr<float>(),
                       v_b.data_ptr<float>(), out.narrow(0, b, 1).data_ptr<float>(), nullptr);
  }
  return out;
}

void check_shapes(const Tensor& q, const Tensor& k, const Tensor& v, Mask mask) {
  for (const Tensor& x : {q, k, v}) check_fp32(x, "attention's input");
  const bool fits = q.dim() == 4 && k.dim() == 4 && v.sizes() == k.sizes() &&
                    q.size(0) == k.size(0) && q.size(3) == k.size(3) && q.size(3) > 0 &&
                    k.size(2) > 0 && q.size(2) % k.size(2) == 0 &&
                    (mask == Mask::kNone || q.size(1) <= k.size(1));
  if (!fits) {
    throw UsageError(
        "attention: q {}, k {}, v {} do not fit; expected [B, T, heads, dim] and twice "
        "[B, S, kv_heads, dim], heads a multiple of kv_heads, and T <= S under a causal mask",
        describe(q), describe(k), describe(v));
  }
}

/// Positions of each of x's tokens as dense [B, T].
Tensor positions_of(const Tensor& x, const Tensor& positions, const RotaryTable& table) {
  const bool fits =
      x.dim() == 4 && positions.defined() &&
      (positions.sizes() == x.sizes().slice(0, 2) || positions.sizes() == x.sizes().slice(1, 1));
  if (!fits) {
    throw UsageError(
        "rotary: positions {} do not fit x {}; expected [B, T] or [T] for [B, T, heads, dim]",
        describe(positions), describe(x));
  }
  if (x.size(3) != 2 * table.cos.size(1)) {
    throw UsageError("rotary: the table is for heads of width {}, x is {}", 2 * table.cos.size(1),
                     describe(x));
  }
  return dense_ids(positions.expand({x.size(0), x.size(1)}), table.cos.size(0), "positions");
}

}  // namespace

RotaryTable::RotaryTable(int64_t max_positions, int64_t dim, double theta) {
  if (max_positions < 1 || dim < 2 || dim % 2 != 0 || !(theta > 0)) {
    throw UsageError(
        "rotary table: got {} positions, head width {}, theta {}; needs at least one position, an "
        "even "
        "width and a positive theta",
        max_positions, dim, theta);
  }
  const auto wide = torch::TensorOptions().dtype(torch::kFloat64);
  const Tensor exponent = torch::arange(0, dim, 2, wide) / static_cast<double>(dim);
  const Tensor angle =
      torch::outer(torch::arange(max_positions, wide), torch::pow(theta, -exponent));
  cos = angle.cos().to(torch::kFloat32);
  sin = angle.sin().to(torch::kFloat32);
}

Tensor rotary(const Tensor& x, const Tensor& positions, const RotaryTable& table) {
  const Tensor dense = dense_fp32(x, "rotary's x");
  return RotaryFunction::apply(dense, positions_of(dense, positions, table), table.cos, table.sin);
}

Tensor scaled_dot_product_attention(const Tensor& q, const Tensor& k, const Tensor& v, Mask mask) {
  check_shapes(q, k, v, mask);
  const bool readable = tokens_dense(q) && tokens_dense(k) && tokens_dense(v);
  if (!needs_gradient(q, k, v) && readable) return attention_over_views(q, k, v, mask);
  return AttentionFunction::apply(q.contiguous(), k.contiguous(), v.contiguous(), Rotation{}, mask);
}

void KeyValueCache::append(const Tensor& keys, const Tensor& values) {
  const torch::NoGradGuard no_grad;
  check_fp32(keys, "the cache's keys");
  check_fp32(values, "the cache's values");
  const bool fits = keys.dim() == 4 && values.sizes() == keys.sizes() &&
                    (!keys_.defined() || (keys.size(0) == keys_.size(0) &&
                                          keys.sizes().slice(2) == keys_.sizes().slice(2)));
  if (!fits) {
    throw UsageError("cache: keys {} and values {} do not continue {}", describe(keys),
                     describe(values), describe(keys_));
  }
  const int64_t length = length_ + keys.size(1);
  reserve(keys, length);
  keys_.slice(1, length_, length).copy_(keys);
  values_.slice(1, length_, length).copy_(values);
  length_ = length;
}

void KeyValueCache::truncate(int64_t length) {
  if (length < 0 || length > length_) {
    throw UsageError("cache: cannot keep {} tokens of {}", length, length_);
  }
  length_ = length;
}

void KeyValueCache::reserve(const Tensor& like, int64_t length) {
  const int64_t capacity = keys_.defined() ? keys_.size(1) : 0;
  if (length <= capacity) return;
  std::vector<int64_t> sizes = like.sizes().vec();
  sizes[1] = std::max({length, 2 * capacity, int64_t{64}});
  for (Tensor* held : {&keys_, &values_}) {
    Tensor larger = torch::empty(sizes, like.options());
    if (length_ > 0) larger.narrow(1, 0, length_).copy_(held->narrow(1, 0, length_));
    *held = larger;
  }
}

AttentionImpl::AttentionImpl(const AttentionOptions& options,
                             std::shared_ptr<const RotaryTable> table)
    : options_(options), table_(std::move(table)) {
  const int64_t hidden = options_.hidden, heads = options_.heads;
  int64_t& kv_heads = options_.kv_heads;
  int64_t& dim = options_.head_dim;
  if (hidden < 1 || heads < 1) {
    throw UsageError("attention needs a width and heads of at least 1, got {} and {}", hidden,
                     heads);
  }
  if (kv_heads == 0) kv_heads = heads;
  if (kv_heads < 1 || heads % kv_heads != 0) {
    throw UsageError(
        "attention: {} heads cannot share {} key-value heads; heads must be a multiple", heads,
        kv_heads);
  }
  if (dim == 0 && hidden % heads != 0) {
    throw UsageError(
        "attention: width {} does not divide into {} heads; choose other heads or set head_dim",
        hidden, heads);
  }
  if (dim == 0) dim = hidden / heads;
  if (dim < 1) throw UsageError("attention: head_dim must be positive, got {}", dim);
  if (table_ && table_->cos.size(1) * 2 != dim) {
    throw UsageError("attention: heads are {} wide, the rotary table is for {}", dim,
                     table_->cos.size(1) * 2);
  }
  const auto projection = [&](const char* name, int64_t in, int64_t out) {
    return register_module(
        name, Linear(LinearOptions{.in = in, .out = out, .init_std = options_.init_std}));
  };
  q_proj = projection("q_proj", hidden, heads * dim);
  k_proj = projection("k_proj", hidden, kv_heads * dim);
  v_proj = projection("v_proj", hidden, kv_heads * dim);
  o_proj = projection("o_proj", heads * dim, hidden);
  if (options_.qk_norm == AttentionOptions::QkNorm::kNone) return;
  const bool per_head = options_.qk_norm == AttentionOptions::QkNorm::kPerHead;
  q_norm = register_module("q_norm", RmsNorm(per_head ? dim : heads * dim, options_.norm_eps));
  k_norm = register_module("k_norm", RmsNorm(per_head ? dim : kv_heads * dim, options_.norm_eps));
}

Tensor AttentionImpl::forward(const Tensor& hidden, const Tensor& positions, KeyValueCache* cache) {
  if (!hidden.defined() || hidden.dim() != 3) {
    throw UsageError("attention: hidden {} is not [B, T, D]", describe(hidden));
  }
  const int64_t batch = hidden.size(0), length = hidden.size(1), dim = options_.head_dim;
  const std::vector<Tensor> projected =
      linears(hidden, {q_proj->weight, k_proj->weight, v_proj->weight});
  Tensor q = projected[0], k = projected[1];
  const bool per_head = options_.qk_norm == AttentionOptions::QkNorm::kPerHead;
  if (q_norm && !per_head) {
    q = q_norm->forward(q);
    k = k_norm->forward(k);
  }
  q = q.view({batch, length, options_.heads, dim});
  k = k.view({batch, length, options_.kv_heads, dim});
  if (q_norm && per_head) {
    q = q_norm->forward(q);
    k = k_norm->forward(k);
  }
  const Tensor v = projected[2].view({batch, length, options_.kv_heads, dim});
  const Tensor out = attend(q, k, v, positions, cache);
  return o_proj->forward(out.view({batch, length, options_.heads * dim}));
}

Tensor AttentionImpl::attend(Tensor q, Tensor k, const Tensor& v, const Tensor& positions,
                             KeyValueCache* cache) const {
  if (cache == nullptr) {
    Rotation rotation;
    if (table_) rotation = {positions_of(q, positions, *table_), table_->cos, table_->sin};
    return AttentionFunction::apply(q, k, v, rotation, options_.mask);
  }
  const torch::NoGradGuard no_grad;
  if (table_) {
    q = rotary(q, positions, *table_);
    k = rotary(k, positions, *table_);
  }
  cache->append(k, v);
  return scaled_dot_product_attention(q, cache->keys(), cache->values(), options_.mask);
}

}  // namespace cadre
