#include "cadre/kernels/gemm.h"

#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_debug.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/kernels/few_rows.h"
#include "cadre/kernels/kernel_timer.h"
#include "cadre/kernels/scratch.h"

namespace cadre::kernels {
namespace {

/// C = beta * C: what a product over k = 0 leaves.
void scale(int64_t m, int64_t n, float beta, float* c, int64_t ldc) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      c[i * ldc + j] = beta == 0 ? 0.0f : beta * c[i * ldc + j];
    }
  }
}

/// From so many rows on, a transposed B is turned by us: oneDNN packs it slower, which costs 10 %
/// of a 4096 x 512 x 512 product (one pass over B costs 1 %).
constexpr int64_t kTurnRows = 2048;

/// y [k, n] = transpose of b [n, k].
void turn(const float* b, int64_t n, int64_t k, int64_t ldb, float* y) {
  constexpr int64_t kStrip = 16;
  parallel_for((n + kStrip - 1) / kStrip, 8, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kStrip;
    transpose(b + first * ldb, std::min(n, end * kStrip) - first, k, ldb, y + first, n);
  });
}

uint16_t round_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float from_bf16(uint16_t value) { return std::bit_cast<float>(static_cast<uint32_t>(value) << 16); }

const dnnl::engine& cpu_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::memory::desc matrix(dnnl::memory::data_type type, Op op, int64_t rows, int64_t columns,
                          int64_t ld) {
  const bool plain = op == Op::kNone;
  return {{rows, columns}, type, plain ? dnnl::memory::dims{ld, 1} : dnnl::memory::dims{1, ld}};
}

/// The bfloat16 product of one (op_a, op_b, beta). Its sizes are runtime values, so that eight
/// primitives serve every shape: none is ever created for a new row count.
class Bf16Product {
 public:
  Bf16Product(Op op_a, Op op_b, float beta) {
    constexpr int64_t kAny = DNNL_RUNTIME_DIM_VAL;
    using Type = dnnl::memory::data_type;
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::library);
    if (beta != 0) {
      dnnl::post_ops sum;
      sum.append_sum(beta);
      attributes.set_post_ops(sum);
    }
    const dnnl::matmul::desc product(matrix(Type::bf16, op_a, kAny, kAny, kAny),
                                     matrix(Type::bf16, op_b, kAny, kAny, kAny),
                                     matrix(Type::f32, Op::kNone, kAny, kAny, kAny));
    primitive_ = dnnl::matmul({product, attributes, cpu_engine()});
  }

  void run(const dnnl::memory& a, const dnnl::memory& b, const dnnl::memory& c) const {
    dnnl::stream stream(cpu_engine());
    primitive_.execute(stream, {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, c}});
    stream.wait();
  }

 private:
  dnnl::matmul primitive_;
};

/// Per thread, because a primitive's scratch pad serves one caller at a time.
const Bf16Product& bf16_product(Op op_a, Op op_b, float beta) {
  thread_local std::array<std::unique_ptr<Bf16Product>, 8> products;
  const int key = (op_a == Op::kTranspose) * 4 + (op_b == Op::kTranspose) * 2 + (beta != 0);
  if (!products[key]) products[key] = std::make_unique<Bf16Product>(op_a, op_b, beta);
  return *products[key];
}

std::vector<float> widen(const uint16_t* x, int64_t rows, int64_t columns, int64_t ld) {
  std::vector<float> wide(rows * columns);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) wide[i * columns + j] = from_bf16(x[i * ld + j]);
  }
  return wide;
}

}  // namespace

void gemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
          int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  if (k == 0) return scale(m, n, beta, c, ldc);
  static Profile::Section& section = Profile::global().section("gemm");
  const KernelTimer timer(section);
  if (op_b == Op::kTranspose && m >= kTurnRows && ldb >= k) {
    thread_local Scratch scratch;
    float* turned = scratch.floats(n * k);
    turn(b, n, k, ldb, turned);
    return gemm(op_a, Op::kNone, m, n, k, alpha, a, lda, turned, n, beta, c, ldc);
  }
  const char transpose_a = op_a == Op::kTranspose ? 'T' : 'N';
  const char transpose_b = op_b == Op::kTranspose ? 'T' : 'N';
  const dnnl_status_t status =
      dnnl_sgemm(transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  if (status != dnnl_success) {
    throw Error(
        "gemm: oneDNN refused {}{} m={} n={} k={} lda={} ldb={} ldc={} ({}); check the strides",
        transpose_a, transpose_b, m, n, k, lda, ldb, ldc, dnnl_status2str(status));
  }
}

bool has_bf16() {
  static const bool native = (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core_bf16) ==
                             dnnl_cpu_isa_avx512_core_bf16;
  return native;
}

void gemm_bf16(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, const uint16_t* a, int64_t lda,
               const uint16_t* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  if (k == 0) return scale(m, n, beta, c, ldc);
  if (!has_bf16()) {
    const std::vector<float> wide_a = op_a == Op::kNone ? widen(a, m, k, lda) : widen(a, k, m, lda);
    const std::vector<float> wide_b = op_b == Op::kNone ? widen(b, k, n, ldb) : widen(b, n, k, ldb);
    gemm(op_a, op_b, m, n, k, 1, wide_a.data(), op_a == Op::kNone ? k : m, wide_b.data(),
         op_b == Op::kNone ? n : k, beta, c, ldc);
    return;
  }
  using Type = dnnl::memory::data_type;
  const auto memory = [](Type type, Op op, int64_t rows, int64_t columns, const void* data,
                         int64_t ld) {
    return dnnl::memory(matrix(type, op, rows, columns, ld), cpu_engine(), const_cast<void*>(data));
  };
  try {
    bf16_product(op_a, op_b, beta)
        .run(memory(Type::bf16, op_a, m, k, a, lda), memory(Type::bf16, op_b, k, n, b, ldb),
             memory(Type::f32, Op::kNone, m, n, c, ldc));
  } catch (const dnnl::error& error) {
    throw Error("gemm_bf16: oneDNN refused m={} n={} k={} lda={} ldb={} ldc={}: {}", m, n, k, lda,
                ldb, ldc, error.what());
  }
}

void to_bf16(const float* x, int64_t n, uint16_t* y) {
  parallel_for(n, 1 << 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = round_to_bf16(x[i]);
  });
}

}  // namespace cadre::kernels
