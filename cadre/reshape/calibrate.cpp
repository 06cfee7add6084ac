#include "cadre/reshape/calibrate.h"

#include <algorithm>
#include <cmath>

#include "cadre/base/error.h"
#include "cadre/engine/panel_memory.h"
#include "cadre/engine/tensor_source.h"
#include "cadre/engine/weights.h"
#include "cadre/formats/safetensors.h"
#include "cadre/kernels/gemm.h"
#include "cadre/kernels/panel_ffn.h"
#include "cadre/reshape/layer_stats.h"

namespace cadre::reshape {
namespace {

using engine::ModelSpec;
using kernels::gemm;
using kernels::Op;

kernels::GluKind glu_of(engine::Activation activation) {
  switch (activation) {
    case engine::Activation::kClampedSwiGlu:
      return kernels::GluKind::kClampedSwiGlu;
    case engine::Activation::kGeluGlu:
      return kernels::GluKind::kGeluGlu;
    case engine::Activation::kSwiGlu:
      break;
  }
  return kernels::GluKind::kSwiGlu;
}

/// What one layer adds up.
struct LayerSums {
  std::vector<double> hidden, hidden_square;
  std::vector<double> usage, reach, gram, contribution;
  std::vector<double> outputs;  ///< [E, D]
  int64_t output_tokens = 0;
  std::vector<float> router;            ///< [E, D]
  std::vector<float> router_bias;       ///< [E] or empty
  std::vector<double> activity;         ///< [texts, H]
  std::vector<double> features;         ///< [segments, H]
  std::vector<int64_t> segment_tokens;  ///< [segments]
};

class Collector {
 public:
  Collector(const std::filesystem::path& path, size_t texts, const CalibrateOptions& options)
      : source_(engine::open_source(path)),
        spec_(source_->spec()),
        options_(options),
        text_tokens_(texts, 0),
        layers_(static_cast<size_t>(spec_.layers)) {
    for (int64_t layer = 0; layer < spec_.layers; ++layer) prepare(layer);
  }

  void begin_text(size_t text) { text_ = text; }
  void begin_segment(int64_t segment) { segment_ = segment; }

  /// Everything a pass over `tokens` tokens shows.
  void hidden(int64_t layer, const float* x, int64_t tokens) {
    LayerSums& sums = layers_[static_cast<size_t>(layer)];
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t c = 0; c < spec_.hidden; ++c) {
        const double value = x[t * spec_.hidden + c];
        sums.hidden[static_cast<size_t>(c)] += value;
        sums.hidden_square[static_cast<size_t>(c)] += value * value;
      }
    }
    if (layer == 0) {
      tokens_ += tokens;
      text_tokens_[text_] += tokens;
    }
    if (!spec_.has_experts(layer)) return add_activations(layer, sums, x, tokens);
    add_logits(sums, x, tokens);
    if (sums.output_tokens < options_.output_tokens && spec_.has_whole_experts(layer)) {
      add_outputs(layer, sums, x, std::min(tokens, options_.output_tokens - sums.output_tokens));
    }
  }

  void route(int64_t layer, std::span<const int32_t> experts, std::span<const float> weights) {
    LayerSums& sums = layers_[static_cast<size_t>(layer)];
    for (size_t i = 0; i < experts.size(); ++i) {
      if (experts[i] < 0) continue;
      sums.usage[static_cast<size_t>(experts[i])] += 1;
      sums.reach[static_cast<size_t>(experts[i])] += weights[i];
    }
  }

  CalibrationReport write(const std::filesystem::path& out) const {
    std::vector<TensorSpec> specs;
    std::vector<std::vector<float>> values;
    const auto add = [&](int64_t layer, const char* what, std::vector<int64_t> shape,
                         const std::vector<double>& numbers, double divisor) {
      specs.push_back({stat_name(layer, what), DType::kF32, std::move(shape)});
      values.emplace_back();
      for (const double number : numbers)
        values.back().push_back(static_cast<float>(number / divisor));
    };
    CalibrationReport report = {.tokens = tokens_};
    const auto all = static_cast<double>(std::max<int64_t>(tokens_, 1));
    for (int64_t layer = 0; layer < spec_.layers; ++layer) {
      const LayerSums& sums = layers_[static_cast<size_t>(layer)];
      add(layer, kHiddenMean, {spec_.hidden}, sums.hidden, all);
      add(layer, kHiddenSquare, {spec_.hidden}, sums.hidden_square, all);
      if (!spec_.has_experts(layer)) {
        add_dense(layer, sums, add);
        continue;
      }
      ++report.layers_with_experts;
      double choices = 0;
      for (const double count : sums.usage) choices += count;
      add(layer, kUsage, {spec_.experts}, sums.usage, std::max(choices, 1.0));
      add(layer, kReach, {spec_.experts}, sums.reach, all);
      add(layer, kLogitsGram, {spec_.experts, spec_.experts}, sums.gram, all);
      if (sums.output_tokens == 0) continue;
      const auto sampled = static_cast<double>(sums.output_tokens);
      add(layer, kExpertOutput, {spec_.experts, spec_.hidden}, sums.outputs, sampled);
      add(layer, kContribution, {spec_.experts}, contribution(sums, sampled), 1);
    }
    SafetensorsWriter writer(out, specs,
                             {{"cadre.kind", "statistics"},
                              {"cadre.model", source_->fingerprint()},
                              {"cadre.tokens", std::to_string(tokens_)}});
    for (size_t i = 0; i < specs.size(); ++i) {
      writer.write(specs[i].name, std::as_bytes(std::span(values[i])));
    }
    writer.commit();
    return report;
  }

 private:
  void prepare(int64_t layer) {
    LayerSums& sums = layers_[static_cast<size_t>(layer)];
    const auto width = static_cast<size_t>(spec_.hidden);
    sums.hidden.resize(width);
    sums.hidden_square.resize(width);
    if (!spec_.has_experts(layer)) {
      const auto inner = static_cast<size_t>(spec_.intermediate);
      sums.activity.resize(text_tokens_.size() * inner);
      sums.features.resize(static_cast<size_t>(options_.segments) * inner);
      sums.segment_tokens.resize(static_cast<size_t>(options_.segments));
      return;
    }
    const auto experts = static_cast<size_t>(spec_.experts);
    const std::string prefix = fmt::format("blk.{}.ffn_gate_inp.", layer);
    sums.router = engine::floats_of(source_->require(prefix + "weight"));
    if (const auto* bias = source_->find(prefix + "bias"))
      sums.router_bias = engine::floats_of(*bias);
    sums.usage.resize(experts);
    sums.reach.resize(experts);
    sums.gram.resize(experts * experts);
    sums.contribution.resize(experts);
    sums.outputs.resize(experts * width);
  }

  void add_logits(LayerSums& sums, const float* x, int64_t tokens) {
    const int64_t experts = spec_.experts, width = spec_.hidden;
    logits_.resize(static_cast<size_t>(tokens * experts));
    gemm(Op::kNone, Op::kTranspose, tokens, experts, width, 1, x, width, sums.router.data(), width,
         0, logits_.data(), experts);
    for (int64_t t = 0; t < tokens; ++t) {
      float* row = logits_.data() + t * experts;
      for (size_t e = 0; e < sums.router_bias.size(); ++e) row[e] += sums.router_bias[e];
      for (int64_t i = 0; i < experts; ++i) {
        for (int64_t j = 0; j < experts; ++j) {
          sums.gram[static_cast<size_t>(i * experts + j)] += double{row[i]} * row[j];
        }
      }
    }
  }

  /// a = act(W_gate x) * (W_up x), [tokens, rows].
  void gated(const std::vector<float>& gate, const std::vector<float>& up, const float* x,
             int64_t tokens, int64_t rows) {
    const int64_t width = spec_.hidden;
    gate_.resize(static_cast<size_t>(tokens * rows));
    up_.resize(gate_.size());
    gemm(Op::kNone, Op::kTranspose, tokens, rows, width, 1, x, width, gate.data(), width, 0,
         gate_.data(), rows);
    gemm(Op::kNone, Op::kTranspose, tokens, rows, width, 1, x, width, up.data(), width, 0,
         up_.data(), rows);
    kernels::glu(glu_of(spec_.activation), gate_.data(), up_.data(), tokens * rows);
  }

  void add_activations(int64_t layer, LayerSums& sums, const float* x, int64_t tokens) {
    const int64_t inner = spec_.intermediate;
    const std::string prefix = fmt::format("blk.{}.ffn_", layer);
    gated(engine::floats_of(source_->require(prefix + "gate.weight")),
          engine::floats_of(source_->require(prefix + "up.weight")), x, tokens, inner);
    double* activity = sums.activity.data() + static_cast<int64_t>(text_) * inner;
    double* features = sums.features.data() + segment_ * inner;
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t i = 0; i < inner; ++i) {
        const double size = std::fabs(gate_[static_cast<size_t>(t * inner + i)]);
        activity[i] += size;
        features[i] += size;
      }
    }
    sums.segment_tokens[static_cast<size_t>(segment_)] += tokens;
  }

  /// Runs every expert on the first tokens.
  void add_outputs(int64_t layer, LayerSums& sums, const float* x, int64_t tokens) {
    const int64_t width = spec_.hidden, inner = spec_.expert_intermediate;
    std::vector<float> y(static_cast<size_t>(tokens * width));
    for (int64_t e = 0; e < spec_.experts; ++e) {
      const auto matrix = [&](const char* role) {
        return engine::floats_of(engine::expert_matrix(*source_, layer, role, e));
      };
      gated(matrix("gate"), matrix("up"), x, tokens, inner);
      gemm(Op::kNone, Op::kTranspose, tokens, width, inner, 1, gate_.data(), inner,
           matrix("down").data(), inner, 0, y.data(), width);
      for (int64_t t = 0; t < tokens; ++t) {
        double square = 0;
        for (int64_t c = 0; c < width; ++c) {
          const double value = y[static_cast<size_t>(t * width + c)];
          sums.outputs[static_cast<size_t>(e * width + c)] += value;
          square += value * value;
        }
        sums.contribution[static_cast<size_t>(e)] += std::sqrt(square);
      }
    }
    sums.output_tokens += tokens;
  }

  /// The router's weight for an expert times the usual length of its output.
  std::vector<double> contribution(const LayerSums& sums, double sampled) const {
    std::vector<double> all;
    for (size_t e = 0; e < sums.reach.size(); ++e) {
      all.push_back(sums.reach[e] / static_cast<double>(std::max<int64_t>(tokens_, 1)) *
                    sums.contribution[e] / sampled);
    }
    return all;
  }

  template <class Add>
  void add_dense(int64_t layer, const LayerSums& sums, const Add& add) const {
    const int64_t inner = spec_.intermediate;
    std::vector<double> activity = sums.activity, features;
    for (size_t i = 0; i < activity.size(); ++i) {
      activity[i] /=
          static_cast<double>(std::max<int64_t>(text_tokens_[i / static_cast<size_t>(inner)], 1));
    }
    std::vector<size_t> used;
    for (size_t s = 0; s < sums.segment_tokens.size(); ++s) {
      if (sums.segment_tokens[s] > 0) used.push_back(s);
    }
    for (int64_t i = 0; i < inner; ++i) {
      for (const size_t s : used) {
        features.push_back(sums.features[s * static_cast<size_t>(inner) + static_cast<size_t>(i)] /
                           static_cast<double>(sums.segment_tokens[s]));
      }
    }
    add(layer, kActivity, {static_cast<int64_t>(text_tokens_.size()), inner}, activity, 1);
    add(layer, kFeatures, {inner, static_cast<int64_t>(used.size())}, features, 1);
  }

  std::unique_ptr<engine::TensorSource> source_;
  const ModelSpec& spec_;
  const CalibrateOptions& options_;
  std::vector<int64_t> text_tokens_;
  std::vector<LayerSums> layers_;
  size_t text_ = 0;
  int64_t segment_ = 0, tokens_ = 0;
  std::vector<float> logits_, gate_, up_;
};

}  // namespace

CalibrationReport calibrate(const std::filesystem::path& path,
                            const std::vector<std::string>& texts, const std::filesystem::path& out,
                            const engine::ModelOptions& model, const CalibrateOptions& options) {
  if (texts.empty()) throw UsageError("calibrate: there must be at least one text");
  if (options.window < 1)
    throw UsageError("calibrate: the window is {}, must be at least 1", options.window);
  engine::ModelOptions opened = model;
  opened.context = std::max(opened.context, options.window);
  opened.prefill = std::min(opened.prefill, options.window);
  const auto runner = engine::Model::open(path, opened);
  std::vector<std::vector<TokenId>> tokens;
  int64_t total = 0, done = 0;
  for (const std::string& text : texts) {
    tokens.push_back(runner->tokenizer().encode(text));
    if (tokens.back().empty()) throw UsageError("calibrate: a text is empty");
    if (static_cast<int64_t>(tokens.back().size()) > options.tokens) {
      tokens.back().resize(static_cast<size_t>(options.tokens));
    }
    total += static_cast<int64_t>(tokens.back().size());
  }
  Collector collector(path, texts.size(), options);
  runner->on_hidden = [&](int64_t layer, const float* hidden, int64_t count) {
    collector.hidden(layer, hidden, count);
  };
  runner->on_route = [&](int64_t layer, int64_t, const engine::Session*,
                         std::span<const int32_t> experts, std::span<const float> weights) {
    collector.route(layer, experts, weights);
  };
  for (size_t text = 0; text < tokens.size(); ++text) {
    collector.begin_text(text);
    const std::span<const TokenId> all = tokens[text];
    for (size_t at = 0; at < all.size(); at += static_cast<size_t>(options.window)) {
      const auto part =
          all.subspan(at, std::min(static_cast<size_t>(options.window), all.size() - at));
      collector.begin_segment(done * options.segments / total);
      engine::Session session(runner);
      const engine::Model::Slice slice = {&session, part, engine::Model::Slice::Want::kNone};
      runner->forward({&slice, 1});
      done += static_cast<int64_t>(part.size());
      if (options.progress)
        options.progress(static_cast<double>(done) / static_cast<double>(total));
    }
  }
  return collector.write(out);
}

}  // namespace cadre::reshape
