#pragma once

/// The architectures the engine runs: one row each. A row says what no file says; sizes, scales and
/// flags come from the file's keys. To add one: add a row, and a model to forward_test.cpp.

#include <span>
#include <string>

#include "cadre/engine/key_values.h"
#include "cadre/engine/model_spec.h"

namespace cadre::engine {

/// Whether each of a group of tensors must be there. Optional ones are used when the file has them.
enum class Presence { kOptional, kRequired };

/// Inner width of an expert when the file has no expert_feed_forward_length.
enum class ExpertWidth { kFeedForward, kFeedForwardByUsed };

struct Architecture {
  const char* name;  ///< general.architecture
  RopeLayout rope = RopeLayout::kHalves;
  Gating gating = Gating::kSoftmax;  ///< when the file does not say
  bool normalize = false;            ///< when the file does not say
  QkNorm qk_norm = QkNorm::kNone;
  NormKind norm = NormKind::kRms;
  Activation activation = Activation::kSwiGlu;
  SharedGate shared_gate = SharedGate::kNone;
  ExpertWidth expert_width = ExpertWidth::kFeedForward;
  Presence qkv_bias = Presence::kOptional;
  Presence all_biases = Presence::kOptional;  ///< attention output, router, experts
  Presence experts = Presence::kOptional;     ///< a file without expert_count is an error
  const char* ffn_norm = "ffn_norm";          ///< the tensor before the feed-forward layer
  int sliding_every = 1;
  bool sinks = false;
  bool latent = false;
  bool rope_switch = false;     ///< rope.scaling.finetuned false = no positions
  bool divides_logits = false;  ///< logit_scale divides (granite) instead of multiplying
};

std::span<const Architecture> architectures();
/// Throws FormatError that names `where` and lists the known ones.
const Architecture& architecture_named(const std::string& name, const std::string& where);

/// A model's spec from its keys; `vocabulary` is left 0. Throws FormatError that names the key.
ModelSpec read_spec(const Architecture& row, const KeyValues& keys);

}  // namespace cadre::engine
