#pragma once

/// The run wing as a library: open a model, make a session, feed tokens, get logits.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cadre/engine/expert_provider.h"
#include "cadre/engine/kv_type.h"
#include "cadre/engine/model_spec.h"
#include "cadre/engine/router.h"
#include "cadre/formats/tokenizer.h"

namespace cadre::engine {

enum class ExpertStorage { kAuto, kResident, kDirect, kPread, kMmap };

struct ModelOptions {
  int64_t memory = 0;  ///< bytes for the whole process; 0 = what the cgroup and the machine have
                       ///< free, less a margin
  std::optional<int64_t>
      expert_memory;      ///< bytes for the expert cache; absent = what the budget leaves
  int threads = 0;        ///< 0 = physical cores this process may use
  int64_t context = 0;    ///< tokens of KV cache to plan for; 0 = min(model's, 4096)
  int64_t prefill = 512;  ///< tokens that pass through the layers together: more = experts are read
                          ///< less often, and more memory
  KvType kv_type = KvType::kBf16;  ///< keys and values of sequences
  ExpertStorage storage = ExpertStorage::kAuto;
  std::string cache_policy = "score";    ///< score, lru, lfu, plec
  std::string predictor = "gate";        ///< gate, coactivation, frequency, previous, path, none
  std::filesystem::path predictor_file;  ///< weights of the path predictor
  std::filesystem::path usage_folder;    ///< remembers there how much each streamed expert is used
                                         ///< (expert_usage.h); empty = nowhere
  kernels::BlockType quantize_to = kernels::BlockType::kBF16;  ///< checkpoint directories: matrices
                                                               ///< are stored as this while loading
};

class Session;

/// A loaded model; share it between sessions. One forward pass runs at a time.
class Model {
 public:
  /// Throws IoError, FormatError (names tensor, key, file), UsageError (a budget below the least:
  /// says the least).
  static std::shared_ptr<Model> open(const std::filesystem::path& path,
                                     const ModelOptions& options = {});
  ~Model();

  const ModelSpec& spec() const;
  const Tokenizer& tokenizer() const;
  ExpertCounters expert_counters() const;
  RoutingOverrides routing;

  /// One slice of a forward pass: tokens of one session, continuing it.
  struct Slice {
    Session* session;
    std::span<const TokenId> tokens;
    enum class Want { kNone, kLast, kAll } want;  ///< which positions' logits
  };
  /// Runs all slices together (continuous batching). Returns logits [wanted positions, V] in slice
  /// order. Throws UsageError when a session's context is full; IoError when an expert could not be
  /// read (the sessions keep their state from before the call).
  std::vector<float> forward(std::span<const Slice> slices);

  /// A token of a forward pass.
  struct PassToken {
    const Session* session;
    int64_t position;
    TokenId token;
  };
  /// Called with the tokens of every pass before its first layer, when set.
  std::function<void(std::span<const PassToken>)> on_pass;

  /// Called with the normalised hidden states [tokens, hidden] that each layer's feed-forward and
  /// router see, when set: calibration.
  std::function<void(int64_t layer, const float* hidden, int64_t tokens)> on_hidden;

  /// Called with (layer, position, session, experts, weights) for every routed token when set:
  /// traces, calibration.
  std::function<void(int64_t layer, int64_t position, const Session* session,
                     std::span<const int32_t> experts, std::span<const float> weights)>
      on_route;

 private:
  friend class Session;
  struct State;
  explicit Model(std::unique_ptr<State> state);
  static void check_sessions(std::span<const Slice> slices);
  void check_slice(const Slice& slice) const;
  void commit(const Slice& slice);
  std::unique_ptr<State> state_;
};

/// One sequence: its tokens and its keys and values.
class Session {
 public:
  explicit Session(std::shared_ptr<Model> model);
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  /// Differs from that of every other session of this process.
  int32_t id() const;
  /// Feeds tokens; returns the logits [V] after the last one.
  std::vector<float> feed(std::span<const TokenId> tokens);
  const std::vector<TokenId>& tokens() const;
  /// Forgets everything after the first `length` tokens.
  void truncate(int64_t length);
  /// A session that continues from the first `length` tokens of this one, whose full pages of 64
  /// tokens both share.
  Session fork(int64_t length) const;

 private:
  friend class Model;
  struct State;
  explicit Session(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cadre::engine
