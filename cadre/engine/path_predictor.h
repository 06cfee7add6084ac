#pragma once

/// ExpertFlow's routing path predictor: a tiny encoder-decoder that reads the tokens and names the
/// experts of all layers before the large model starts on a token.
///
/// Paper: "ExpertFlow: Efficient MoE Inference via Predictive Expert Caching and Token Scheduling"
/// (2024). A T5 network (Raffel et al., 2020): RMS norms before each part, ReLU feed-forward,
/// attention without scaling plus a learned bias by bucket of relative position (shared by all
/// blocks), and a head of D -> L x E logits at each decoder position. The encoder sees the prompt,
/// the decoder the tokens generated so far; position t forecasts token t's own pass. Departure: of
/// a prompt the last `window` tokens are seen, as training does.
///
/// The file is safetensors (F32) with T5's usual names: shared.weight [V, D];
/// {encoder,decoder}.block.N.layer.M.{SelfAttention,EncDecAttention}.{q,k,v,o}.weight,
/// .DenseReluDense.{wi,wo}.weight, .layer_norm.weight; block.0.layer.0.SelfAttention.
/// relative_attention_bias.weight [buckets, heads]; {encoder,decoder}.final_layer_norm.weight;
/// head.weight [L x E, D]. Metadata: layers, experts, used, heads, max_distance (128), window
/// (256).

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

namespace cadre::engine {

class PathModel {
 public:
  /// Throws IoError; FormatError when tensors are missing, do not fit, or forecast another model
  /// than one of `layers` x `experts`.
  PathModel(const std::filesystem::path& file, int64_t layers, int64_t experts);
  ~PathModel();
  PathModel(PathModel&&) noexcept;

  /// K of the model it was trained for.
  int64_t used() const;
  /// Encodes the prompt. Tokens outside of the vocabulary count as token 0.
  void begin_sequence(int32_t sequence, std::span<const int32_t> prompt);
  /// Logits [L, E] for the pass that processes `token`, the next of the sequence (which begins with
  /// an empty prompt when it was not begun). One decoder step.
  std::vector<float> forecast(int32_t sequence, int32_t token);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The `count` likeliest experts of each layer, layer * experts + expert, by logits [L, E]; of
/// equal ones the first.
std::vector<int64_t> likeliest(std::span<const float> logits, int64_t layers, int64_t experts,
                               int64_t count);

}  // namespace cadre::engine
