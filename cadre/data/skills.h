#pragma once

/// "Skills" regression: how many experts a sample needs, and which, is known by construction. Fixed
/// teachers f_s(z) = tanh(z A_s) B_s; a sample draws some of them, and the input names which:
///   x = Q [z ; 2 multihot(skills) / sqrt(n)] + noise,   Q a fixed random rotation,
///   y = c(z) + combine(f_s(z) of its n skills),         c a teacher common to all samples.

#include <torch/torch.h>

#include <cstdint>
#include <vector>

namespace cadre {

struct SkillsOptions {
  int64_t skills = 16;
  int64_t latent = 16;       ///< width of z ~ N(0, 1)
  int64_t inner = 16;        ///< units of one skill
  int64_t outputs = 8;       ///< width of y
  int64_t common_inner = 0;  ///< units of the common teacher; 0 = none
  double hard_share = 0.3;   ///< of samples, which draw `hard_skills` distinct skills; others one
  int64_t hard_skills = 3;   ///< n of a hard sample
  enum class Combine { kMean, kRootSum } combine = Combine::kMean;  ///< sum / n or sum / sqrt(n)
  double weight_std = 1.5;  ///< A ~ N(0, weight_std^2 / latent); B ~ N(0, 1 / inner)
  double noise = 0.02;
};

struct SkillsBatch {
  torch::Tensor x;       ///< [N, latent + skills]
  torch::Tensor y;       ///< [N, outputs]
  torch::Tensor skills;  ///< [N] int64: how many each sample draws
};

class Skills {
 public:
  /// The teachers are a pure function of options and seed. Throws UsageError for sizes below 1 or
  /// more hard skills than skills.
  Skills(const SkillsOptions& options, uint64_t seed);

  /// Batch number `index`: a pure function of (seed, index).
  SkillsBatch batch(int64_t size, uint64_t index) const;

  int64_t inputs() const { return options_.latent + options_.skills; }
  const SkillsOptions& options() const { return options_; }

 private:
  struct Teacher {
    int64_t inner;
    std::vector<float> a, b;  ///< [latent, inner], [inner, outputs]
    void add(const float* z, float scale, int64_t outputs, float* y) const;
  };
  Teacher teacher(int64_t inner, uint64_t number) const;

  SkillsOptions options_;
  uint64_t seed_;
  std::vector<Teacher> teachers_;
  std::vector<Teacher> common_;  ///< none or one
  torch::Tensor rotation_;       ///< [inputs, inputs]
};

}  // namespace cadre
