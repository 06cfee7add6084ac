#pragma once

/// Small helpers on JSON that several verbs share.

#include <nlohmann/json.hpp>
#include <string>

namespace cadre {

/// The first member of `now` that `before` has otherwise or lacks, as "--hidden 256, now 512";
/// empty when none.
std::string first_difference(const nlohmann::json& before, const nlohmann::json& now);

/// Pretty JSON for a file or a script. Bytes that are no UTF-8 (a sample cut within a character)
/// become U+FFFD.
std::string pretty(const nlohmann::ordered_json& json);

}  // namespace cadre
