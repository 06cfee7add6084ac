#include "cadre/kernels/gemm.h"

#include <bit>
#include <limits>
#include <tuple>

#include "cadre/base/error.h"
#include "cadre/kernels/test_util.h"

namespace cadre::kernels {
namespace {

struct Product {
  Op op_a, op_b;
  int64_t m, n, k;
  int64_t pad;  ///< extra elements between stored rows

  int64_t lda() const { return std::max<int64_t>(1, (op_a == Op::kNone ? k : m) + pad); }
  int64_t ldb() const { return std::max<int64_t>(1, (op_b == Op::kNone ? n : k) + pad); }
  int64_t ldc() const { return std::max<int64_t>(1, n + pad); }
  int64_t a_size() const { return lda() * (op_a == Op::kNone ? m : k); }
  int64_t b_size() const { return ldb() * (op_b == Op::kNone ? k : n); }

  std::vector<double> reference(const Floats& a, const Floats& b, const Floats& c, double alpha,
                                double beta) const {
    std::vector<double> out(c.begin(), c.end());
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (int64_t l = 0; l < k; ++l) {
          const float left = op_a == Op::kNone ? a[i * lda() + l] : a[l * lda() + i];
          const float right = op_b == Op::kNone ? b[l * ldb() + j] : b[j * ldb() + l];
          sum += static_cast<double>(left) * right;
        }
        double& to = out[i * ldc() + j];
        to = alpha * sum + (beta == 0 ? 0 : beta * to);
      }
    }
    return out;
  }
};

std::vector<Product> products() {
  std::vector<Product> all;
  for (const Op op_a : {Op::kNone, Op::kTranspose}) {
    for (const Op op_b : {Op::kNone, Op::kTranspose}) {
      for (const auto& [m, n, k] :
           std::vector<std::tuple<int64_t, int64_t, int64_t>>{{1, 1, 1},
                                                              {3, 5, 7},
                                                              {17, 33, 65},
                                                              {128, 64, 32},
                                                              {1, 200, 31},
                                                              {65, 1, 129},
                                                              {2100, 35, 18},
                                                              {0, 4, 4},
                                                              {4, 0, 4},
                                                              {4, 4, 0}}) {
        for (const int64_t pad : {0, 3}) all.push_back({op_a, op_b, m, n, k, pad});
      }
    }
  }
  return all;
}

TEST(Gemm, EqualsTheReferenceForAllLayouts) {
  for (const Product& p : products()) {
    const Floats a = random_floats(p.a_size(), 1);
    const Floats b = random_floats(p.b_size(), 2);
    for (const auto& [alpha, beta] : {std::pair{1.0f, 0.0f}, {0.5f, 1.0f}, {-2.0f, 0.25f}}) {
      Floats c = random_floats(p.m * p.ldc(), 3);
      const auto want = p.reference(a, b, c, alpha, beta);
      gemm(p.op_a, p.op_b, p.m, p.n, p.k, alpha, a.data(), p.lda(), b.data(), p.ldb(), beta,
           c.data(), p.ldc());
      expect_close(c, want, 1e-4, "gemm");
    }
  }
}

TEST(Gemm, BetaZeroOverwritesNan) {
  const Floats a = random_floats(16 * 16, 1);
  for (const int64_t k : {0, 16}) {
    Floats c(16 * 16, std::numeric_limits<float>::quiet_NaN());
    gemm(Op::kNone, Op::kNone, 16, 16, k, 1, a.data(), 16, a.data(), 16, 0, c.data(), 16);
    for (const float value : c) ASSERT_FALSE(std::isnan(value));
  }
}

TEST(Gemm, WorksInsideAParallelLoop) {
  const Product p{Op::kNone, Op::kTranspose, 40, 50, 60, 0};
  const Floats a = random_floats(p.a_size(), 1);
  const Floats b = random_floats(p.b_size(), 2);
  std::vector<Floats> c(8, Floats(p.m * p.n));
  parallel_tasks(8, [&](int64_t task) {
    gemm(p.op_a, p.op_b, p.m, p.n, p.k, 1, a.data(), p.lda(), b.data(), p.ldb(), 0, c[task].data(),
         p.n);
  });
  for (const Floats& each : c) {
    expect_close(each, p.reference(a, b, Floats(p.m * p.n), 1, 0), 1e-4, "gemm in a loop");
  }
}

TEST(Gemm, ImpossibleStrideIsOneClearError) {
  Floats x(64);
  EXPECT_THROW(gemm(Op::kNone, Op::kNone, 4, 4, 4, 1, x.data(), 2, x.data(), 4, 0, x.data(), 4),
               Error);
}

float widened(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

TEST(ToBf16, RoundsToNearestEvenAndKeepsNan) {
  const float inf = std::numeric_limits<float>::infinity();
  const Floats x{1.0f,
                 -2.5f,
                 1.00390625f,
                 1.01171875f,
                 inf,
                 -inf,
                 std::bit_cast<float>(0x7f800001u),
                 0.0f,
                 std::numeric_limits<float>::max()};
  std::vector<uint16_t> y(x.size());
  to_bf16(x.data(), static_cast<int64_t>(x.size()), y.data());
  EXPECT_EQ(widened(y[0]), 1.0f);
  EXPECT_EQ(widened(y[1]), -2.5f);
  EXPECT_EQ(widened(y[2]), 1.0f);       // half way, down to even
  EXPECT_EQ(widened(y[3]), 1.015625f);  // half way, up to even
  EXPECT_EQ(widened(y[4]), inf);
  EXPECT_EQ(widened(y[5]), -inf);
  EXPECT_TRUE(std::isnan(widened(y[6])));
  EXPECT_EQ(y[7], 0);
  EXPECT_EQ(widened(y[8]), inf);
}

TEST(GemmBf16, EqualsTheReferenceForAllLayouts) {
  for (const Product& p : products()) {
    std::vector<uint16_t> a(p.a_size());
    std::vector<uint16_t> b(p.b_size());
    to_bf16(random_floats(p.a_size(), 1).data(), p.a_size(), a.data());
    to_bf16(random_floats(p.b_size(), 2).data(), p.b_size(), b.data());
    Floats wide_a(a.size());
    Floats wide_b(b.size());
    std::transform(a.begin(), a.end(), wide_a.begin(), widened);
    std::transform(b.begin(), b.end(), wide_b.begin(), widened);
    for (const float beta : {0.0f, 1.0f}) {
      Floats c = random_floats(p.m * p.ldc(), 3);
      const auto want = p.reference(wide_a, wide_b, c, 1, beta);
      gemm_bf16(p.op_a, p.op_b, p.m, p.n, p.k, a.data(), p.lda(), b.data(), p.ldb(), beta, c.data(),
                p.ldc());
      expect_close(c, want, 1e-4, "gemm_bf16");
    }
  }
}

}  // namespace
}  // namespace cadre::kernels
