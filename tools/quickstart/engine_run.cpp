#include "tools/quickstart/engine_run.h"

#include <algorithm>
#include <exception>

#include "cadre/base/interrupt.h"
#include "cadre/engine/open_experts.h"
#include "cadre/engine/pack.h"
#include "cadre/engine/scheduler.h"
#include "cadre/engine/streaming_provider.h"
#include "cadre/engine/text_frame.h"

namespace cadre {
namespace {

using engine::ModelOptions;
using OnText = std::function<void(size_t, std::string_view)>;

engine::ExpertFiles experts_of(const std::filesystem::path& model) {
  const auto source = engine::open_source(model);
  return engine::open_expert_files(*source, engine::packed_types(*source, {}));
}

/// One prompt after another, as `cadre run` does.
EngineTexts write(const std::filesystem::path& path, const ModelOptions& memory,
                  const std::vector<std::string>& prompts, const SamplingOptions& options,
                  const OnText& on_text) {
  const auto model = engine::Model::open(path, memory);
  const engine::TextFrame frame = engine::read_text_frame(path, model->tokenizer());
  engine::EngineSequences sequences(model);
  const int64_t context = std::min<int64_t>(model->spec().context, 4096);
  engine::Scheduler scheduler(sequences, model->tokenizer(), {.context = context});
  EngineTexts written;
  for (size_t i = 0; i < prompts.size() && !interrupted(); ++i) {
    engine::GenerationRequest request{.prompt = frame.encode(model->tokenizer(), prompts[i]),
                                      .tokens = options.tokens,
                                      .sampling = {.temperature = options.temperature,
                                                   .top_k = options.top_k,
                                                   .top_p = options.top_p,
                                                   .seed = options.seed},
                                      .end_tokens = frame.ends};
    std::exception_ptr failure;
    if (on_text) request.on_text = [&, i](std::string_view text) { on_text(i, text); };
    request.on_done = [&](const engine::GenerationResult& result) {
      written.texts.push_back(result.text);
      failure = result.failure;
    };
    scheduler.submit(std::move(request));
    scheduler.run_until_idle();
    if (failure) std::rethrow_exception(failure);
  }
  const engine::ExpertCounters counters = model->expert_counters();
  written.hit_rate = engine::hit_rate(counters);
  written.bytes_read = counters.bytes_read;
  return written;
}

}  // namespace

EngineTexts write_with_all_experts(const std::filesystem::path& model,
                                   const std::vector<std::string>& prompts,
                                   const SamplingOptions& options, const OnText& on_text) {
  const engine::ExpertFiles files = experts_of(model);
  EngineTexts texts = write(model, {}, prompts, options, on_text);
  texts.expert_bytes = files.count() * files.slot_bytes();
  return texts;
}

EngineTexts write_with_half_of_experts(const std::filesystem::path& model,
                                       const std::vector<std::string>& prompts,
                                       const SamplingOptions& options) {
  const engine::ExpertFiles files = experts_of(model);
  const int64_t half =
      std::max(files.count() * files.slot_bytes() / 2, engine::least_streaming_bytes(files));
  EngineTexts texts = write(model, {.expert_memory = half}, prompts, options, {});
  texts.expert_bytes = half;
  return texts;
}

}  // namespace cadre
