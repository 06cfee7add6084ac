#pragma once

/// Bytes of tokens to text that can be shown: a token may end in the middle of a character.

#include <string>
#include <string_view>

namespace cadre::engine {

class Utf8Stream {
 public:
  /// Adds bytes; returns the characters that are whole by now. Bytes that belong to no character
  /// become U+FFFD each, so that what comes out is valid UTF-8 and does not depend on how the bytes
  /// were cut.
  std::string push(std::string_view bytes);
  /// The end: an unfinished character's bytes become U+FFFD.
  std::string finish();

 private:
  std::string take(size_t count);

  std::string pending_;  ///< at most 3 bytes between calls
};

}  // namespace cadre::engine
