#include "cadre/ensemble/grouped_queue.h"

namespace cadre::ensemble {

GroupedQueue::Item GroupedQueue::pop(const std::function<bool(int64_t model)>& is_open) {
  size_t chosen = 0;
  for (size_t i = 0; i < waiting_.size(); ++i) {
    if (is_open(waiting_[i].item.model)) {
      chosen = i;
      break;
    }
    if (waiting_[i].overtaken >= window_) break;  // nobody passes this one any more
  }
  for (size_t i = 0; i < chosen; ++i) ++waiting_[i].overtaken;
  const Item item = waiting_[chosen].item;
  waiting_.erase(waiting_.begin() + static_cast<int64_t>(chosen));
  return item;
}

}  // namespace cadre::ensemble
