#pragma once

/// The manual page and the shell completion, made from the options that the programs themselves
/// declare.

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace cadre {

/// Runs every verb's program beside this one with --help-json. Programs that are not there (a build
/// without LibTorch) are left out. Throws Error when one fails.
std::vector<nlohmann::ordered_json> describe_verbs();

/// cadre.1, in man(7) markup.
std::string manual_page(const std::vector<nlohmann::ordered_json>& verbs);

/// A bash completion script: verbs, each verb's options, file names.
std::string bash_completion(const std::vector<nlohmann::ordered_json>& verbs);

}  // namespace cadre
