#pragma once

/// Unpacks gzip data (RFC 1952), which dictzip files (.dz) are too.

#include <cstdint>
#include <string>
#include <string_view>

namespace cadre {

/// The unpacked bytes of all members, at most `max_bytes` of them: a small hostile file can't fill
/// the memory. `where` names the data in errors. Throws FormatError when it is truncated or
/// corrupt.
std::string gunzip(std::string_view packed, const std::string& where, int64_t max_bytes);

}  // namespace cadre
