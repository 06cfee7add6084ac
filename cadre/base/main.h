#pragma once

/// The frame of every program's main(): exceptions become one line on stderr and an exit code.

#include <functional>
#include <string_view>

namespace cadre {

/// Runs `body` and returns its result. An exception is printed as the single line
/// `cadre VERB: message` and its exit code returned: that of a cadre::Error, 1 for all others (the
/// message of a foreign exception is cut after its first line: LibTorch appends a back-trace).
/// An output that could not be written (full disk behind a pipe) is an error, too.
int run_main(std::string_view verb, const std::function<int()>& body);
}  // namespace cadre
