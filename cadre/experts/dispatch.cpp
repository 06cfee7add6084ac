#include "cadre/experts/dispatch.h"

#include <vector>

#include "cadre/base/parallel.h"
#include "cadre/kernels/dispatch.h"

namespace cadre {
namespace {

/// Fewest pairs worth a thread.
constexpr int64_t kPairGrain = 8192;

}  // namespace

Dispatch dispatch(const torch::Tensor& token_offsets, const torch::Tensor& expert,
                  int64_t experts) {
  const int64_t pairs = expert.size(0), tokens = token_offsets.size(0) - 1;
  const auto ints = torch::TensorOptions(torch::kInt64);
  Dispatch result{torch::empty({experts + 1}, ints), torch::empty({pairs}, ints),
                  torch::empty({pairs}, ints)};
  std::vector<int64_t> order(pairs);
  kernels::sort_by_expert(expert.data_ptr<int32_t>(), pairs, experts,
                          result.expert_offsets.data_ptr<int64_t>(), order.data());
  int64_t* slot_of_pair = result.slot_of_pair.data_ptr<int64_t>();
  parallel_for(pairs, kPairGrain, [&](int64_t begin, int64_t end) {
    for (int64_t slot = begin; slot < end; ++slot) slot_of_pair[order[slot]] = slot;
  });
  const int64_t* offset = token_offsets.data_ptr<int64_t>();
  int64_t* token_of_slot = result.token_of_slot.data_ptr<int64_t>();
  parallel_for(tokens, kPairGrain / 8, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t pair = offset[t]; pair < offset[t + 1]; ++pair) {
        token_of_slot[slot_of_pair[pair]] = t;
      }
    }
  });
  return result;
}

}  // namespace cadre
