#include "cadre/engine/route_recorder.h"

#include <algorithm>

#include "cadre/base/error.h"

namespace cadre::engine {
namespace {

RouteTrace shape_of(const Model& model) {
  const ModelSpec& spec = model.spec();
  if (spec.experts == 0) throw UsageError("{} has no experts: there are no routes", spec.name);
  RouteTrace shape;
  shape.model = spec.name;
  shape.layers = spec.layers;
  shape.experts = spec.experts;
  shape.used = std::max(spec.experts_used, model.routing.experts_per_token.value_or(0));
  return shape;
}

}  // namespace

RouteRecorder::RouteRecorder(std::shared_ptr<Model> model)
    : model_(std::move(model)), recorder_(shape_of(*model_)) {
  model_->on_pass = [this](std::span<const Model::PassToken> tokens) { begin_pass(tokens); };
  model_->on_route = [this](int64_t layer, int64_t position, const Session* session,
                            std::span<const int32_t> experts, std::span<const float> weights) {
    recorder_.add_route(rows_.at({session, position}), layer, experts, weights);
  };
}

RouteRecorder::~RouteRecorder() {
  model_->on_pass = nullptr;
  model_->on_route = nullptr;
}

void RouteRecorder::begin_pass(std::span<const Model::PassToken> tokens) {
  rows_.clear();
  for (const Model::PassToken& token : tokens) {
    rows_[{token.session, token.position}] =
        recorder_.add_token(passes_, token.session->id(), token.token);
  }
  ++passes_;
}

}  // namespace cadre::engine
