#pragma once

/// For tests: token files with chosen ids.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cadre/formats/file.h"
#include "cadre/formats/token_file.h"

namespace cadre {

/// Writes ids as the layout of token_file.h states it. Without a hash, one that names the
/// vocabulary.
inline std::shared_ptr<const TokenFile> write_test_tokens(const std::filesystem::path& path,
                                                          const std::vector<TokenId>& ids,
                                                          int64_t vocabulary,
                                                          std::string hash = "") {
  if (hash.empty()) hash = std::to_string(vocabulary);
  hash.resize(16, '.');
  std::string file = "CADRETOK";
  const auto append = [&](const auto& value) {
    file.append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  append(uint32_t{1});
  append(uint32_t{4});
  append(static_cast<uint64_t>(ids.size()));
  append(static_cast<uint64_t>(vocabulary));
  file += hash;
  for (const TokenId id : ids) append(id);
  write_file(path, file);
  return std::make_shared<TokenFile>(path);
}

}  // namespace cadre
