#include "cadre/reshape/plan.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "cadre/base/error.h"
#include "cadre/formats/json.h"
#include "cadre/reshape/step_work.h"
#include "cadre/reshape/values.h"

namespace cadre::reshape {
namespace {

/// Computes what is asked for. A tile is computed again for every read that touches it; passes run
/// once, and of whole matrices the step used last is kept.
class Planned : public Checkpoint {
 public:
  Planned(Plan plan, std::vector<CheckpointPtr> inputs)
      : plan_(std::move(plan)),
        inputs_(std::move(inputs)),
        schema_(
            schema_of(plan_, "the result of " + plan_.record.value("op", std::string("a plan")))),
        prepared_(plan_.steps.size()) {
    for (size_t i = 0; i < plan_.steps.size(); ++i) {
      const Step& step = plan_.steps[i];
      tiled_.push_back(is_whole(step) ? nullptr : std::make_unique<TiledStep>(step, inputs_));
      for (size_t j = 0; j < step.out.size(); ++j) made_by_[step.out[j].name] = {i, j};
    }
  }

  const Schema& schema() const override { return schema_; }
  const std::filesystem::path& folder() const override {
    return inputs_[static_cast<size_t>(std::max(0, plan_.tokenizer_from))]->folder();
  }
  std::string fingerprint() const override {
    std::string text = plan_.record.dump(-1, ' ', true);
    for (const CheckpointPtr& input : inputs_) text += input->fingerprint();
    return text;
  }
  std::vector<std::filesystem::path> sources() const override {
    std::vector<std::filesystem::path> all;
    for (const CheckpointPtr& input : inputs_)
      for (const auto& path : input->sources()) all.push_back(path);
    return all;
  }
  int64_t working_bytes() const override { return peak_bytes(plan_, inputs_, 1); }

  std::span<const std::byte> bytes(const SchemaTensor& tensor, int64_t first, int64_t count,
                                   std::vector<std::byte>& buffer) const override {
    const auto [step, output] = made_by_.at(tensor.info.name);
    const auto size = static_cast<size_t>(size_of(tensor.info.dtype));
    buffer.resize(static_cast<size_t>(count) * size);
    if (tiled_[step] == nullptr) {
      const std::lock_guard lock(mutex_);
      if (kept_ != static_cast<int64_t>(step)) {
        kept_outputs_ = compute_whole(plan_.steps[step], inputs_);
        kept_ = static_cast<int64_t>(step);
      }
      std::memcpy(buffer.data(), kept_outputs_[output].data() + static_cast<size_t>(first) * size,
                  buffer.size());
    } else {
      copy_tiles(step, first, count, buffer.data(), size);
    }
    return buffer;
  }

 private:
  void copy_tiles(size_t index, int64_t first, int64_t count, std::byte* to, size_t size) const {
    const TiledStep& step = *tiled_[index];
    std::call_once(prepared_[index], [&] { step.prepare(1); });
    TileBuffers buffers;
    for (int64_t at = first; at < first + count;) {
      const int64_t tile = at / step.tile_elements(), begin = at - step.first_of(tile);
      const int64_t here = std::min(step.count_of(tile) - begin, first + count - at);
      const auto bytes = step.compute(tile, buffers);
      std::memcpy(to, bytes.data() + static_cast<size_t>(begin) * size,
                  static_cast<size_t>(here) * size);
      to += static_cast<size_t>(here) * size;
      at += here;
    }
  }

  struct Place {
    size_t step, output;
  };
  const Plan plan_;
  const std::vector<CheckpointPtr> inputs_;
  const Schema schema_;
  std::vector<std::unique_ptr<TiledStep>> tiled_;
  std::map<std::string, Place> made_by_;
  mutable std::vector<std::once_flag> prepared_;
  mutable std::mutex mutex_;  ///< guards what follows
  mutable int64_t kept_ = -1;
  mutable std::vector<std::vector<std::byte>> kept_outputs_;
};

}  // namespace

int64_t peak_bytes(const Plan& plan, std::span<const CheckpointPtr> inputs, int threads) {
  int64_t peak = 0;
  for (const Step& step : plan.steps) {
    const int64_t bytes = is_whole(step)
                              ? whole_bytes(step, inputs)
                              : TiledStep(step, inputs).tile_bytes() * threads + step.scratch_bytes;
    peak = std::max(peak, bytes);
  }
  return peak;
}

StatsIndex::StatsIndex(const std::filesystem::path& path) : path_(path), reader_(path) {}

bool StatsIndex::contains(const std::string& name) const { return reader_.contains(name); }

std::vector<int64_t> StatsIndex::shape(const std::string& name) const {
  values(name);
  return reader_.tensor(name).shape;
}

std::vector<float> StatsIndex::values(const std::string& name) const {
  if (!reader_.contains(name))
    throw UsageError("{}: statistic {} is missing; collect it with cadre calibrate", path_.string(),
                     quote(name));
  const TensorView& view = reader_.tensor(name);
  std::vector<float> values(static_cast<size_t>(view.elements()));
  decode(view.dtype, view.bytes, values);
  return values;
}

Step copy_step(const SchemaTensor& tensor, int checkpoint, const std::string& name) {
  TensorInfo out = tensor.info;
  if (!name.empty()) out.name = name;
  return {.out = {std::move(out)},
          .in = {{.checkpoint = checkpoint, .name = tensor.info.name}},
          .kernel = CopyKernel{}};
}

Schema schema_of(const Plan& plan, const std::string& where) {
  std::vector<TensorInfo> infos;
  for (const Step& step : plan.steps)
    for (const TensorInfo& info : step.out) infos.push_back(info);
  return Schema(plan.config_out, infos, where);
}

CheckpointPtr planned_checkpoint(Plan plan, std::vector<CheckpointPtr> inputs) {
  return std::make_shared<Planned>(std::move(plan), std::move(inputs));
}

}  // namespace cadre::reshape
