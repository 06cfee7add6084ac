#include "cadre/ensemble/model_pool.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/base/timer.h"
#include "cadre/base/units.h"
#include "cadre/engine/memory_limits.h"
#include "cadre/engine/memory_plan.h"
#include "cadre/engine/open_experts.h"
#include "cadre/engine/pack.h"
#include "cadre/engine/tensor_source.h"

namespace cadre::ensemble {
namespace {

/// The plan of a model that has all the memory it wants.
engine::MemoryPlan ample_plan(const engine::TensorSource& source,
                              const engine::ModelOptions& options, int64_t context) {
  const engine::PackedType packed_type = engine::packed_types(source, options);
  constexpr int64_t kAmple = std::numeric_limits<int64_t>::max() / 2;
  return engine::plan_memory(source, engine::open_expert_files(source, packed_type),
                             {.memory = kAmple,
                              .context = context,
                              .kv_type = options.kv_type,
                              .pass_tokens = options.prefill},
                             packed_type);
}

std::string bytes_text(int64_t bytes) { return format_bytes(static_cast<uint64_t>(bytes)); }

}  // namespace

std::list<LruBudget::Entry>::const_iterator LruBudget::find(int64_t item) const {
  return std::find_if(entries_.begin(), entries_.end(),
                      [item](const Entry& entry) { return entry.item == item; });
}

bool LruBudget::holds(int64_t item) const { return find(item) != entries_.end(); }

void LruBudget::drop(int64_t item) {
  const auto found = find(item);
  if (found == entries_.end()) return;
  used_ -= found->size;
  entries_.erase(found);
}

std::vector<int64_t> LruBudget::take(int64_t item, int64_t size) {
  std::vector<int64_t> left;
  if (const auto found = find(item); found != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, found);
    return left;
  }
  size = std::min(size, budget_);
  while (used_ + size > budget_) {
    left.push_back(entries_.back().item);
    drop(left.back());
  }
  entries_.push_front({item, size});
  used_ += size;
  return left;
}

ModelPool::ModelPool(std::vector<std::filesystem::path> models, const engine::ModelOptions& options)
    : paths_(std::move(models)),
      options_(options),
      memory_(options.memory > 0 ? options.memory
                                 : engine::default_memory(engine::read_memory_limits())),
      open_(paths_.size()),
      room_(0) {
  if (paths_.empty()) throw UsageError("an ensemble without models");
  for (const auto& path : paths_) {
    const auto source = engine::open_source(path);
    const int64_t most = source->spec().context;
    contexts_.push_back(std::min<int64_t>(most, options.context > 0 ? options.context : 4096));
    const engine::MemoryPlan plan = ample_plan(*source, options_, contexts_.back());
    process_ = plan.process;
    needs_.push_back({plan.least - plan.process, plan.resident - plan.process});
    if (plan.least <= memory_) continue;
    throw UsageError("{}: {} of memory are too few, {} are the least with a context of {}",
                     path.string(), bytes_text(memory_), bytes_text(plan.least), contexts_.back());
  }
  room_ = LruBudget(memory_ - process_);
}

engine::ModelOptions ModelPool::options_for(int64_t model) const {
  engine::ModelOptions options = options_;
  options.context = contexts_[static_cast<size_t>(model)];
  options.memory = process_ + std::min(need(model).resident, room_.budget());
  return options;
}

ModelPool::Opened ModelPool::get(int64_t model) {
  const auto index = static_cast<size_t>(model);
  Opened opened{.was_open = is_open(model), .left = room_.take(model, need(model).resident)};
  for (const int64_t leaving : opened.left) open_[static_cast<size_t>(leaving)].reset();
  if (!opened.was_open) {
    const Stopwatch watch;
    try {
      open_[index] = engine::Model::open(paths_[index], options_for(model));
    } catch (...) {
      room_.drop(model);
      throw;
    }
    opened.seconds = watch.seconds();
    ++loads_;
  }
  opened.model = open_[index];
  return opened;
}

}  // namespace cadre::ensemble
