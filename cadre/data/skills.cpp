#include "cadre/data/skills.h"

#include <algorithm>
#include <cmath>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/data/rotation.h"

namespace cadre {
namespace {

/// Keys of the streams that a seed opens.
enum Stream : uint64_t { kTeacher = 1, kRotation = 2, kBatch = 3 };

void check(const SkillsOptions& options) {
  const bool sizes = options.skills > 0 && options.latent > 0 && options.inner > 0 &&
                     options.outputs > 0 && options.common_inner >= 0;
  if (!sizes) throw UsageError("skills: every size must be at least 1");
  if (options.hard_skills < 1 || options.hard_skills > options.skills) {
    throw UsageError("skills: hard_skills is {}, must be 1 to {}, the skills there are",
                     options.hard_skills, options.skills);
  }
}

std::vector<float> normals(Random& random, int64_t count, double std) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(std) * random.normal();
  return values;
}

/// The first `count` of `ids` become distinct ones, drawn evenly from all.
void draw_front(Random& random, std::vector<int64_t>& ids, int64_t count) {
  for (int64_t i = 0; i < count; ++i) std::swap(ids[i], ids[i + random.below(ids.size() - i)]);
}

}  // namespace

Skills::Skills(const SkillsOptions& options, uint64_t seed) : options_(options), seed_(seed) {
  check(options);
  for (int64_t s = 0; s < options.skills; ++s) teachers_.push_back(teacher(options.inner, s));
  if (options.common_inner > 0) {
    common_.push_back(teacher(options.common_inner, options.skills));
  }
  rotation_ = random_rotation(inputs(), Random(seed, {kRotation}));
}

Skills::Teacher Skills::teacher(int64_t inner, uint64_t number) const {
  Random random(seed_, {kTeacher, number});
  const auto root = [](int64_t n) { return std::sqrt(static_cast<double>(n)); };
  auto a = normals(random, options_.latent * inner, options_.weight_std / root(options_.latent));
  auto b = normals(random, inner * options_.outputs, 1 / root(inner));
  return {inner, std::move(a), std::move(b)};
}

void Skills::Teacher::add(const float* z, float scale, int64_t outputs, float* y) const {
  const auto latent = static_cast<int64_t>(a.size()) / inner;
  std::vector<float> units(inner, 0.0F);
  for (int64_t i = 0; i < latent; ++i) {
    for (int64_t j = 0; j < inner; ++j) units[j] += z[i] * a[i * inner + j];
  }
  for (int64_t j = 0; j < inner; ++j) {
    const float unit = scale * std::tanh(units[j]);
    for (int64_t o = 0; o < outputs; ++o) y[o] += unit * b[j * outputs + o];
  }
}

SkillsBatch Skills::batch(int64_t size, uint64_t index) const {
  const auto [latent, outputs] = std::pair(options_.latent, options_.outputs);
  Random random(seed_, {kBatch, index});
  auto x = torch::zeros({size, inputs()}), y = torch::zeros({size, outputs});
  auto skills = torch::empty({size}, torch::kInt64);
  std::vector<int64_t> ids(options_.skills);
  for (int64_t s = 0; s < options_.skills; ++s) ids[s] = s;
  for (int64_t row = 0; row < size; ++row) {
    float* in = x.data_ptr<float>() + row * inputs();
    float* out = y.data_ptr<float>() + row * outputs;
    const int64_t count =
        random.uniform() < options_.hard_share ? options_.hard_skills : int64_t{1};
    skills.data_ptr<int64_t>()[row] = count;
    for (int64_t i = 0; i < latent; ++i) in[i] = random.normal();
    draw_front(random, ids, count);
    const auto n = static_cast<float>(count);
    const float scale =
        options_.combine == SkillsOptions::Combine::kMean ? 1 / n : 1 / std::sqrt(n);
    for (int64_t i = 0; i < count; ++i) {
      in[latent + ids[i]] = 2 / std::sqrt(n);
      teachers_[ids[i]].add(in, scale, outputs, out);
    }
    for (const Teacher& teacher : common_) teacher.add(in, 1, outputs, out);
  }
  x = torch::matmul(x, rotation_.t());
  float* noisy = x.data_ptr<float>();
  const auto noise = static_cast<float>(options_.noise);
  for (int64_t i = 0; i < x.numel(); ++i) noisy[i] += noise * random.normal();
  return {x, y, skills};
}

}  // namespace cadre
