#pragma once

/// Text that lies in domains: a name and the documents of a file or folder.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace cadre {

struct Domain {
  std::string name;
  std::vector<std::string> documents;  ///< valid UTF-8, in the order of their sorted paths
  int64_t bytes() const;
};

struct CorpusLimits {
  int64_t max_bytes = int64_t{1} << 30;  ///< reading a domain stops after this many bytes
};

/// Reads a file or, sorted and recursively, a folder's regular files. `.gz` and `.dz` are unpacked,
/// manual pages (man?/NAME.N[.gz]) are stripped of their roff markup. In a folder, binary files (a NUL
/// byte) and files of invalid UTF-8 are left out and counted; a single file that is either is an error.
/// Throws IoError (missing), UsageError (empty, binary, invalid UTF-8 with the offset, nothing readable).
Domain read_domain(const std::string& name, const std::filesystem::path& path,
                   const CorpusLimits& limits = {});

/// Parses "NAME=PATH". Throws UsageError.
std::pair<std::string, std::filesystem::path> parse_domain_option(const std::string& option);

/// Offset of the first byte that is not valid UTF-8, or -1.
int64_t find_invalid_utf8(std::string_view text);

}  // namespace cadre
