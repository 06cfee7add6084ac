#pragma once

/// Route traces: which experts each token was given in each layer. Written by a running model, read
/// by replay (replay.h), memory forecasts and the training of predictors.
///
/// The file is a safetensors file, so that any tool reads it: "experts" I16 [T, L, K] (-1 = none),
/// "weights" F32 [T, L, K], "pass" and "sequence" I32 [T], "token" I32 [T] when known; metadata
/// model, experts, expert_bytes.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace cadre::engine {

struct RouteTrace {
  std::string model;
  int64_t layers = 0, experts = 0, used = 0;  ///< L, E, K
  int64_t expert_bytes = 0;                   ///< of one expert; 0 = not known
  std::vector<int32_t> passes;                ///< [T] rising; tokens of one forward pass share it
  std::vector<int32_t> sequences;             ///< [T]
  std::vector<int32_t> tokens;                ///< [T] ids of the tokens processed, or empty
  std::vector<int16_t> chosen;                ///< [T, L, K]
  std::vector<float> weights;                 ///< [T, L, K]

  int64_t size() const { return static_cast<int64_t>(passes.size()); }
  std::span<const int16_t> at(int64_t token, int64_t layer) const {
    return std::span(chosen).subspan((token * layers + layer) * used, used);
  }
  std::span<const float> weights_at(int64_t token, int64_t layer) const {
    return std::span(weights).subspan((token * layers + layer) * used, used);
  }
};

/// Collects a trace token by token, layer by layer.
class TraceRecorder {
 public:
  /// `shape` gives model, layers, experts, used and expert_bytes. Throws UsageError when an
  /// expert's number would not fit 15 bits.
  explicit TraceRecorder(const RouteTrace& shape);
  /// The next token, of `pass` and `sequence`; its number is returned.
  int64_t add_token(int32_t pass, int32_t sequence, int32_t token);
  /// What the router of `layer` gave that token: at most `used` experts.
  void add_route(int64_t token, int64_t layer, std::span<const int32_t> experts,
                 std::span<const float> weights);
  const RouteTrace& trace() const { return trace_; }

 private:
  RouteTrace trace_;
};

/// Throws IoError.
void write_trace(const RouteTrace& trace, const std::filesystem::path& path);

/// Reads a trace file, or the published CSV form (turn, phase, step, layer, slot, expert, weight,
/// ...; "# ... n_layer= n_expert= n_expert_used=" above it; may be gzipped). Phase 0 is one pass a
/// turn. Throws IoError, FormatError.
RouteTrace read_trace(const std::filesystem::path& path);

/// The passes that process one token of each sequence: without prefill.
RouteTrace decode_part(const RouteTrace& trace);

}  // namespace cadre::engine
