// Streaming operations on two models of 512 MB each, which the page cache holds after the first
// round. Bytes a second count what is read and written; BM_MemoryCopy is what memory gives for the
// same traffic, BM_FileWrite what the disk takes: runs end when their bytes are durable.

#include <benchmark/benchmark.h>

#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "cadre/base/parallel.h"
#include "cadre/base/random.h"
#include "cadre/formats/file.h"
#include "cadre/formats/safetensors.h"
#include "cadre/formats/test_folder.h"
#include "cadre/reshape/ops.h"
#include "cadre/reshape/run.h"
#include "cadre/reshape/values.h"

namespace {

using namespace cadre;
using namespace cadre::reshape;
using nlohmann::json;

constexpr int64_t kColumns = 4096, kTensors = 8;
constexpr int64_t kModelBytes = int64_t{512} << 20;

/// Folders of models, made once.
const std::filesystem::path& model(DType type, const std::string& name, uint64_t seed) {
  static const TestFolder folder;
  static std::map<std::string, std::filesystem::path> made;
  std::filesystem::path& path = made[name + std::string(name_of(type))];
  if (!path.empty()) return path;
  path = folder / (name + std::string(name_of(type)));
  std::filesystem::create_directory(path);
  const int64_t rows = kModelBytes / kTensors / kColumns / size_of(type);
  std::vector<TensorSpec> specs;
  for (int64_t i = 0; i < kTensors; ++i)
    specs.push_back(
        {"model.layers." + std::to_string(i) + ".mlp.up_proj.weight", type, {rows, kColumns}});
  std::vector<float> values(static_cast<size_t>(rows * kColumns));
  Random random(seed);
  for (float& value : values) value = random.uniform() - 0.5F;
  std::vector<std::byte> bytes(static_cast<size_t>(kModelBytes / kTensors));
  encode(type, values, bytes);
  ShardedWriter writer(path, specs);
  for (const TensorSpec& spec : specs) writer.write(spec.name, bytes);
  writer.commit();
  return path;
}

void run_bench(benchmark::State& state, const std::string& op, const json& parameters,
               const std::vector<CheckpointPtr>& inputs) {
  const TestFolder out;
  int64_t bytes = 0;
  for (auto _ : state) {
    const Plan plan = plan_op(op_named(op), inputs, parameters, nullptr, "bench");
    const RunReport report = run(plan, inputs, out / "model");
    bytes += report.bytes_read + report.bytes_written;
  }
  state.SetBytesProcessed(bytes);
}

json merge(const char* method, const json& parameters) {
  json document = {{"merge_method", method},
                   {"models", {{{"model", "a"}}, {{"model", "b"}}}},
                   {"parameters", parameters}};
  if (std::string_view(method) == "ties") document["base_model"] = "base";
  return {{"config", document}};
}

void BM_Copy(benchmark::State& state) {
  run_bench(state, "copy", json::object(), {open_checkpoint(model(DType::kBF16, "a", 1))});
}
BENCHMARK(BM_Copy)->UseRealTime()->Unit(benchmark::kMillisecond);

void BM_MergeLinear(benchmark::State& state) {
  const auto type = static_cast<DType>(state.range(0));
  run_bench(state, "merge", merge("linear", {{"weight", 0.5}}),
            {open_checkpoint(model(type, "a", 1)), open_checkpoint(model(type, "b", 2))});
}
BENCHMARK(BM_MergeLinear)
    ->Arg(static_cast<int>(DType::kBF16))
    ->Arg(static_cast<int>(DType::kF32))
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

/// The computation alone: every tile of the plan, written nowhere.
void BM_MergeLinearUnwritten(benchmark::State& state) {
  const auto type = static_cast<DType>(state.range(0));
  const std::vector<CheckpointPtr> inputs = {open_checkpoint(model(type, "a", 1)),
                                             open_checkpoint(model(type, "b", 2))};
  const CheckpointPtr planned = planned_checkpoint(
      plan_op(op_named("merge"), inputs, merge("linear", {{"weight", 0.5}}), nullptr, "bench"),
      inputs);
  int64_t bytes = 0;
  for (auto _ : state) {
    for (const SchemaTensor& tensor : planned->schema().tensors()) {
      const int64_t tiles = elements_of(tensor.info.shape) / kTileElements;
      parallel_tasks(tiles, [&](int64_t tile) {
        std::vector<std::byte> buffer;
        benchmark::DoNotOptimize(
            planned->bytes(tensor, tile * kTileElements, kTileElements, buffer).data());
      });
      bytes += 3 * bytes_of(tensor.info);
    }
  }
  state.SetBytesProcessed(bytes);
}
BENCHMARK(BM_MergeLinearUnwritten)
    ->Arg(static_cast<int>(DType::kBF16))
    ->Arg(static_cast<int>(DType::kF32))
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void BM_MergeTies(benchmark::State& state) {
  run_bench(
      state, "merge", merge("ties", {{"weight", 0.5}, {"density", 0.3}}),
      {open_checkpoint(model(DType::kBF16, "a", 1)), open_checkpoint(model(DType::kBF16, "b", 2)),
       open_checkpoint(model(DType::kBF16, "base", 3))});
}
BENCHMARK(BM_MergeTies)->UseRealTime()->Unit(benchmark::kMillisecond);

/// Copies between buffers far larger than the caches, on all threads.
void BM_MemoryCopy(benchmark::State& state) {
  std::vector<std::byte> from(static_cast<size_t>(kModelBytes)), to(from.size());
  for (auto _ : state) {
    parallel_for(kModelBytes, 1 << 20, [&](int64_t begin, int64_t end) {
      std::memcpy(to.data() + begin, from.data() + begin, static_cast<size_t>(end - begin));
    });
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * 2 * kModelBytes);
}
BENCHMARK(BM_MemoryCopy)->UseRealTime()->Unit(benchmark::kMillisecond);

/// One model written in order to a new file and made durable: what the disk gives.
void BM_FileWrite(benchmark::State& state) {
  const TestFolder folder;
  const std::vector<std::byte> piece(size_t{4} << 20, std::byte{1});
  for (auto _ : state) {
    AtomicFile file(folder / "file");
    for (int64_t at = 0; at < kModelBytes; at += static_cast<int64_t>(piece.size()))
      file.write(piece);
    file.commit();
  }
  state.SetBytesProcessed(state.iterations() * kModelBytes);
}
BENCHMARK(BM_FileWrite)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
