#pragma once

/// The byte-level language model that recipes report on: real text in domains, vocabulary 256, four
/// small layers. At this size routers differ by no more than seeds do: report it, gate nothing on
/// it.

#include <string>
#include <vector>

#include "cadre/data/byte_text.h"
#include "cadre/formats/model_config.h"
#include "cadre/training/language_model.h"
#include "recipes/harness/recipe.h"

namespace cadre::recipes {

struct ByteLmOptions {
  int64_t steps = 150;
  int64_t batch = 32, length = 128;
  double lr = 1e-3;  ///< falls along a cosine to a tenth; AdamW (0.9, 0.95), weight decay 0.1
  int64_t bytes_per_domain = int64_t{1} << 20;
  int64_t validation_sequences = 32;     ///< a domain
  std::vector<ByteDomain> domains = {};  ///< read instead of Debian's when there are any
};

/// 4 layers, hidden 128, 4 heads, sequences of 128, vocabulary 256; the experts are the caller's.
ModelConfig byte_lm_config();

/// True when at least one of the Debian domains can be read; what to install otherwise stands in
/// kByteTextPackages.
bool byte_text_is_here();
inline constexpr const char* kByteTextPackages = "bible-kjv, dict-gcide, manpages, libc6-dev";

/// Four made-up languages, each of 200 words of its own, the first the most frequent: for smoke
/// runs where no package is installed. A pure function of its arguments.
std::vector<ByteDomain> generated_byte_domains(uint64_t seed, int64_t bytes_per_domain);

/// Called after every step, for curves of the experts' use; may be empty.
using AfterStep = std::function<void(LanguageModel& model, int64_t step)>;

/// A trained model with the text it was trained on.
struct ByteLm {
  std::unique_ptr<LanguageModel> model;
  std::shared_ptr<const ByteText> text;
  std::vector<std::string> domains;
  std::vector<std::vector<TokenBatch>> validation;  ///< a list a domain
  /// bits_per_byte (mean over domains), bits_per_byte/DOMAIN; curve "loss" over steps, in bits.
  Measurements measured;
};
ByteLm train_byte_lm(const ArmRun& run, const ModelConfig& config, const ByteLmOptions& options,
                     const AfterStep& after_step = {});

/// Mean over the domains of a model's bits a byte on the text that `lm` is validated on.
double bits_per_byte(LanguageModel& model, const ByteLm& lm);

}  // namespace cadre::recipes
