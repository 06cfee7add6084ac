#include "cadre/engine/architectures.h"

#include <array>
#include <cmath>

#include "cadre/base/error.h"

namespace cadre::engine {
namespace {

constexpr int64_t kMaxWidth = 1 << 20;
constexpr int64_t kMaxContext = int64_t{1} << 30;

// clang-format off
constexpr std::array kRows = {
    // Llama (Touvron et al., 2023), Mixtral (Jiang et al., 2024)
    Architecture{.name = "llama", .rope = RopeLayout::kAdjacent, .normalize = true},
    // Qwen2 (Yang et al., 2024), Qwen3 (2025)
    Architecture{.name = "qwen2", .qkv_bias = Presence::kRequired},
    Architecture{.name = "qwen3", .qk_norm = QkNorm::kPerHead},
    // OLMoE (Muennighoff et al., 2024)
    Architecture{.name = "olmoe", .qk_norm = QkNorm::kFullWidth, .experts = Presence::kRequired},
    Architecture{.name = "qwen2moe", .shared_gate = SharedGate::kSigmoid,
                 .expert_width = ExpertWidth::kFeedForwardByUsed, .qkv_bias = Presence::kRequired,
                 .experts = Presence::kRequired},
    Architecture{.name = "qwen3moe", .normalize = true, .qk_norm = QkNorm::kPerHead,
                 .experts = Presence::kRequired},
    // Granite 3 (IBM, 2024)
    Architecture{.name = "granite", .rope = RopeLayout::kAdjacent, .rope_switch = true,
                 .divides_logits = true},
    Architecture{.name = "granitemoe", .rope = RopeLayout::kAdjacent, .normalize = true,
                 .experts = Presence::kRequired, .rope_switch = true, .divides_logits = true},
    // DeepSeekMoE (Dai et al., 2024), DeepSeek-V2 and V3 (2024)
    Architecture{.name = "deepseek", .rope = RopeLayout::kAdjacent,
                 .experts = Presence::kRequired},
    Architecture{.name = "deepseek2", .rope = RopeLayout::kAdjacent,
                 .experts = Presence::kRequired, .latent = true},
    // gpt-oss (OpenAI, 2025)
    Architecture{.name = "gpt-oss", .gating = Gating::kSoftmaxOfSelected,
                 .activation = Activation::kClampedSwiGlu, .qkv_bias = Presence::kRequired,
                 .all_biases = Presence::kRequired, .experts = Presence::kRequired,
                 .ffn_norm = "post_attention_norm", .sliding_every = 2, .sinks = true},
    // Phi-3.5-MoE (Abdin et al., 2024): layer norms and SparseMixer, as the original has them
    Architecture{.name = "phimoe", .gating = Gating::kSparseMixer, .norm = NormKind::kLayer,
                 .experts = Presence::kRequired},
    // DBRX (Databricks, 2024)
    Architecture{.name = "dbrx", .normalize = true, .norm = NormKind::kLayer,
                 .experts = Presence::kRequired, .ffn_norm = "attn_output_norm"},
};
// clang-format on

void read_sizes(const KeyValues& keys, ModelSpec& spec) {
  spec.hidden = keys.size("embedding_length", 1, kMaxWidth);
  spec.layers = keys.size("block_count", 1, 4096);
  spec.layers -= keys.size("nextn_predict_layers", 0, spec.layers - 1, 0);
  spec.context = keys.size("context_length", 1, kMaxContext);
  spec.heads = keys.size("attention.head_count", 1, 4096);
  spec.kv_heads = keys.size("attention.head_count_kv", 1, 4096, spec.heads);
  if (spec.heads % spec.kv_heads != 0) {
    keys.fail("attention.head_count_kv",
              fmt::format("is {}, which does not divide {} heads", spec.kv_heads, spec.heads));
  }
  const bool widths_given = keys.contains("attention.key_length");
  if (!widths_given && spec.hidden % spec.heads != 0) {
    keys.fail("attention.head_count",
              fmt::format("is {}, which does not divide the width {}", spec.heads, spec.hidden));
  }
  spec.key_width = keys.size("attention.key_length", 1, 1 << 14, spec.hidden / spec.heads);
  spec.value_width = keys.size("attention.value_length", 1, 1 << 14, spec.key_width);
  spec.intermediate = keys.size("feed_forward_length", 0, kMaxWidth, 0);
}

void read_latent(const KeyValues& keys, ModelSpec& spec) {
  LatentSpec& latent = spec.latent;
  latent.q_rank = keys.size("attention.q_lora_rank", 0, kMaxWidth, 0);
  latent.kv_rank = keys.size("attention.kv_lora_rank", 1, kMaxWidth);
  latent.rope_width = keys.size("rope.dimension_count", 2, 1 << 14);
  // Files made for the absorbed form state the width of the cache under the plain names.
  spec.key_width = keys.size("attention.key_length_mla", 1, 1 << 14, spec.key_width);
  spec.value_width = keys.size("attention.value_length_mla", 1, 1 << 14, spec.value_width);
  if (spec.key_width <= latent.rope_width) {
    keys.fail("rope.dimension_count",
              fmt::format("is {}, must be below the key's {}", latent.rope_width, spec.key_width));
  }
  latent.nope_width = spec.key_width - latent.rope_width;
  latent.value_width = spec.value_width;
  spec.kv_heads = spec.heads;
}

void read_rope(const Architecture& row, const KeyValues& keys, ModelSpec& spec) {
  RopeSpec& rope = spec.rope;
  const bool off = row.rope_switch && !keys.flag("rope.scaling.finetuned", true);
  rope.layout = off ? RopeLayout::kNone : row.rope;
  rope.dimension = keys.size("rope.dimension_count", 2, 1 << 14, spec.key_width);
  if (rope.dimension % 2 != 0 || rope.dimension > spec.key_width) {
    keys.fail("rope.dimension_count", fmt::format("is {}, must be even and at most the head's {}",
                                                  rope.dimension, spec.key_width));
  }
  rope.base = keys.number("rope.freq_base", 10000.0F);
  if (rope.base <= 1) keys.fail("rope.freq_base", "must be above 1");
  const std::string scaling = keys.text("rope.scaling.type", "none");
  if (scaling == "linear") {
    rope.scaling = RopeSpec::Scaling::kLinear;
  } else if (scaling == "yarn") {
    rope.scaling = RopeSpec::Scaling::kYarn;
  } else if (scaling == "llama3") {
    rope.scaling = RopeSpec::Scaling::kLlama3;
  } else if (scaling != "none" && scaling != "longrope") {
    keys.fail("rope.scaling.type", fmt::format("is \"{}\", which is not supported", scaling));
  }
  rope.original_context =
      keys.size("rope.scaling.original_context_length", 1, kMaxContext, spec.context);
  if (rope.scaling == RopeSpec::Scaling::kNone) return;
  rope.factor = keys.number("rope.scaling.factor");
  if (rope.factor < 1) keys.fail("rope.scaling.factor", "must be at least 1");
  rope.beta_fast = keys.number("rope.scaling.yarn_beta_fast", 32.0F);
  rope.beta_slow = keys.number("rope.scaling.yarn_beta_slow", 1.0F);
  rope.low_frequency = keys.number("rope.scaling.low_freq_factor", 1.0F);
  rope.high_frequency = keys.number("rope.scaling.high_freq_factor", 4.0F);
}

/// YaRN (Peng et al., "YaRN", 2023, section 3.4) sharpens attention as the context grows. Most
/// models do it through cos and sin; DeepSeek through the scores, of which only the part without
/// positions would miss it.
void read_attention_scale(const KeyValues& keys, ModelSpec& spec) {
  float scale = 1.0F / std::sqrt(static_cast<float>(spec.key_width));
  const float log_factor = std::log(spec.rope.factor);
  if (spec.rope.scaling == RopeSpec::Scaling::kYarn) {
    if (spec.latent.kv_rank > 0) {
      const float sharper =
          1.0F + keys.number("rope.scaling.yarn_log_multiplier", 0.0F) * log_factor;
      scale *= sharper * sharper;
    } else {
      spec.rope.attention_factor =
          keys.number("rope.scaling.attn_factor", 1.0F) * (1.0F + 0.1F * log_factor);
    }
  } else if (keys.contains("rope.scaling.attn_factor")) {
    spec.rope.attention_factor = keys.number("rope.scaling.attn_factor");
  }
  const float stated = keys.number("attention.scale", 0.0F);
  spec.attention_scale = stated == 0.0F ? scale : stated;
  spec.clamp_qkv = keys.number("attention.clamp_kqv", 0.0F);
}

Gating gating_of(const KeyValues& keys, Gating fallback) {
  switch (keys.integer("expert_gating_func", 0)) {
    case 0:
      return fallback;
    case 1:
      return Gating::kSoftmax;
    case 2:
      return Gating::kSigmoid;
    case 3:
      return Gating::kSoftmaxOfSelected;
    default:
      keys.fail("expert_gating_func", fmt::format("is {}, known are 1 (softmax), 2 (sigmoid), 3 "
                                                  "(softmax of the selected)",
                                                  keys.integer("expert_gating_func")));
  }
}

void read_router(const Architecture& row, const KeyValues& keys, ModelSpec& spec) {
  RouterSpec& router = spec.router;
  // GLM-4.7-Flash goes by deepseek2's name, and leaves the key out.
  const bool glm = row.latent && (spec.layers == 47 || spec.layers == 48);
  router.gating = gating_of(keys, glm ? Gating::kSigmoid : row.gating);
  router.normalize = keys.flag("expert_weights_norm", row.normalize);
  router.scale = keys.number("expert_weights_scale", 1.0F);
  if (router.scale == 0.0F) router.scale = 1.0F;
  router.groups = keys.size("expert_group_count", 0, spec.experts, 1);
  if (router.groups == 0) router.groups = 1;
  router.groups_used = keys.size("expert_group_used_count", 0, router.groups, router.groups);
  if (router.groups_used == 0) router.groups_used = router.groups;
  if (spec.experts % router.groups != 0) {
    keys.fail("expert_group_count",
              fmt::format("is {}, which does not divide {} experts", router.groups, spec.experts));
  }
  if (spec.experts_used > spec.experts / router.groups * router.groups_used) {
    keys.fail("expert_used_count",
              fmt::format("is {}, more than the experts it may choose from", spec.experts_used));
  }
}

void read_experts(const Architecture& row, const KeyValues& keys, ModelSpec& spec) {
  spec.experts = row.experts == Presence::kRequired ? keys.size("expert_count", 1, 1 << 16)
                                                    : keys.size("expert_count", 0, 1 << 16, 0);
  if (spec.experts == 0) return;
  spec.experts_used = keys.size("expert_used_count", 1, spec.experts);
  spec.leading_dense_layers = keys.size("leading_dense_block_count", 0, spec.layers, 0);
  int64_t width = spec.intermediate;
  if (row.expert_width == ExpertWidth::kFeedForwardByUsed) width /= spec.experts_used;
  spec.expert_intermediate = keys.size("expert_feed_forward_length", 0, kMaxWidth, width);
  if (spec.expert_intermediate == 0) spec.expert_intermediate = width;
  if (spec.expert_intermediate == 0) keys.fail("expert_feed_forward_length", "is missing");
  const int64_t shared = keys.size("expert_shared_count", 0, 64, 0);
  const int64_t stated = keys.size("expert_shared_feed_forward_length", 0, kMaxWidth, 0);
  spec.shared_intermediate = stated != 0 ? stated : shared * spec.expert_intermediate;
  if (row.shared_gate != SharedGate::kNone && spec.shared_intermediate == 0) {
    spec.shared_intermediate = spec.intermediate;
  }
  read_router(row, keys, spec);
}

}  // namespace

std::span<const Architecture> architectures() { return kRows; }

const Architecture& architecture_named(const std::string& name, const std::string& where) {
  std::string known;
  for (const Architecture& row : kRows) {
    if (name == row.name) return row;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  throw FormatError("{}: architecture \"{}\" is not supported (known: {})", where, name, known);
}

ModelSpec read_spec(const Architecture& row, const KeyValues& keys) {
  ModelSpec spec;
  spec.architecture = row.name;
  spec.norm = row.norm;
  spec.qk_norm = row.qk_norm;
  spec.activation = row.activation;
  spec.shared_gate = row.shared_gate;
  spec.sliding_every = row.sliding_every;
  read_sizes(keys, spec);
  if (row.latent) read_latent(keys, spec);
  read_rope(row, keys, spec);
  read_attention_scale(keys, spec);
  spec.norm_eps =
      keys.number(row.norm == NormKind::kLayer && keys.contains("attention.layer_norm_epsilon")
                      ? "attention.layer_norm_epsilon"
                      : "attention.layer_norm_rms_epsilon");
  if (spec.norm_eps <= 0) keys.fail("attention.layer_norm_rms_epsilon", "must be above 0");
  // llama.cpp runs other architectures' windows as full attention or not at all: so far only
  // gpt-oss needs one within its context.
  if (row.sliding_every > 1)
    spec.sliding_window = keys.size("attention.sliding_window", 1, kMaxContext);
  read_experts(row, keys, spec);
  if ((spec.experts == 0 || spec.leading_dense_layers > 0) && spec.intermediate == 0) {
    keys.fail("feed_forward_length", "is missing");
  }
  spec.residual_scale = keys.number("residual_scale", 1.0F);
  spec.embedding_scale = keys.number("embedding_scale", 1.0F);
  const float logit_scale = keys.number("logit_scale", 1.0F);
  if (logit_scale == 0.0F) keys.fail("logit_scale", "must not be 0");
  spec.logit_scale = row.divides_logits ? 1.0F / logit_scale : logit_scale;
  return spec;
}

}  // namespace cadre::engine
