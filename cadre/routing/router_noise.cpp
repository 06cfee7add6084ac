#include "cadre/routing/router_noise.h"

#include "cadre/base/parallel.h"
#include "cadre/base/random.h"

namespace cadre {
namespace {

/// Keeps this stream apart from others with the same seed.
constexpr uint64_t kNoiseStream = 0x6e6f697365;  // "noise"
constexpr int64_t kTokenGrain = 64;

}  // namespace

torch::Tensor router_noise(const RouteInput& input, int64_t columns) {
  const int64_t tokens = input.hidden.size(0);
  auto noise = torch::empty({tokens, columns});
  float* out = noise.data_ptr<float>();
  parallel_for(tokens, kTokenGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      Random random(input.seed, {kNoiseStream, static_cast<uint64_t>(input.step),
                                 static_cast<uint64_t>(input.layer),
                                 static_cast<uint64_t>(input.draw), static_cast<uint64_t>(t)});
      for (int64_t i = 0; i < columns; ++i) out[t * columns + i] = random.normal();
    }
  });
  return noise;
}

}  // namespace cadre
