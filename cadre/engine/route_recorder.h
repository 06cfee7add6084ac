#pragma once

/// Records which experts a running model chooses, as a trace for replay, plans and the training of
/// predictors.

#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include "cadre/engine/session.h"
#include "cadre/engine/trace.h"

namespace cadre::engine {

class RouteRecorder {
 public:
  /// Listens to every pass of the model from now on, in place of earlier listeners. Throws
  /// UsageError when the model has no routed experts, or too many for a trace.
  explicit RouteRecorder(std::shared_ptr<Model> model);
  ~RouteRecorder();
  RouteRecorder(const RouteRecorder&) = delete;
  RouteRecorder& operator=(const RouteRecorder&) = delete;

  const RouteTrace& trace() const { return recorder_.trace(); }

 private:
  void begin_pass(std::span<const Model::PassToken> tokens);

  std::shared_ptr<Model> model_;
  TraceRecorder recorder_;
  std::map<std::pair<const Session*, int64_t>, int64_t> rows_;  ///< of this pass, in the trace
  int32_t passes_ = 0;
};

}  // namespace cadre::engine
