#include "cadre/data/routing_memory.h"

#include <cmath>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/data/rotation.h"

namespace cadre {
namespace {

enum Stream : uint64_t { kSteps = 1, kBatch = 2 };

}  // namespace

RoutingMemory::RoutingMemory(const RoutingMemoryOptions& options, uint64_t seed)
    : options_(options), seed_(seed) {
  if (options.tags < 1 || options.width < 1 || options.layers < 1) {
    throw UsageError("routing memory: tags {}, width {} and layers {} must be at least 1",
                     options.tags, options.width, options.layers);
  }
  Random random(seed, {kSteps});
  const double std = options.weight_std / std::sqrt(static_cast<double>(options.width));
  for (int64_t i = 0; i < options.layers * options.tags; ++i) {
    steps_.push_back(random_normal(random, options.width, options.width, std));
  }
}

RoutingMemoryBatch RoutingMemory::batch(int64_t size, uint64_t index) const {
  Random random(seed_, {kBatch, index});
  auto tag = torch::empty({size}, torch::kInt64);
  for (int64_t i = 0; i < size; ++i) {
    tag.data_ptr<int64_t>()[i] = static_cast<int64_t>(random.below(options_.tags));
  }
  const auto z = random_normal(random, size, options_.width, 1.0);
  auto y = z.clone();
  for (int64_t c = 0; c < options_.tags; ++c) {
    const auto rows = torch::nonzero(tag == c).squeeze(1);
    auto part = y.index_select(0, rows);
    for (int64_t layer = 0; layer < options_.layers; ++layer) {
      part = part + torch::tanh(part.matmul(steps_[layer * options_.tags + c]));
    }
    y.index_copy_(0, rows, part);
  }
  return {z, tag, 2 * torch::one_hot(tag, options_.tags).to(torch::kFloat32), y};
}

}  // namespace cadre
