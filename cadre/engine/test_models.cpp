#include "cadre/engine/test_models.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <random>

#include "cadre/base/error.h"

namespace cadre::engine {
namespace {

using Vector = std::vector<double>;

/// ---- Making models ----

class Maker {
 public:
  Maker(std::string architecture, PlainConfig config) : random_(7) {
    model_.architecture = std::move(architecture);
    model_.config = std::move(config);
  }

  TinyModel make() {
    const PlainConfig& c = model_.config;
    put_common_keys();
    add("token_embd.weight", {c.vocabulary, c.hidden}, 1.0F);
    add("output.weight", {c.vocabulary, c.hidden}, 0.3F);
    add_norm("output_norm");
    for (int64_t layer = 0; layer < c.layers; ++layer) {
      prefix_ = fmt::format("blk.{}.", layer);
      add_norm("attn_norm");
      add_attention();
      add_norm(c.ffn_norm);
      add_feed_forward(layer);
      prefix_.clear();
    }
    return std::move(model_);
  }

  bool qkv_bias = false, all_biases = false, norm_bias = false, sinks = false, fused_qkv = false;
  bool selection_bias = false, split_kv_up = false;
  TinyModel& model() { return model_; }
  void key(const std::string& name, PlainKey value) { model_.keys[name] = std::move(value); }
  void add(const std::string& name, std::vector<int64_t> shape, float scale, float centre = 0) {
    PlainTensor tensor{std::move(shape), {}};
    int64_t count = 1;
    for (const int64_t size : tensor.shape) count *= size;
    std::normal_distribution<float> normal(0, 1);
    for (int64_t i = 0; i < count; ++i) tensor.values.push_back(centre + scale * normal(random_));
    model_.tensors[prefix_ + name] = std::move(tensor);
  }

 private:
  void number(const std::string& name, int64_t value) { key(name, static_cast<uint32_t>(value)); }

  void put_common_keys() {
    const PlainConfig& c = model_.config;
    number("block_count", c.layers);
    number("embedding_length", c.hidden);
    number("context_length", 4096);
    number("feed_forward_length", c.intermediate);
    number("attention.head_count", c.heads);
    number("attention.head_count_kv", c.kv_heads);
    key("rope.freq_base", static_cast<float>(c.rope_base));
    key(c.layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", 1e-5F);
    if (c.kv_rank == 0 && c.head_width * c.heads != c.hidden) {
      number("attention.key_length", c.head_width);
      number("attention.value_length", c.head_width);
    }
    if (c.experts == 0) return;
    number("expert_count", c.experts);
    number("expert_used_count", c.used);
    number("expert_feed_forward_length", c.expert_width);
  }

  void add_norm(const std::string& name) {
    add(name + ".weight", {model_.config.hidden}, 0.2F, 1);
    if (norm_bias) add(name + ".bias", {model_.config.hidden}, 0.1F);
  }

  void add_linear(const std::string& name, int64_t rows, int64_t columns, bool bias) {
    add(name + ".weight", {rows, columns}, 1.2F / std::sqrt(static_cast<float>(columns)));
    if (bias) add(name + ".bias", {rows}, 0.3F);
  }

  void add_attention() {
    const PlainConfig& c = model_.config;
    const bool bias = qkv_bias || all_biases;
    if (c.kv_rank > 0) return add_latent();
    const int64_t q = c.heads * c.head_width, kv = c.kv_heads * c.head_width;
    if (fused_qkv) {
      add_linear("attn_qkv", q + 2 * kv, c.hidden, bias);
    } else {
      add_linear("attn_q", q, c.hidden, bias);
      add_linear("attn_k", kv, c.hidden, bias);
      add_linear("attn_v", kv, c.hidden, bias);
    }
    add_linear("attn_output", c.hidden, q, all_biases);
    if (sinks) add("attn_sinks.weight", {c.heads}, 1);
    if (c.full_qk_norm || c.head_qk_norm) {
      add("attn_q_norm.weight", {c.full_qk_norm ? q : c.head_width}, 0.2F, 1);
      add("attn_k_norm.weight", {c.full_qk_norm ? kv : c.head_width}, 0.2F, 1);
    }
  }

  void add_latent() {
    const PlainConfig& c = model_.config;
    const int64_t q = c.heads * c.head_width, nope = c.head_width - c.rope_width;
    if (c.q_rank > 0) {
      add_linear("attn_q_a", c.q_rank, c.hidden, false);
      add("attn_q_a_norm.weight", {c.q_rank}, 0.2F, 1);
      add_linear("attn_q_b", q, c.q_rank, false);
    } else {
      add_linear("attn_q", q, c.hidden, false);
    }
    add_linear("attn_kv_a_mqa", c.kv_rank + c.rope_width, c.hidden, false);
    add("attn_kv_a_norm.weight", {c.kv_rank}, 0.2F, 1);
    const float scale = 1.2F / std::sqrt(static_cast<float>(c.kv_rank));
    if (split_kv_up) {
      add("attn_k_b.weight", {c.heads, c.kv_rank, nope}, scale);
      add("attn_v_b.weight", {c.heads, c.value_width, c.kv_rank}, scale);
    } else {
      add_linear("attn_kv_b", c.heads * (nope + c.value_width), c.kv_rank, false);
    }
    add_linear("attn_output", c.hidden, c.heads * c.value_width, false);
  }

  void add_feed_forward(int64_t layer) {
    const PlainConfig& c = model_.config;
    if (c.experts == 0 || layer < c.dense_layers) {
      add_linear("ffn_gate", c.intermediate, c.hidden, false);
      add_linear("ffn_up", c.intermediate, c.hidden, false);
      add_linear("ffn_down", c.hidden, c.intermediate, false);
      return;
    }
    add_linear("ffn_gate_inp", c.experts, c.hidden, all_biases);
    if (selection_bias) add("exp_probs_b.bias", {c.experts}, 0.2F);
    const float in = 1.2F / std::sqrt(static_cast<float>(c.hidden));
    const float inner = 1.2F / std::sqrt(static_cast<float>(c.expert_width));
    add("ffn_gate_exps.weight", {c.experts, c.expert_width, c.hidden}, in);
    add("ffn_up_exps.weight", {c.experts, c.expert_width, c.hidden}, in);
    add("ffn_down_exps.weight", {c.experts, c.hidden, c.expert_width}, inner);
    if (all_biases) {
      add("ffn_gate_exps.bias", {c.experts, c.expert_width}, 0.3F);
      add("ffn_up_exps.bias", {c.experts, c.expert_width}, 0.3F);
      add("ffn_down_exps.bias", {c.experts, c.hidden}, 0.3F);
    }
    if (c.shared_width == 0) return;
    add_linear("ffn_gate_shexp", c.shared_width, c.hidden, false);
    add_linear("ffn_up_shexp", c.shared_width, c.hidden, false);
    add_linear("ffn_down_shexp", c.hidden, c.shared_width, false);
    if (c.shared_gate) add("ffn_gate_inp_shexp.weight", {c.hidden}, 0.2F);
  }

  TinyModel model_;
  std::string prefix_;
  std::mt19937_64 random_;
};

/// ---- Computing plainly ----

class Plain {
 public:
  explicit Plain(const TinyModel& model) : model_(model), c_(model.config) {}

  std::vector<float> logits(const std::vector<TokenId>& tokens) {
    std::vector<Vector> x;
    for (const TokenId token : tokens) {
      x.push_back(row("token_embd.weight", token, c_.hidden));
      for (double& value : x.back()) value *= c_.embedding_scale;
    }
    for (int64_t layer = 0; layer < c_.layers; ++layer) {
      prefix_ = fmt::format("blk.{}.", layer);
      const auto attended = attention(layer, normalized("attn_norm", x));
      for (size_t t = 0; t < x.size(); ++t) add(x[t], attended[t], c_.residual_scale);
      const auto input = normalized(c_.ffn_norm, x);
      for (size_t t = 0; t < x.size(); ++t) {
        add(x[t], feed_forward(layer, input[t]), c_.residual_scale);
      }
    }
    prefix_.clear();
    std::vector<float> result;
    for (const Vector& h : normalized("output_norm", x)) {
      for (const double logit : linear(has("output.weight") ? "output" : "token_embd", h)) {
        result.push_back(static_cast<float>(logit * c_.logit_factor));
      }
    }
    return result;
  }

 private:
  bool has(const std::string& name) const { return model_.tensors.contains(prefix_ + name); }
  const PlainTensor& tensor(const std::string& name) const {
    return model_.tensors.at(prefix_ + name);
  }
  Vector row(const std::string& name, int64_t index, int64_t width) const {
    const float* start = tensor(name).values.data() + index * width;
    return {start, start + width};
  }
  static void add(Vector& x, const Vector& y, double factor = 1) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += factor * y[i];
  }

  /// y = W x + b with the matrix beginning `at` rows into the tensor.
  Vector product(const std::string& name, int64_t at, int64_t rows, const Vector& x) const {
    const auto columns = static_cast<int64_t>(x.size());
    Vector y;
    for (int64_t r = 0; r < rows; ++r) {
      const float* w = tensor(name).values.data() + (at + r) * columns;
      double sum = 0;
      for (int64_t i = 0; i < columns; ++i) sum += w[i] * x[static_cast<size_t>(i)];
      y.push_back(sum);
    }
    return y;
  }
  Vector linear(const std::string& name, const Vector& x) const {
    Vector y = product(name + ".weight", 0, tensor(name + ".weight").shape[0], x);
    if (has(name + ".bias")) add(y, row(name + ".bias", 0, static_cast<int64_t>(y.size())));
    return y;
  }

  static void rms(Vector& x, size_t first, size_t count, const Vector& weight) {
    double squares = 0;
    for (size_t i = first; i < first + count; ++i) squares += x[i] * x[i];
    const double inverse = 1 / std::sqrt(squares / static_cast<double>(count) + 1e-5);
    for (size_t i = first; i < first + count; ++i) x[i] *= inverse * weight[i - first];
  }

  std::vector<Vector> normalized(const std::string& name, std::vector<Vector> rows) const {
    const Vector weight = row(name + ".weight", 0, c_.hidden);
    for (Vector& x : rows) {
      if (c_.layer_norm) {
        const double mean =
            std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
        double variance = 0;
        for (double& value : x) variance += (value - mean) * (value - mean);
        variance /= static_cast<double>(x.size());
        for (size_t i = 0; i < x.size(); ++i) {
          x[i] = (x[i] - mean) / std::sqrt(variance + 1e-5) * weight[i];
        }
        if (has(name + ".bias")) add(x, row(name + ".bias", 0, c_.hidden));
      } else {
        rms(x, 0, x.size(), weight);
      }
    }
    return rows;
  }

  double frequency(int64_t pair, int64_t width) const {
    const double plain = std::pow(c_.rope_base, -2.0 * static_cast<double>(pair) / width);
    if (c_.yarn_factor == 1) return plain;
    const auto dimension = [&](double turns) {
      return width * std::log(c_.yarn_context / (turns * 2 * std::numbers::pi)) /
             (2 * std::log(c_.rope_base));
    };
    const double low = std::max(std::floor(dimension(32)), 0.0);
    const double high = std::min(std::ceil(dimension(1)), width - 1.0);
    const double ramp =
        std::clamp((static_cast<double>(pair) - low) / std::max(high - low, 0.001), 0.0, 1.0);
    return plain * (1 - ramp) + plain / c_.yarn_factor * ramp;
  }

  void rotate(Vector& x, size_t first, int64_t width, size_t position) const {
    for (int64_t pair = 0; pair < width / 2; ++pair) {
      const double angle = static_cast<double>(position) * frequency(pair, width);
      const double cosine = std::cos(angle) * c_.yarn_cos_factor;
      const double sine = std::sin(angle) * c_.yarn_cos_factor;
      const size_t a = first + static_cast<size_t>(c_.adjacent ? 2 * pair : pair);
      const size_t b = a + static_cast<size_t>(c_.adjacent ? 1 : width / 2);
      const double u = x[a], v = x[b];
      x[a] = u * cosine - v * sine;
      x[b] = u * sine + v * cosine;
    }
  }

  /// BF16, as the cache keeps keys and values.
  static double stored(double x) {
    float value = static_cast<float>(x);
    std::byte bytes[2];
    kernels::quantize(kernels::BlockType::kBF16, &value, 1, bytes);
    kernels::dequantize(kernels::BlockType::kBF16, bytes, 1, &value);
    return value;
  }

  struct Heads {
    std::vector<std::vector<Vector>> q, k, v;  ///< [token][head]
  };

  static std::vector<Vector> split(const Vector& x, int64_t heads) {
    const size_t width = x.size() / static_cast<size_t>(heads);
    std::vector<Vector> parts;
    for (size_t h = 0; h < static_cast<size_t>(heads); ++h) {
      parts.emplace_back(x.begin() + static_cast<int64_t>(h * width),
                         x.begin() + static_cast<int64_t>((h + 1) * width));
    }
    return parts;
  }

  std::array<Vector, 3> plain_qkv(const Vector& x) const {
    if (!has("attn_qkv.weight"))
      return {linear("attn_q", x), linear("attn_k", x), linear("attn_v", x)};
    const Vector all = linear("attn_qkv", x);
    const auto q = all.begin() + c_.heads * c_.head_width, k = q + c_.kv_heads * c_.head_width;
    return {Vector(all.begin(), q), Vector(q, k), Vector(k, all.end())};
  }

  void plain_heads(const std::vector<Vector>& x, Heads& heads) const {
    for (size_t t = 0; t < x.size(); ++t) {
      auto [q, k, v] = plain_qkv(x[t]);
      for (Vector* part : {&q, &k, &v}) {
        for (double& value : *part) {
          if (c_.clamp > 0) value = std::clamp(value, -c_.clamp, c_.clamp);
        }
      }
      if (c_.full_qk_norm) {
        rms(q, 0, q.size(), row("attn_q_norm.weight", 0, c_.heads * c_.head_width));
        rms(k, 0, k.size(), row("attn_k_norm.weight", 0, c_.kv_heads * c_.head_width));
      }
      heads.q.push_back(split(q, c_.heads));
      heads.k.push_back(split(k, c_.kv_heads));
      heads.v.push_back(split(v, c_.kv_heads));
      for (auto* part : {&heads.q.back(), &heads.k.back()}) {
        const char* norm = part == &heads.q.back() ? "attn_q_norm.weight" : "attn_k_norm.weight";
        for (Vector& head : *part) {
          if (c_.head_qk_norm) rms(head, 0, head.size(), row(norm, 0, c_.head_width));
          rotate(head, 0, c_.head_width, t);
        }
      }
      for (auto* part : {&heads.k.back(), &heads.v.back()}) {
        for (Vector& head : *part) std::transform(head.begin(), head.end(), head.begin(), stored);
      }
    }
  }

  /// Expanded form: keys and values of every head, from the latent that the cache would keep.
  void latent_heads(const std::vector<Vector>& x, Heads& heads) const {
    const int64_t nope = c_.head_width - c_.rope_width;
    for (size_t t = 0; t < x.size(); ++t) {
      Vector q = x[t];
      if (c_.q_rank > 0) {
        q = linear("attn_q_a", q);
        rms(q, 0, q.size(), row("attn_q_a_norm.weight", 0, c_.q_rank));
        q = linear("attn_q_b", q);
      } else {
        q = linear("attn_q", q);
      }
      heads.q.push_back(split(q, c_.heads));
      for (Vector& head : heads.q.back()) {
        rotate(head, static_cast<size_t>(nope), c_.rope_width, t);
      }
      Vector latent = linear("attn_kv_a_mqa", x[t]);
      rms(latent, 0, static_cast<size_t>(c_.kv_rank), row("attn_kv_a_norm.weight", 0, c_.kv_rank));
      rotate(latent, static_cast<size_t>(c_.kv_rank), c_.rope_width, t);
      std::transform(latent.begin(), latent.end(), latent.begin(), stored);
      const Vector rotated(latent.begin() + c_.kv_rank, latent.end());
      latent.resize(static_cast<size_t>(c_.kv_rank));
      heads.k.emplace_back();
      heads.v.emplace_back();
      for (int64_t h = 0; h < c_.heads; ++h) {
        auto [k, v] = expand(latent, h, nope);
        k.insert(k.end(), rotated.begin(), rotated.end());
        heads.k.back().push_back(std::move(k));
        heads.v.back().push_back(std::move(v));
      }
    }
  }

  std::pair<Vector, Vector> expand(const Vector& latent, int64_t head, int64_t nope) const {
    if (!has("attn_k_b.weight")) {
      const int64_t at = head * (nope + c_.value_width);
      return {product("attn_kv_b.weight", at, nope, latent),
              product("attn_kv_b.weight", at + nope, c_.value_width, latent)};
    }
    Vector k(static_cast<size_t>(nope));
    for (int64_t j = 0; j < c_.kv_rank; ++j) {
      const Vector part = row("attn_k_b.weight", head * c_.kv_rank + j, nope);
      add(k, part, latent[static_cast<size_t>(j)]);
    }
    return {k, product("attn_v_b.weight", head * c_.value_width, c_.value_width, latent)};
  }

  std::vector<Vector> attention(int64_t layer, const std::vector<Vector>& x) const {
    Heads heads;
    if (c_.kv_rank > 0) {
      latent_heads(x, heads);
    } else {
      plain_heads(x, heads);
    }
    const double scale =
        c_.attention_scale != 0 ? c_.attention_scale : 1 / std::sqrt(c_.head_width);
    const bool slides = c_.window > 0 && layer % 2 == 0;
    std::vector<Vector> result;
    for (size_t t = 0; t < x.size(); ++t) {
      const size_t window = static_cast<size_t>(c_.window);
      const size_t first = slides && t + 1 > window ? t + 1 - window : 0;
      Vector all;
      for (size_t h = 0; h < heads.q[t].size(); ++h) {
        const Vector o = head_output(heads, t, h, first, scale);
        all.insert(all.end(), o.begin(), o.end());
      }
      result.push_back(linear("attn_output", all));
    }
    return result;
  }

  Vector head_output(const Heads& heads, size_t t, size_t h, size_t first, double scale) const {
    const size_t kv = h * heads.k[t].size() / heads.q[t].size();
    Vector scores;
    for (size_t s = first; s <= t; ++s) {
      scores.push_back(scale * std::inner_product(heads.q[t][h].begin(), heads.q[t][h].end(),
                                                  heads.k[s][kv].begin(), 0.0));
    }
    double total = has("attn_sinks.weight") ? std::exp(tensor("attn_sinks.weight").values[h]) : 0;
    for (const double score : scores) total += std::exp(score);
    Vector o(heads.v[t][kv].size());
    for (size_t s = first; s <= t; ++s) {
      add(o, heads.v[s][kv], std::exp(scores[s - first]) / total);
    }
    return o;
  }

  Vector glu(const Vector& gate, const Vector& up) const {
    Vector y;
    for (size_t i = 0; i < gate.size(); ++i) {
      double g = gate[i], u = up[i];
      if (c_.clamped_glu) {
        g = std::min(g, 7.0);
        u = std::clamp(u, -7.0, 7.0);
        y.push_back(g / (1 + std::exp(-1.702 * g)) * (u + 1));
      } else {
        y.push_back(g / (1 + std::exp(-g)) * u);
      }
    }
    return y;
  }

  Vector feed_forward(int64_t layer, const Vector& x) const {
    if (c_.experts == 0 || layer < c_.dense_layers) {
      return linear("ffn_down", glu(linear("ffn_gate", x), linear("ffn_up", x)));
    }
    Vector y(x.size());
    for (const auto& [expert, weight] : route(linear("ffn_gate_inp", x))) {
      add(y, expert_output(expert, x), weight);
    }
    if (c_.shared_width == 0) return y;
    const Vector shared =
        linear("ffn_down_shexp", glu(linear("ffn_gate_shexp", x), linear("ffn_up_shexp", x)));
    double gate = 1;
    if (c_.shared_gate) {
      gate = 1 / (1 + std::exp(-product("ffn_gate_inp_shexp.weight", 0, 1, x)[0]));
    }
    add(y, shared, gate);
    return y;
  }

  Vector expert_output(int64_t expert, const Vector& x) const {
    const auto part = [&](const std::string& role, int64_t rows, const Vector& in) {
      const std::string name = "ffn_" + role + "_exps";
      Vector y = product(name + ".weight", expert * rows, rows, in);
      if (has(name + ".bias")) add(y, row(name + ".bias", expert, rows));
      return y;
    };
    return part("down", c_.hidden,
                glu(part("gate", c_.expert_width, x), part("up", c_.expert_width, x)));
  }

  std::vector<int64_t> best(const Vector& scores, int64_t count) const {
    std::vector<int64_t> order(scores.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
    });
    order.resize(static_cast<size_t>(count));
    return order;
  }

  std::vector<std::pair<int64_t, double>> route(const Vector& logits) const {
    if (c_.gate == PlainConfig::Gate::kMixer) return mix(logits);
    Vector p = logits;
    if (c_.gate == PlainConfig::Gate::kSoftmax) {
      double total = 0;
      for (double& value : p) total += value = std::exp(value);
      for (double& value : p) value /= total;
    }
    if (c_.gate == PlainConfig::Gate::kSigmoid) {
      for (double& value : p) value = 1 / (1 + std::exp(-value));
    }
    Vector scores = p;
    const bool biased = has("exp_probs_b.bias");
    if (biased) add(scores, row("exp_probs_b.bias", 0, c_.experts));
    if (c_.groups_used < c_.groups) keep_best_groups(scores, biased ? 2 : 1);
    std::vector<std::pair<int64_t, double>> chosen;
    double total = 0;
    for (const int64_t e : best(scores, c_.used)) {
      const double weight = c_.gate == PlainConfig::Gate::kSelected
                                ? std::exp(p[static_cast<size_t>(e)])
                                : p[static_cast<size_t>(e)];
      chosen.emplace_back(e, weight);
      total += weight;
    }
    const bool divide = c_.normalize || c_.gate == PlainConfig::Gate::kSelected;
    for (auto& [e, weight] : chosen) weight *= c_.router_scale / (divide ? total : 1);
    return chosen;
  }

  void keep_best_groups(Vector& scores, int64_t best_of_group) const {
    const auto size = static_cast<int64_t>(scores.size()) / c_.groups;
    Vector sums;
    for (int64_t g = 0; g < c_.groups; ++g) {
      const Vector group(scores.begin() + g * size, scores.begin() + (g + 1) * size);
      double sum = 0;
      for (const int64_t e : best(group, best_of_group)) sum += group[static_cast<size_t>(e)];
      sums.push_back(sum);
    }
    const auto used = best(sums, c_.groups_used);
    for (size_t e = 0; e < scores.size(); ++e) {
      const int64_t group = static_cast<int64_t>(e) / size;
      if (std::find(used.begin(), used.end(), group) == used.end()) scores[e] = -1e30;
    }
  }

  /// SparseMixer at inference: each of two experts is weighted against those near it.
  std::vector<std::pair<int64_t, double>> mix(Vector logits) const {
    std::vector<std::pair<int64_t, double>> chosen;
    for (int64_t j = 0; j < c_.used; ++j) {
      const int64_t top = best(logits, 1)[0];
      const double most = logits[static_cast<size_t>(top)];
      double total = 0;
      for (const double logit : logits) {
        const bool far = (most - logit) / std::max(std::fabs(logit), most) > 0.02;
        if (!far && logit > -1e29) total += std::exp(logit - most);
      }
      chosen.emplace_back(top, 1 / total);
      logits[static_cast<size_t>(top)] = -1e30;
    }
    return chosen;
  }

  const TinyModel& model_;
  const PlainConfig& c_;
  std::string prefix_;
};

PlainConfig with_experts() { return {.experts = 8, .used = 2}; }

TinyModel make(const std::string& name, int64_t width) {
  PlainConfig c = with_experts();
  if (width > 64) {
    c.hidden = c.intermediate = c.expert_width = width;
    c.head_width = width / c.heads;
  }
  if (name == "llama" || name == "mixtral" || name == "qwen2" || name == "qwen3") {
    if (name != "mixtral") c.experts = c.used = 0;
    c.adjacent = name == "llama" || name == "mixtral";
    c.normalize = name == "mixtral";
    c.head_qk_norm = name == "qwen3";
    Maker maker(name == "mixtral" ? "llama" : name, c);
    maker.qkv_bias = name == "qwen2";
    return maker.make();
  }
  if (name == "olmoe") {
    c.full_qk_norm = true;
    return Maker(name, c).make();
  }
  if (name == "qwen2moe") {
    c.shared_width = 48;
    c.shared_gate = true;
    Maker maker(name, c);
    maker.qkv_bias = true;
    maker.key("expert_shared_feed_forward_length", uint32_t{48});
    return maker.make();
  }
  if (name == "qwen3moe") {
    c.head_qk_norm = c.normalize = true;
    c.head_width = 32;
    return Maker(name, c).make();
  }
  if (name == "granitemoe") {
    c.adjacent = c.normalize = true;
    c.embedding_scale = 3;
    c.residual_scale = 0.22;
    c.attention_scale = 0.1;
    c.logit_factor = 1 / 6.0;
    c.shared_width = 48;
    Maker maker(name, c);
    maker.key("embedding_scale", 3.0F);
    maker.key("residual_scale", 0.22F);
    maker.key("attention.scale", 0.1F);
    maker.key("logit_scale", 6.0F);
    maker.key("expert_shared_feed_forward_length", uint32_t{48});
    return maker.make();
  }
  if (name == "deepseek") {
    c.adjacent = true;
    c.dense_layers = 1;
    c.shared_width = 2 * c.expert_width;
    Maker maker(name, c);
    maker.key("leading_dense_block_count", uint32_t{1});
    maker.key("expert_shared_count", uint32_t{2});
    return maker.make();
  }
  if (name == "deepseek2" || name == "deepseek2-v3") {
    const bool v3 = name == "deepseek2-v3";
    c.adjacent = true;
    c.dense_layers = 1;
    c.shared_width = c.expert_width;
    c.head_width = 24;
    c.rope_width = 8;
    c.value_width = 20;
    c.kv_rank = 32;
    c.q_rank = v3 ? 40 : 0;
    c.used = 3;
    c.groups = 4;
    c.groups_used = 2;
    c.router_scale = 2.5;
    c.gate = v3 ? PlainConfig::Gate::kSigmoid : PlainConfig::Gate::kSoftmax;
    c.normalize = v3;
    c.yarn_factor = 4;
    c.yarn_context = 64;
    const double mscale = 1 + 0.0707 * std::log(4.0);
    c.attention_scale = mscale * mscale / std::sqrt(24.0);
    Maker maker("deepseek2", c);
    maker.selection_bias = maker.split_kv_up = v3;
    maker.key("leading_dense_block_count", uint32_t{1});
    maker.key("expert_shared_count", uint32_t{1});
    maker.key("attention.kv_lora_rank", uint32_t{32});
    if (v3) maker.key("attention.q_lora_rank", uint32_t{40});
    maker.key("attention.key_length", v3 ? uint32_t{40} : uint32_t{24});
    maker.key("attention.value_length", v3 ? uint32_t{32} : uint32_t{20});
    if (v3) maker.key("attention.key_length_mla", uint32_t{24});
    if (v3) maker.key("attention.value_length_mla", uint32_t{20});
    maker.key("rope.dimension_count", uint32_t{8});
    maker.key("expert_group_count", uint32_t{4});
    maker.key("expert_group_used_count", uint32_t{2});
    maker.key("expert_weights_scale", 2.5F);
    maker.key("expert_weights_norm", v3);
    if (v3) maker.key("expert_gating_func", uint32_t{2});
    maker.key("rope.scaling.type", std::string("yarn"));
    maker.key("rope.scaling.factor", 4.0F);
    maker.key("rope.scaling.original_context_length", uint32_t{64});
    maker.key("rope.scaling.yarn_log_multiplier", 0.0707F);
    return maker.make();
  }
  if (name == "gpt-oss") {
    c.gate = PlainConfig::Gate::kSelected;
    c.clamped_glu = true;
    c.ffn_norm = "post_attention_norm";
    c.window = 5;
    c.yarn_factor = 8;
    c.yarn_context = 32;
    c.yarn_cos_factor = 1 + 0.1 * std::log(8.0);
    Maker maker(name, c);
    maker.all_biases = maker.sinks = true;
    maker.key("attention.sliding_window", uint32_t{5});
    maker.key("rope.scaling.type", std::string("yarn"));
    maker.key("rope.scaling.factor", 8.0F);
    maker.key("rope.scaling.original_context_length", uint32_t{32});
    return maker.make();
  }
  if (name == "phimoe") {
    c.gate = PlainConfig::Gate::kMixer;
    c.layer_norm = true;
    Maker maker(name, c);
    maker.qkv_bias = maker.norm_bias = true;
    TinyModel model = maker.make();
    model.keys.erase("attention.layer_norm_epsilon");
    model.keys["attention.layer_norm_rms_epsilon"] = 1e-5F;
    return model;
  }
  if (name == "dbrx") {
    c.layer_norm = c.normalize = true;
    c.ffn_norm = "attn_output_norm";
    c.clamp = 1.5;
    Maker maker(name, c);
    maker.fused_qkv = true;
    maker.key("attention.clamp_kqv", 1.5F);
    return maker.make();
  }
  throw Error("no tiny model {}", name);
}

uint32_t gguf_type(kernels::BlockType type) {
  using kernels::BlockType;
  const std::map<BlockType, uint32_t> ids = {
      {BlockType::kF32, 0},  {BlockType::kF16, 1},   {BlockType::kBF16, 30}, {BlockType::kQ8_0, 8},
      {BlockType::kQ4_0, 2}, {BlockType::kQ4_K, 12}, {BlockType::kQ6_K, 14}};
  return ids.at(type);
}

/// What a matrix is stored as; the values become what a reader finds.
kernels::BlockType store(const std::string& name, kernels::BlockType type, PlainTensor& tensor,
                         std::vector<std::byte>& bytes) {
  const bool matrix = tensor.shape.size() > 1 && !name.ends_with(".bias") &&
                      name.find("ffn_gate_inp") == std::string::npos &&
                      tensor.shape.back() % kernels::block_info(type).elements == 0;
  const kernels::BlockType as = matrix ? type : kernels::BlockType::kF32;
  const auto count = static_cast<int64_t>(tensor.values.size());
  bytes.resize(static_cast<size_t>(kernels::row_bytes(as, count)));
  kernels::quantize(as, tensor.values.data(), count, bytes.data());
  kernels::dequantize(as, bytes.data(), count, tensor.values.data());
  return as;
}

}  // namespace

std::vector<std::string> tiny_model_names() {
  return {"llama",      "mixtral",  "qwen2",     "qwen3",        "olmoe",   "qwen2moe", "qwen3moe",
          "granitemoe", "deepseek", "deepseek2", "deepseek2-v3", "gpt-oss", "phimoe",   "dbrx"};
}

TinyModel tiny_model(const std::string& name) { return make(name, 64); }
TinyModel wide_model(const std::string& name) { return make(name, 256); }

void write_gguf(TinyModel& model, const std::filesystem::path& path, kernels::BlockType type) {
  GgufKeys keys;
  keys.add("general.architecture", model.architecture);
  for (const auto& [key, value] : model.keys) {
    std::visit([&](const auto& known) { keys.add(model.architecture + "." + key, known); }, value);
  }
  std::vector<GgufTensorSpec> specs;
  std::vector<std::vector<std::byte>> bytes(model.tensors.size());
  for (auto& [name, tensor] : model.tensors) {
    const auto as = store(name, type, tensor, bytes[specs.size()]);
    specs.push_back({name, {tensor.shape.rbegin(), tensor.shape.rend()}, gguf_type(as)});
  }
  GgufWriter writer(path, keys, specs);
  for (size_t i = 0; i < specs.size(); ++i) writer.write(specs[i].name, bytes[i]);
  writer.commit();
}

std::vector<float> plain_logits(const TinyModel& model, const std::vector<TokenId>& tokens) {
  return Plain(model).logits(tokens);
}

std::vector<TokenId> some_tokens(int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<TokenId> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<TokenId>(random() % 96));
  return tokens;
}

}  // namespace cadre::engine
