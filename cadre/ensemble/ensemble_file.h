#pragma once

/// Several models behind one router, as a TOML file:
///
///   router = "router.safetensors"   # what cadre compose fitted
///   general = "large"               # answers what the router is not sure about
///   memory = "4GiB"                 # of the process; optional
///   window = 16                     # prompts that may overtake one that waits; optional
///
///   [models]
///   large = "../models/large.gguf"  # GGUF files, packs, checkpoint folders
///   small = "../models/small"
///
///   [categories]                    # every category of the router and who answers it
///   code = "small"
///   prose = "large"
///
/// Paths are relative to the file's folder.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace cadre::ensemble {

struct EnsembleFile {
  struct Member {
    std::string name;
    std::filesystem::path path;
  };
  std::filesystem::path router;
  std::vector<Member> models;                 ///< by name
  int64_t general = 0;                        ///< index into models
  std::map<std::string, int64_t> categories;  ///< category -> index into models
  int64_t memory = 0;                         ///< bytes; 0 = not said
  int64_t window = 16;
};

/// Throws UsageError with `where` and the line: broken TOML, unknown keys and models (with the
/// nearest right one), missing keys. Looks at no other file.
EnsembleFile parse_ensemble_file(std::string_view toml, const std::string& where,
                                 const std::filesystem::path& folder);
/// Throws IoError, and as parse_ensemble_file does.
EnsembleFile read_ensemble_file(const std::filesystem::path& path);

/// The TOML text that parse_ensemble_file reads; paths as they are given.
std::string to_toml(const EnsembleFile& file);

}  // namespace cadre::ensemble
