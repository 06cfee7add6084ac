#pragma once

/// JSON from files nobody vouches for.

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace cadre {

/// Parses strict JSON. `where` names the text in errors. Throws FormatError for broken JSON,
/// invalid UTF-8, a key that an object holds twice (which of them counts is what attackers play on)
/// and nesting beyond 64 levels (later recursive walks of the value would overflow the stack).
nlohmann::json parse_json(std::string_view text, const std::string& where);

/// Any bytes as a JSON string in quotes, so that a name from a file can stand in a one-line
/// message.
std::string quote(const std::string& text);

}  // namespace cadre
