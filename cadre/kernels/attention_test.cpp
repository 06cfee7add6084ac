#include "cadre/kernels/attention.h"

#include <limits>

#include "cadre/kernels/test_util.h"

namespace cadre::kernels {
namespace {

using Doubles = std::vector<double>;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

AttentionShape make_shape(int64_t batch, int64_t length, int64_t key_length, int64_t heads,
                          int64_t kv_heads, int64_t dim, Mask mask, int64_t pad) {
  return {.batch = batch,
          .length = length,
          .key_length = key_length,
          .heads = heads,
          .kv_heads = kv_heads,
          .dim = dim,
          .q_stride = heads * dim + pad,
          .k_stride = kv_heads * dim + 2 * pad,
          .v_stride = kv_heads * dim + pad,
          .mask = mask,
          .scale = 1 / std::sqrt(static_cast<float>(dim))};
}

struct Problem {
  AttentionShape shape;
  Floats q, k, v, dout;

  explicit Problem(const AttentionShape& s)
      : shape(s),
        q(random_floats(s.batch * s.length * s.q_stride, 1)),
        k(random_floats(s.batch * s.key_length * s.k_stride, 2)),
        v(random_floats(s.batch * s.key_length * s.v_stride, 3)),
        dout(random_floats(s.batch * s.length * s.heads * s.dim, 4)) {}
};

struct Result {
  Floats out, lse, dq, dk, dv;
};

Result run(const Problem& p) {
  const AttentionShape& s = p.shape;
  // What lies between the rows belongs to others: NaN there must stay.
  Result r{Floats(p.dout.size(), kNan), Floats(s.batch * s.heads * s.length, kNan),
           Floats(p.q.size(), kNan), Floats(p.k.size(), kNan), Floats(p.v.size(), kNan)};
  attention(s, p.q.data(), p.k.data(), p.v.data(), r.out.data(), r.lse.data());
  attention_backward(s, p.q.data(), p.k.data(), p.v.data(), r.out.data(), r.lse.data(),
                     p.dout.data(), r.dq.data(), r.dk.data(), r.dv.data());
  return r;
}

struct Reference {
  Doubles out, lse, dq, dk, dv;
};

/// One query of one head, forward and backward.
void reference_query(const Problem& p, int64_t b, int64_t h, int64_t i, Reference& r) {
  const AttentionShape& s = p.shape;
  const int64_t kv = h / (s.heads / s.kv_heads);
  const int64_t q_at = (b * s.length + i) * s.q_stride + h * s.dim;
  const int64_t out_at = ((b * s.length + i) * s.heads + h) * s.dim;
  const auto k_at = [&](int64_t j) { return (b * s.key_length + j) * s.k_stride + kv * s.dim; };
  const auto v_at = [&](int64_t j) { return (b * s.key_length + j) * s.v_stride + kv * s.dim; };
  const int64_t position = s.key_length - s.length + i;
  const int64_t seen = s.mask == Mask::kNone ? s.key_length : std::max<int64_t>(0, position + 1);
  Doubles scores(seen);
  double sum = 0;
  for (int64_t j = 0; j < seen; ++j) {
    for (int64_t c = 0; c < s.dim; ++c) {
      scores[j] += static_cast<double>(p.q[q_at + c]) * p.k[k_at(j) + c] * s.scale;
    }
    sum += std::exp(scores[j]);
  }
  const double lse = seen == 0 ? -kInf : std::log(sum);
  r.lse[(b * s.heads + h) * s.length + i] = lse;
  double delta = 0;
  for (int64_t j = 0; j < seen; ++j) {
    for (int64_t c = 0; c < s.dim; ++c) {
      r.out[out_at + c] += std::exp(scores[j] - lse) * p.v[v_at(j) + c];
    }
  }
  for (int64_t c = 0; c < s.dim; ++c) delta += r.out[out_at + c] * p.dout[out_at + c];
  for (int64_t j = 0; j < seen; ++j) {
    const double weight = std::exp(scores[j] - lse);
    double dweight = 0;
    for (int64_t c = 0; c < s.dim; ++c) {
      dweight += static_cast<double>(p.dout[out_at + c]) * p.v[v_at(j) + c];
    }
    const double dscore = weight * (dweight - delta) * s.scale;
    for (int64_t c = 0; c < s.dim; ++c) {
      r.dv[v_at(j) + c] += weight * p.dout[out_at + c];
      r.dq[q_at + c] += dscore * p.k[k_at(j) + c];
      r.dk[k_at(j) + c] += dscore * p.q[q_at + c];
    }
  }
}

/// Numbers where rows lie, NaN between them.
Doubles strided(int64_t rows, int64_t stride, int64_t used) {
  Doubles x(rows * stride, kNan);
  for (int64_t row = 0; row < rows; ++row) {
    std::fill_n(x.begin() + row * stride, used, 0.0);
  }
  return x;
}

Reference reference(const Problem& p) {
  const AttentionShape& s = p.shape;
  const int64_t kv_width = s.kv_heads * s.dim;
  Reference r{Doubles(p.dout.size()), Doubles(s.batch * s.heads * s.length),
              strided(s.batch * s.length, s.q_stride, s.heads * s.dim),
              strided(s.batch * s.key_length, s.k_stride, kv_width),
              strided(s.batch * s.key_length, s.v_stride, kv_width)};
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t h = 0; h < s.heads; ++h) {
      for (int64_t i = 0; i < s.length; ++i) reference_query(p, b, h, i, r);
    }
  }
  return r;
}

void expect_nan_kept(const Floats& got, const Doubles& want, const char* what) {
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(std::isnan(got[i]), std::isnan(want[i])) << what << " at " << i;
  }
}

void expect_reference(const AttentionShape& shape) {
  const Problem p(shape);
  const Result got = run(p);
  const Reference want = reference(p);
  expect_close(got.out, want.out, 1e-4, "out");
  expect_close(got.lse, want.lse, 1e-4, "lse");
  expect_close(got.dq, want.dq, 2e-4, "dq");
  expect_close(got.dk, want.dk, 5e-4, "dk");
  expect_close(got.dv, want.dv, 5e-4, "dv");
  expect_nan_kept(got.dq, want.dq, "dq");
  expect_nan_kept(got.dk, want.dk, "dk");
  expect_nan_kept(got.dv, want.dv, "dv");
}

TEST(Attention, ForwardAndBackwardEqualTheReference) {
  for (const Mask mask : {Mask::kNone, Mask::kCausal}) {
    for (const int64_t pad : {0, 3}) {
      expect_reference(make_shape(1, 1, 1, 1, 1, 1, mask, pad));
      expect_reference(make_shape(2, 5, 5, 4, 2, 8, mask, pad));
      expect_reference(make_shape(1, 3, 9, 6, 2, 5, mask, pad));  // more keys than queries
      expect_reference(
          make_shape(1, 9, 3, 2, 1, 16, mask, pad));  // causal: queries that see nothing
      expect_reference(make_shape(2, 200, 200, 2, 1, 32, mask, pad));
      expect_reference(make_shape(1, 130, 1100, 2, 2, 16, mask, pad));  // several key blocks
    }
  }
}

TEST(Attention, NothingToDoIsFine) {
  for (const Mask mask : {Mask::kNone, Mask::kCausal}) {
    run(Problem(make_shape(0, 4, 4, 2, 1, 8, mask, 0)));
    run(Problem(make_shape(2, 0, 4, 2, 1, 8, mask, 0)));
    const Result r = run(Problem(make_shape(2, 4, 0, 2, 1, 8, mask, 0)));
    for (const float value : r.out) EXPECT_EQ(value, 0);
    for (const float value : r.dq) EXPECT_EQ(value, 0);
  }
}

TEST(Attention, LargeScoresDoNotOverflow) {
  Problem p(make_shape(1, 40, 40, 2, 2, 16, Mask::kCausal, 0));
  for (float& value : p.q) value *= 1000;
  const Result r = run(p);
  for (const float value : r.out) ASSERT_TRUE(std::isfinite(value));
  for (const float value : r.dk) ASSERT_TRUE(std::isfinite(value));
}

TEST(Attention, GradientMeetsCentralDifferences) {
  Problem p(make_shape(1, 4, 6, 4, 2, 3, Mask::kCausal, 0));
  const auto loss = [&] { return dot(run(p).out, p.dout); };
  const Result r = run(p);
  expect_close(r.dq, numeric_gradient(p.q, loss), 2e-3, "dq");
  expect_close(r.dk, numeric_gradient(p.k, loss), 2e-3, "dk");
  expect_close(r.dv, numeric_gradient(p.v, loss), 2e-3, "dv");
}

TEST(Attention, SameBitsForAnyTeam) {
  const Problem p(make_shape(2, 150, 150, 4, 2, 32, Mask::kCausal, 0));
  expect_same_bits([&] { return run(p).out; });
  expect_same_bits([&] { return run(p).dk; });
  expect_same_bits([&] { return run(p).dq; });
}

}  // namespace
}  // namespace cadre::kernels
