#pragma once

/// Real text that Debian packages bring: what `cadre quickstart` trains on when the user names no
/// text.

#include <filesystem>
#include <string>
#include <vector>

#include "cadre/formats/corpus.h"

namespace cadre {

struct DebianDomain {
  std::string name;
  std::string packages;  ///< what to install
  std::vector<std::filesystem::path>
      paths;  ///< relative to the root: files, folders or the Bible's data
};

/// code, manual, literature and dictionary; each has at least 3 MB of text.
const std::vector<DebianDomain>& debian_domains();

/// Reads the domain below `root`: "/", or a folder that `dpkg-deb -x` unpacked the packages into
/// (slim images leave manual pages out when they install). The Bible is printed by its own program,
/// one verse a line without the verse's number. Invalid UTF-8 (3 bytes of the dictionary's 40 MB)
/// becomes U+FFFD. Throws UsageError that names the packages when the text is not there.
Domain read_debian_domain(const DebianDomain& domain, const CorpusLimits& limits = {},
                          const std::filesystem::path& root = "/");

}  // namespace cadre
