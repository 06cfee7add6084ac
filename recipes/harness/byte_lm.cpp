#include "recipes/harness/byte_lm.h"

#include <fmt/format.h>

#include <numbers>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/training/evaluation.h"
#include "cadre/training/optimizer.h"

namespace cadre::recipes {
namespace {

constexpr int64_t kCurvePart = 10;  ///< steps that a point of a curve is the mean of
constexpr double kBitsPerNat = std::numbers::log2e;

NamedTensors parameters_of(LanguageModel& model) {
  NamedTensors parameters;
  for (const auto& item : model.decoder()->named_parameters()) {
    if (item.value().requires_grad()) parameters.emplace_back(item.key(), item.value());
  }
  return parameters;
}

void evaluate_into(ByteLm& lm) {
  const Evaluation evaluation = evaluate(*lm.model, lm.domains, lm.validation);
  lm.measured.values["bits_per_byte"] = evaluation.mean * kBitsPerNat;
  for (const DomainLoss& domain : evaluation.domains) {
    lm.measured.values["bits_per_byte/" + domain.domain] = domain.loss * kBitsPerNat;
  }
}

}  // namespace

double bits_per_byte(LanguageModel& model, const ByteLm& lm) {
  return evaluate(model, lm.domains, lm.validation).mean * kBitsPerNat;
}

ModelConfig byte_lm_config() {
  return {.architecture = Architecture::kDeepseek,
          .vocabulary = kByteValues,
          .hidden = 128,
          .layers = 4,
          .heads = 4,
          .kv_heads = 4,
          .z_loss_coefficient = 0,
          .max_positions = 128};
}

std::vector<ByteDomain> generated_byte_domains(uint64_t seed, int64_t bytes_per_domain) {
  constexpr int64_t kLanguages = 4, kWords = 200, kHeldOut = 8;  // an eighth
  std::vector<ByteDomain> domains;
  for (uint64_t language = 0; language < kLanguages; ++language) {
    Random random(seed, {language});
    std::vector<std::string> words(kWords);
    for (std::string& word : words) {
      const uint64_t length = 2 + random.below(6);
      while (word.size() < length) word += static_cast<char>('a' + random.below(26));
    }
    const auto text = [&](int64_t bytes) {
      std::string written;
      while (static_cast<int64_t>(written.size()) < bytes) {
        const double share = random.uniform();  // squared: low ranks are frequent
        written += words[static_cast<size_t>(share * share * kWords)] + ' ';
      }
      return written;
    };
    domains.push_back({fmt::format("language-{}", language), text(bytes_per_domain),
                       text(bytes_per_domain / kHeldOut)});
  }
  return domains;
}

bool byte_text_is_here() {
  constexpr int64_t kGlimpse = 1 << 14;
  static const bool here = !debian_byte_domains(kGlimpse).empty();
  return here;
}

ByteLm train_byte_lm(const ArmRun& run, const ModelConfig& config, const ByteLmOptions& options,
                     const AfterStep& after_step) {
  auto domains =
      options.domains.empty() ? debian_byte_domains(options.bytes_per_domain) : options.domains;
  if (domains.empty()) throw UsageError("no text to read: install {}", kByteTextPackages);
  const auto text =
      std::make_shared<const ByteText>(std::move(domains), options.batch, options.length, run.seed);
  ByteLm lm{.model = std::make_unique<LanguageModel>(config, run.seed),
            .text = text,
            .domains = text->names(),
            .validation = text->validation(options.validation_sequences),
            .measured = {}};
  AdamW adam(parameters_of(*lm.model), {});
  const CosineSchedule schedule{
      .lr = options.lr, .warmup_steps = options.steps / 10, .total_steps = options.steps};
  Curve& curve = lm.measured.curves["loss"];
  double sum = 0;
  run.steps(options.steps, [&](int64_t step) {
    const TokenBatch batch = text->at(step);
    const LossParts loss = lm.model->loss(batch.inputs, batch.targets, step, options.steps);
    loss.total.backward();
    adam.step(schedule.at(step));
    for (const auto& [layer, experts] : lm.model->expert_layers()) {
      experts->gate->after_step(experts->take_load());
    }
    if (after_step) after_step(*lm.model, step);
    sum += loss.cross_entropy * kBitsPerNat;
    if ((step + 1) % kCurvePart != 0) return;
    curve.x.push_back(static_cast<double>(step + 1));
    curve.y.push_back(std::exchange(sum, 0) / kCurvePart);
  });
  evaluate_into(lm);
  return lm;
}

}  // namespace cadre::recipes
