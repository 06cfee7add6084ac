#include "cadre/routing/router_noise.h"

#include <algorithm>
#include <vector>

#include "cadre/base/parallel.h"
#include "cadre/base/random.h"
#include "cadre/kernels/normal.h"

namespace cadre {
namespace {

/// Keeps this stream apart from others with the same seed.
constexpr uint64_t kNoiseStream = 0x6e6f697365;  // "noise"
constexpr int64_t kTokenGrain = 64;

}  // namespace

torch::Tensor router_noise(const RouteInput& input, int64_t columns) {
  const int64_t tokens = input.hidden.size(0), pairs = (columns + 1) / 2;
  auto noise = torch::empty({tokens, columns});
  float* out = noise.data_ptr<float>();
  parallel_for(tokens, kTokenGrain, [&](int64_t begin, int64_t end) {
    std::vector<uint32_t> words(2 * pairs);
    std::vector<float> normals(2 * pairs);
    for (int64_t t = begin; t < end; ++t) {
      Random random(input.seed, {kNoiseStream, static_cast<uint64_t>(input.step),
                                 static_cast<uint64_t>(input.layer),
                                 static_cast<uint64_t>(input.draw), static_cast<uint64_t>(t)});
      std::generate(words.begin(), words.end(), [&random] { return random.next_u32(); });
      kernels::box_muller(words.data(), pairs, normals.data());
      std::copy_n(normals.begin(), columns, out + t * columns);
    }
  });
  return noise;
}

}  // namespace cadre
