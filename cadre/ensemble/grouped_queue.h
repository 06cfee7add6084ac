#pragma once

/// The order in which prompts for several models are answered: by arrival, except that prompts for
/// a model that is in memory may overtake others, each of those at most `window` times.

#include <cstdint>
#include <deque>
#include <functional>

namespace cadre::ensemble {

class GroupedQueue {
 public:
  struct Item {
    int64_t id, model;
  };

  /// window = 0: by arrival.
  explicit GroupedQueue(int64_t window) : window_(window) {}

  void push(const Item& item) { waiting_.push_back({item, 0}); }
  bool empty() const { return waiting_.empty(); }
  /// Removes and returns the oldest item whose model `is_open` and which may overtake those before
  /// it; when there is none, the oldest. The queue must not be empty.
  Item pop(const std::function<bool(int64_t model)>& is_open);

 private:
  struct Waiting {
    Item item;
    int64_t overtaken;
  };
  int64_t window_;
  std::deque<Waiting> waiting_;
};

}  // namespace cadre::ensemble
