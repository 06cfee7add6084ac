#pragma once

/// Text that lies in domains: a name and the documents of a file or folder.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cadre/formats/utf8.h"

namespace cadre {

struct Domain {
  std::string name;
  std::vector<std::string>
      documents;         ///< valid UTF-8, not empty, in the order of their sorted paths
  int64_t left_out = 0;  ///< files of a folder that could not be read as text
  int64_t bytes() const;
};

struct CorpusLimits {
  int64_t max_bytes = int64_t{1} << 30;  ///< reading a domain stops after this many bytes
};

/// Reads a file or, sorted and recursively, a folder's regular files (symbolic links in it are not
/// followed). `.gz` and `.dz` are unpacked, manual pages (man?/NAME.N[.gz]) are stripped of their
/// roff markup. In a folder, binary files (a NUL byte), files of invalid UTF-8, broken packed files
/// and unreadable ones are left out and counted; a single file that is one of these is an error.
/// Throws IoError (missing), UsageError (empty, binary, invalid UTF-8 with the offset, nothing
/// readable).
Domain read_domain(const std::string& name, const std::filesystem::path& path,
                   const CorpusLimits& limits = {});

/// Parses "NAME=PATH"; the name becomes part of file names and may hold letters, digits and "._-".
/// Throws UsageError.
std::pair<std::string, std::filesystem::path> parse_domain_option(const std::string& option);

/// A domain's text in two parts; the pieces are views into the documents.
struct HeldOutSplit {
  std::vector<std::string_view> training, validation;
};

/// Counts the documents' bytes as one stream, cuts it in blocks at UTF-8 boundaries and at document
/// ends, and holds out every `every`-th block. A domain of less than `every` blocks has no
/// validation text. Throws UsageError when block_bytes < 4 or every < 2.
HeldOutSplit split_held_out(std::span<const std::string> documents, int64_t block_bytes = 4096,
                            int64_t every = 20);

}  // namespace cadre
