#include "cadre/engine/sequence_model.h"

#include <utility>

namespace cadre::engine {
namespace {

class SessionSequence final : public Sequence {
 public:
  explicit SessionSequence(Session session) : session(std::move(session)) {}
  const std::vector<TokenId>& tokens() const override { return session.tokens(); }
  std::unique_ptr<Sequence> fork(int64_t length) const override {
    return std::make_unique<SessionSequence>(session.fork(length));
  }

  Session session;
};

}  // namespace

EngineSequences::EngineSequences(std::shared_ptr<Model> model) : model_(std::move(model)) {}

int64_t EngineSequences::vocabulary() const { return model_->spec().vocabulary; }

std::unique_ptr<Sequence> EngineSequences::new_sequence() {
  return std::make_unique<SessionSequence>(Session(model_));
}

std::vector<float> EngineSequences::forward(std::span<const Slice> slices) {
  std::vector<Model::Slice> parts;
  for (const Slice& slice : slices) {
    auto& sequence = static_cast<SessionSequence&>(*slice.sequence);
    parts.push_back({&sequence.session, slice.tokens, slice.want});
  }
  return model_->forward(parts);
}

ExpertCounters EngineSequences::expert_counters() const { return model_->expert_counters(); }

}  // namespace cadre::engine
