#include "cadre/engine/stop_strings.h"

#include <algorithm>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/formats/utf8.h"

namespace cadre::engine {

StopStrings::StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_) {
    if (stop.empty()) throw UsageError("a stop string is empty");
    if (find_invalid_utf8(stop) >= 0) throw UsageError("a stop string is not valid UTF-8");
  }
  std::ranges::sort(stops_, std::ranges::greater{}, &std::string::size);
}

std::string StopStrings::push(std::string_view text) {
  if (stopped_) return {};
  const size_t before = pending_.size();
  pending_ += text;
  for (size_t end = before + 1; end <= pending_.size() && !stops_.empty(); ++end) {
    const std::string_view so_far = std::string_view(pending_).substr(0, end);
    for (const std::string& stop : stops_) {
      if (!so_far.ends_with(stop)) continue;
      stopped_ = true;
      pending_.resize(end - stop.size());
      return std::exchange(pending_, {});
    }
  }
  const size_t shown = pending_.size() - held_bytes();
  std::string result = pending_.substr(0, shown);
  pending_.erase(0, shown);
  return result;
}

std::string StopStrings::finish() { return std::exchange(pending_, {}); }

/// The longest end of what is pending that begins a stop string.
size_t StopStrings::held_bytes() const {
  const size_t longest = stops_.empty() ? 0 : stops_.front().size() - 1;
  for (size_t size = std::min(longest, pending_.size()); size > 0; --size) {
    const std::string_view end = std::string_view(pending_).substr(pending_.size() - size);
    for (const std::string& stop : stops_) {
      if (stop.size() > size && stop.starts_with(end)) return size;
    }
  }
  return 0;
}

}  // namespace cadre::engine
