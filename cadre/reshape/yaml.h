#pragma once

/// YAML from files nobody vouches for, as JSON.

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace cadre::reshape {

/// One document of scalars, lists and maps with text keys. Plain scalars become null, booleans
/// (true/false/yes/no/on/off as YAML 1.1 reads them), integers, numbers or text; quoted ones text.
/// `where` begins errors. Throws UsageError for broken YAML (with its line), a key twice, aliases
/// (a small file could mean a huge value), nesting beyond 32 levels.
nlohmann::json parse_yaml(std::string_view text, const std::string& where);

}  // namespace cadre::reshape
