#pragma once

/// Several models within one memory budget: those asked for last stay open, the others wait on the
/// disk. After "SambaNova SN40L: Scaling the AI Memory Wall with Dataflow and Composition of
/// Experts" (2024), with RAM and disk as the tiers.

#include <cstdint>
#include <filesystem>
#include <list>
#include <memory>
#include <optional>
#include <vector>

#include "cadre/engine/session.h"

namespace cadre::ensemble {

/// Items of different sizes within a budget, least recently used out first. Knows sizes only.
class LruBudget {
 public:
  explicit LruBudget(int64_t budget) : budget_(budget) {}

  /// Makes room for an item and puts it in front; returns those that leave, in that order. An item
  /// larger than the budget gets all of it. One that is there moves to the front, nothing leaves.
  std::vector<int64_t> take(int64_t item, int64_t size);
  void drop(int64_t item);
  bool holds(int64_t item) const;
  int64_t budget() const { return budget_; }
  int64_t used() const { return used_; }

 private:
  struct Entry {
    int64_t item, size;
  };
  std::list<Entry>::const_iterator find(int64_t item) const;

  int64_t budget_, used_ = 0;
  std::list<Entry> entries_;  ///< last used first
};

class ModelPool {
 public:
  struct Need {
    int64_t least = 0;     ///< bytes without which it can't run
    int64_t resident = 0;  ///< with all experts in memory
  };
  /// What get() found and did.
  struct Opened {
    std::shared_ptr<engine::Model> model;
    bool was_open = false;
    std::vector<int64_t> left;  ///< models closed to make room
    double seconds = 0;         ///< that opening took
  };

  /// Reads headers only. options.memory is the budget of the whole process (0 = what the machine
  /// has free, less a margin); options.context is cut to each model's. Throws IoError, FormatError,
  /// and UsageError when a model can't run within the budget (names it and its least).
  ModelPool(std::vector<std::filesystem::path> models, const engine::ModelOptions& options);

  /// The model, opened if it is not; its memory is given back when it leaves the pool and nobody
  /// holds it: let go of a model before asking for the next. One whose experts do not all fit the
  /// budget gets all of it and reads them from disk. Throws as engine::Model::open does; the pool
  /// is then without that model.
  Opened get(int64_t model);
  bool is_open(int64_t model) const { return open_[static_cast<size_t>(model)] != nullptr; }

  const Need& need(int64_t model) const { return needs_[static_cast<size_t>(model)]; }
  int64_t budget() const { return memory_; }
  int64_t process() const { return process_; }   ///< of the budget, what no model has
  int64_t used() const { return room_.used(); }  ///< of it, what open models have
  int64_t loads() const { return loads_; }

 private:
  engine::ModelOptions options_for(int64_t model) const;

  std::vector<std::filesystem::path> paths_;
  engine::ModelOptions options_;
  int64_t memory_, process_ = 0;
  std::vector<int64_t> contexts_;
  std::vector<Need> needs_;
  std::vector<std::shared_ptr<engine::Model>> open_;
  LruBudget room_;
  int64_t loads_ = 0;
};

}  // namespace cadre::ensemble
