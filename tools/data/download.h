#pragma once

/// Files from the network, kept only when their checksum is right.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace cadre {

struct Download {
  std::string url;     ///< http, https or file
  std::string sha256;  ///< of the file's bytes, 64 hexadecimal digits
  std::filesystem::path file;
  /// Called with the bytes that came since the last call; may be empty.
  std::function<void(int64_t bytes)> on_bytes = {};
};

/// Writes the file, or throws and leaves none: IoError when the server cannot be reached, refuses,
/// stalls for a minute or sends less than it promised; FormatError when the checksum is another.
void download(const Download& request);

}  // namespace cadre
