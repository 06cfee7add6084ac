#pragma once

/// Ends a text at the first of some strings, wherever the borders of tokens fall.

#include <string>
#include <string_view>
#include <vector>

namespace cadre::engine {

class StopStrings {
 public:
  /// Empty list = never stops. Throws UsageError when one is empty or no valid UTF-8.
  explicit StopStrings(std::vector<std::string> stops);

  /// Adds text (whole characters); returns what can be shown by now: what may become a stop string
  /// is held back, a stop string and all after it is dropped. Of several, the one that ends first
  /// counts, of those the longest.
  std::string push(std::string_view text);
  /// The end without a stop string: what was held back.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  size_t held_bytes() const;

  std::vector<std::string> stops_;  ///< longest first
  std::string pending_;             ///< shorter than the longest stop string between calls
  bool stopped_ = false;
};

}  // namespace cadre::engine
