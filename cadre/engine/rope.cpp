#include "cadre/engine/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "cadre/engine/vector_math.h"

namespace cadre::engine {
namespace {

constexpr double kTwoPi = 2 * std::numbers::pi;

/// YaRN's dimension whose wave turns `rotations` times within the original context.
double correction(const RopeSpec& spec, double rotations) {
  const auto context = static_cast<double>(spec.original_context);
  return static_cast<double>(spec.dimension) * std::log(context / (rotations * kTwoPi)) /
         (2 * std::log(static_cast<double>(spec.base)));
}

/// Fast waves keep their frequency, slow ones are interpolated, a ramp lies between (equations
/// 19-23).
double yarn(const RopeSpec& spec, int64_t pair, double frequency) {
  const double low = std::max(0.0, std::floor(correction(spec, spec.beta_fast)));
  const double high = std::min(static_cast<double>(spec.dimension - 1),
                               std::ceil(correction(spec, spec.beta_slow)));
  const double ramp =
      std::clamp((static_cast<double>(pair) - low) / std::max(0.001, high - low), 0.0, 1.0);
  return frequency / spec.factor * ramp + frequency * (1 - ramp);
}

double llama3(const RopeSpec& spec, double frequency) {
  const double turns = static_cast<double>(spec.original_context) * frequency / kTwoPi;
  const double low = spec.low_frequency, high = spec.high_frequency;
  if (turns < low) return frequency / spec.factor;
  if (turns > high) return frequency;
  const double smooth = (turns - low) / (high - low);
  return (1 - smooth) * frequency / spec.factor + smooth * frequency;
}

double scaled(const RopeSpec& spec, int64_t pair, double frequency) {
  switch (spec.scaling) {
    case RopeSpec::Scaling::kNone:
      return frequency;
    case RopeSpec::Scaling::kLinear:
      return frequency / spec.factor;
    case RopeSpec::Scaling::kYarn:
      return yarn(spec, pair, frequency);
    case RopeSpec::Scaling::kLlama3:
      return llama3(spec, frequency);
  }
  return frequency;
}

}  // namespace

Rope::Rope(const RopeSpec& spec, std::span<const float> factors)
    : layout_(spec.layout), dimension_(spec.dimension), attention_factor_(spec.attention_factor) {
  for (int64_t pair = 0; pair < dimension_ / 2; ++pair) {
    const double exponent = -2.0 * static_cast<double>(pair) / static_cast<double>(dimension_);
    double frequency = std::pow(static_cast<double>(spec.base), exponent);
    if (!factors.empty()) frequency /= factors[static_cast<size_t>(pair)];
    frequencies_.push_back(scaled(spec, pair, frequency));
  }
}

void Rope::angles(int64_t position, float* angles) const {
  for (size_t pair = 0; pair < frequencies_.size(); ++pair) {
    const double angle = static_cast<double>(position) * frequencies_[pair];
    angles[pair] = static_cast<float>(std::cos(angle) * attention_factor_);
    angles[frequencies_.size() + pair] = static_cast<float>(std::sin(angle) * attention_factor_);
  }
}

void Rope::rotate(const float* angles, float* x) const {
  const float* sines = angles + dimension_ / 2;
  if (layout_ == RopeLayout::kHalves) rotate_halves(angles, sines, dimension_, x);
  if (layout_ == RopeLayout::kAdjacent) rotate_neighbours(angles, sines, dimension_, x);
}

}  // namespace cadre::engine
