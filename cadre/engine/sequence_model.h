#pragma once

/// What scheduling and scoring need of a model: sequences that grow together. EngineSequences is a
/// Model; tests have small ones of their own.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cadre/engine/session.h"

namespace cadre::engine {

/// One sequence: its tokens and what the model keeps of them.
class Sequence {
 public:
  virtual ~Sequence() = default;
  virtual const std::vector<TokenId>& tokens() const = 0;
  /// A sequence of the first `length` tokens that can go on by itself, sharing memory with this
  /// one; null when the model no longer keeps what that takes.
  virtual std::unique_ptr<Sequence> fork(int64_t length) const = 0;
};

class SequenceModel {
 public:
  struct Slice {
    Sequence* sequence;
    std::span<const TokenId> tokens;  ///< at least one
    Model::Slice::Want want;
  };

  virtual ~SequenceModel() = default;
  virtual int64_t vocabulary() const = 0;
  virtual std::unique_ptr<Sequence> new_sequence() = 0;
  /// As Model::forward.
  virtual std::vector<float> forward(std::span<const Slice> slices) = 0;
  virtual ExpertCounters expert_counters() const = 0;
};

class EngineSequences final : public SequenceModel {
 public:
  explicit EngineSequences(std::shared_ptr<Model> model);
  int64_t vocabulary() const override;
  std::unique_ptr<Sequence> new_sequence() override;
  std::vector<float> forward(std::span<const Slice> slices) override;
  ExpertCounters expert_counters() const override;

 private:
  std::shared_ptr<Model> model_;
};

}  // namespace cadre::engine
