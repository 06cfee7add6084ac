#include "cadre/reshape/step_work.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/formats/json.h"
#include "cadre/reshape/values.h"

namespace cadre::reshape {
namespace {

/// Copies work on larger pieces: nothing is computed that should stay in the cache.
constexpr int64_t kCopyElements = int64_t{1} << 20;

struct Slice {
  const Checkpoint& checkpoint;
  const SchemaTensor& tensor;
  int64_t first, count;
};

Slice resolve(const SliceRef& ref, std::span<const CheckpointPtr> inputs) {
  if (ref.checkpoint < 0 || ref.checkpoint >= static_cast<int>(inputs.size()))
    throw Error("tensor {} is asked of input {}, there are {}", quote(ref.name), ref.checkpoint,
                inputs.size());
  const Checkpoint& checkpoint = *inputs[static_cast<size_t>(ref.checkpoint)];
  const SchemaTensor& tensor = checkpoint.schema().require(ref.name);
  const int64_t all = rows_of(tensor.info.shape), columns = columns_of(tensor.info.shape);
  const int64_t rows = ref.rows < 0 ? all - ref.first_row : ref.rows;
  if (ref.first_row < 0 || rows < 0 || ref.first_row + rows > all)
    throw UsageError("{}: tensor {} has {} rows, rows {} to {} are asked for", checkpoint.where(),
                     quote(ref.name), all, ref.first_row, ref.first_row + rows);
  return {checkpoint, tensor, ref.first_row * columns, rows * columns};
}

[[noreturn]] void refuse_values(const Checkpoint& checkpoint, const SchemaTensor& tensor) {
  throw UsageError("{}: tensor {} holds a NaN or an infinity: a model with such weights is broken",
                   checkpoint.where(), quote(tensor.info.name));
}

void check_result(const TensorInfo& info, std::span<const std::byte> bytes) {
  if (!all_finite(info.dtype, bytes))
    throw UsageError("the result {} has values beyond what {} can store; choose a wider dtype",
                     quote(info.name), name_of(info.dtype));
}

std::span<const float> floats_of(const Slice& slice, std::span<const std::byte> bytes,
                                 std::vector<float>& decoded) {
  const DType type = slice.tensor.info.dtype;
  if (!all_finite(type, bytes)) refuse_values(slice.checkpoint, slice.tensor);
  if (const auto floats = as_floats(type, bytes); !floats.empty()) return floats;
  decoded.resize(bytes.size() / static_cast<size_t>(size_of(type)));
  decode(type, bytes, decoded);
  return decoded;
}

}  // namespace

void for_tasks(int workers, int64_t tasks, const std::function<void(int, int64_t)>& body) {
  std::atomic<int64_t> next = 0;
  std::atomic<bool> stop = false;
  parallel_tasks(std::min<int64_t>(workers, tasks), [&](int64_t worker) {
    try {
      for (int64_t task = next++; task < tasks && !stop; task = next++)
        body(static_cast<int>(worker), task);
    } catch (...) {
      stop = true;
      throw;
    }
  });
}

bool is_whole(const Step& step) { return std::holds_alternative<WholeKernel>(step.kernel); }

TiledStep::TiledStep(const Step& step, std::span<const CheckpointPtr> inputs) : step_(step) {
  if (step.out.size() != 1) throw Error("a step that works in tiles has one output");
  const TensorInfo& out = step.out.front();
  const auto* kernel = std::get_if<std::shared_ptr<TileKernel>>(&step.kernel);
  kernel_ = kernel == nullptr ? nullptr : kernel->get();
  elements_ = elements_of(out.shape);
  int64_t sum = 0;
  for (const SliceRef& ref : step.in) {
    const Slice slice = resolve(ref, inputs);
    inputs_.push_back({&slice.checkpoint, &slice.tensor, slice.first, slice.count});
    sum += slice.count;
    const bool fits = kernel_ == nullptr
                          ? slice.tensor.info.dtype == out.dtype
                          : slice.count == elements_ && is_floating(slice.tensor.info.dtype);
    if (!fits)
      throw UsageError("{}: tensor {} [{}] {} does not fit the result {} [{}] {}",
                       slice.checkpoint.where(), quote(ref.name),
                       fmt::join(slice.tensor.info.shape, ", "), name_of(slice.tensor.info.dtype),
                       quote(out.name), fmt::join(out.shape, ", "), name_of(out.dtype));
  }
  if (kernel_ == nullptr && sum != elements_)
    throw UsageError("the result {} has {} elements, its parts {}", quote(out.name), elements_,
                     sum);
  const int64_t grain = kernel_ == nullptr ? 1 : std::max<int64_t>(1, kernel_->grain());
  const int64_t most = kernel_ == nullptr ? kCopyElements : kTileElements;
  tile_elements_ = std::max(grain, most / grain * grain);
  tiles_ = (elements_ + tile_elements_ - 1) / tile_elements_;
}

int64_t TiledStep::count_of(int64_t tile) const {
  return std::min(tile_elements_, elements_ - first_of(tile));
}

int64_t TiledStep::tile_bytes() const {
  const int64_t elements = std::min(tile_elements_, elements_);
  int64_t bytes = elements * size_of(step_.out.front().dtype), nested = 0;
  for (const Input& input : inputs_) {
    const int64_t stored = elements * size_of(input.tensor->info.dtype);
    bytes += kernel_ == nullptr ? 0 : stored;
    if (kernel_ != nullptr && input.tensor->info.dtype != DType::kF32) bytes += elements * 4;
    nested = std::max(nested, input.checkpoint->working_bytes());
  }
  if (kernel_ != nullptr) bytes += elements * 4 + kernel_->scratch_bytes(elements);
  return bytes + nested;
}

Tile TiledStep::read_tile(int64_t tile, TileBuffers& buffers) const {
  const int64_t first = first_of(tile), count = count_of(tile);
  buffers.stored.resize(inputs_.size());
  buffers.decoded.resize(inputs_.size());
  buffers.in.resize(inputs_.size());
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const Input& input = inputs_[i];
    const auto bytes =
        input.checkpoint->bytes(*input.tensor, input.first + first, count, buffers.stored[i]);
    buffers.in[i] = floats_of({*input.checkpoint, *input.tensor, 0, 0}, bytes, buffers.decoded[i]);
  }
  return {.in = buffers.in, .first = first, .index = tile};
}

void TiledStep::prepare(int workers) const {
  if (kernel_ == nullptr) return;
  std::vector<TileBuffers> buffers(static_cast<size_t>(workers));
  for (int pass = 0; pass < kernel_->passes(); ++pass) {
    kernel_->begin_pass(pass, tiles_);
    for_tasks(workers, tiles_, [&](int worker, int64_t tile) {
      TileBuffers& own = buffers[static_cast<size_t>(worker)];
      kernel_->look(pass, read_tile(tile, own));
      drop_views(tile, own);
    });
    kernel_->end_pass(pass);
  }
}

void TiledStep::drop_views(int64_t tile, TileBuffers& buffers) const {
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const Input& input = inputs_[i];
    input.checkpoint->drop(*input.tensor, input.first + first_of(tile), count_of(tile));
  }
  buffers.in.clear();
}

std::span<const std::byte> TiledStep::copy(int64_t tile, TileBuffers& buffers) const {
  const TensorInfo& out = step_.out.front();
  const auto size = static_cast<size_t>(size_of(out.dtype));
  int64_t first = first_of(tile), count = count_of(tile);
  buffers.encoded.resize(static_cast<size_t>(count) * size);
  buffers.stored.resize(1);
  std::byte* to = buffers.encoded.data();
  for (const Input& input : inputs_) {
    const int64_t here = std::clamp<int64_t>(input.count - first, 0, count);
    if (here > 0) {
      const auto bytes =
          input.checkpoint->bytes(*input.tensor, input.first + first, here, buffers.stored[0]);
      if (!all_finite(out.dtype, bytes)) refuse_values(*input.checkpoint, *input.tensor);
      std::memcpy(to, bytes.data(), bytes.size());
      to += bytes.size();
      input.checkpoint->drop(*input.tensor, input.first + first, here);
      count -= here;
    }
    first = std::max<int64_t>(0, first - input.count);
  }
  return buffers.encoded;
}

std::span<const std::byte> TiledStep::compute(int64_t tile, TileBuffers& buffers) const {
  if (kernel_ == nullptr) return copy(tile, buffers);
  Tile work = read_tile(tile, buffers);
  const TensorInfo& out = step_.out.front();
  const int64_t count = count_of(tile);
  buffers.out.resize(static_cast<size_t>(count));
  work.out = buffers.out;
  kernel_->compute(work);
  drop_views(tile, buffers);
  buffers.encoded.resize(static_cast<size_t>(count * size_of(out.dtype)));
  encode(out.dtype, buffers.out, buffers.encoded);
  check_result(out, buffers.encoded);
  return buffers.encoded;
}

std::vector<std::vector<std::byte>> compute_whole(const Step& step,
                                                  std::span<const CheckpointPtr> inputs) {
  std::vector<std::vector<std::byte>> buffers(step.in.size()), results(step.out.size());
  std::vector<std::vector<float>> decoded(step.in.size()), values(step.out.size());
  std::vector<std::span<const float>> in(step.in.size());
  std::vector<std::span<const std::byte>> in_bytes(step.in.size());
  std::vector<std::span<float>> out(step.out.size());
  std::vector<std::span<std::byte>> out_bytes(step.out.size());
  for (size_t i = 0; i < step.in.size(); ++i) {
    const Slice slice = resolve(step.in[i], inputs);
    in_bytes[i] = slice.checkpoint.bytes(slice.tensor, slice.first, slice.count, buffers[i]);
    if (is_floating(slice.tensor.info.dtype)) in[i] = floats_of(slice, in_bytes[i], decoded[i]);
  }
  for (size_t i = 0; i < step.out.size(); ++i) {
    const TensorInfo& info = step.out[i];
    results[i].resize(static_cast<size_t>(bytes_of(info)));
    if (is_floating(info.dtype)) {
      values[i].resize(static_cast<size_t>(elements_of(info.shape)));
      out[i] = values[i];
    } else {
      out_bytes[i] = results[i];
    }
  }
  std::get<WholeKernel>(step.kernel)({in, in_bytes, out, out_bytes});
  for (size_t i = 0; i < step.in.size(); ++i) {
    const Slice slice = resolve(step.in[i], inputs);
    slice.checkpoint.drop(slice.tensor, slice.first, slice.count);
  }
  for (size_t i = 0; i < step.out.size(); ++i) {
    if (!values[i].empty()) encode(step.out[i].dtype, values[i], results[i]);
    check_result(step.out[i], results[i]);
  }
  return results;
}

int64_t whole_bytes(const Step& step, std::span<const CheckpointPtr> inputs) {
  int64_t bytes = step.scratch_bytes, nested = 0;
  for (const SliceRef& ref : step.in) {
    const Slice slice = resolve(ref, inputs);
    const DType type = slice.tensor.info.dtype;
    bytes += slice.count * size_of(type);
    if (is_floating(type) && type != DType::kF32) bytes += slice.count * 4;
    nested = std::max(nested, slice.checkpoint.working_bytes());
  }
  for (const TensorInfo& info : step.out)
    bytes += bytes_of(info) + (is_floating(info.dtype) ? elements_of(info.shape) * 4 : 0);
  return bytes + nested;
}

int64_t input_bytes(const Step& step, std::span<const CheckpointPtr> inputs) {
  int64_t bytes = 0;
  for (const SliceRef& ref : step.in) {
    const Slice slice = resolve(ref, inputs);
    bytes += slice.count * size_of(slice.tensor.info.dtype);
  }
  return bytes;
}

}  // namespace cadre::reshape
