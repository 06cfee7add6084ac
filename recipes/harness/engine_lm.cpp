#include "recipes/harness/engine_lm.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <numbers>
#include <system_error>

#include "cadre/base/timer.h"
#include "cadre/engine/perplexity.h"
#include "cadre/engine/session.h"
#include "cadre/formats/tokenizer_text.h"
#include "cadre/reshape/ops.h"
#include "cadre/reshape/run.h"
#include "cadre/training/checkpoint.h"

namespace cadre::recipes {
namespace {

namespace fs = std::filesystem;

Tokenizer byte_tokenizer() {
  std::vector<std::string> letters;
  for (int64_t byte = 0; byte < kByteValues; ++byte) {
    letters.emplace_back(bpe::letter_of(static_cast<uint8_t>(byte)));
  }
  return Tokenizer::from_vocabulary(letters, {}, PreTokenizer::kGpt2);
}

std::vector<TokenId> ids_of(const torch::Tensor& row) {
  std::vector<TokenId> ids;
  for (int64_t i = 0; i < row.size(0); ++i) {
    ids.push_back(static_cast<TokenId>(row[i].item<int64_t>()));
  }
  return ids;
}

/// Nats of a sequence's targets, each given what is before it.
double loss_of(const std::vector<float>& logits, const std::vector<TokenId>& targets) {
  double sum = 0;
  for (size_t i = 0; i < targets.size(); ++i) {
    sum += engine::token_loss(std::span(logits).subspan(i * kByteValues, kByteValues), targets[i]);
  }
  return sum;
}

void count_bytes(const fs::path& folder, InEngine& result) {
  const auto checkpoint = reshape::open_checkpoint(folder);
  for (const auto& tensor : checkpoint->schema().tensors()) {
    const bool expert = tensor.info.name.find(".mlp.experts.") != std::string::npos ||
                        tensor.info.name.find(".expert_map") != std::string::npos;
    if (!expert) continue;
    int64_t bytes = size_of(tensor.info.dtype);
    for (const int64_t size : tensor.info.shape) bytes *= size;
    result.expert_bytes += static_cast<double>(bytes);
  }
  result.active_millions = static_cast<double>(checkpoint->schema().counts().active) / 1e6;
}

}  // namespace

ScratchFolder::ScratchFolder() {
  static std::atomic<int> made = 0;
  path_ = fs::temp_directory_path() / fmt::format("cadre-recipe-{}-{}", ::getpid(), made++);
  fs::create_directories(path_);
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void save_byte_lm(const fs::path& folder, LanguageModel& model) {
  save_checkpoint(folder, model, byte_tokenizer());
}

void reshape_lm(const std::string& op, const fs::path& in, const nlohmann::json& parameters,
                const fs::path& out, const fs::path& stats) {
  std::optional<reshape::StatsIndex> index;
  if (!stats.empty()) index.emplace(stats);
  const std::vector<reshape::CheckpointPtr> inputs = {reshape::open_checkpoint(in)};
  const auto plan =
      reshape::plan_op(reshape::op_named(op), inputs, parameters, index ? &*index : nullptr, op);
  reshape::run(plan, inputs, out);
}

InEngine measure_in_engine(const fs::path& folder,
                           const std::vector<std::vector<TokenBatch>>& validation) {
  const auto model =
      engine::Model::open(folder, {.threads = 1, .quantize_to = kernels::BlockType::kF32});
  InEngine result;
  double fastest = 0;
  for (const auto& batches : validation) {
    double nats = 0;
    int64_t bytes = 0;
    for (const TokenBatch& batch : batches) {
      for (int64_t row = 0; row < batch.inputs.size(0); ++row) {
        const auto ids = ids_of(batch.inputs[row]), targets = ids_of(batch.targets[row]);
        engine::Session session(model);
        const engine::Model::Slice slice = {&session, ids, engine::Model::Slice::Want::kAll};
        const Stopwatch watch;
        const auto logits = model->forward({&slice, 1});
        fastest = std::max(fastest, static_cast<double>(ids.size()) / watch.seconds());
        nats += loss_of(logits, targets);
        bytes += static_cast<int64_t>(targets.size());
      }
    }
    result.bits_per_byte += nats / static_cast<double>(bytes) * std::numbers::log2e /
                            static_cast<double>(validation.size());
  }
  result.read_per_second = fastest;
  count_bytes(folder, result);
  return result;
}

}  // namespace cadre::recipes
