#pragma once

/// Files of a Debian package without installing it: no root, no dependencies.

#include <filesystem>
#include <string>
#include <vector>

namespace cadre {

/// Downloads `package` with apt-get into `folder` and returns the .deb file. Throws IoError.
std::filesystem::path fetch_package(const std::string& package,
                                    const std::filesystem::path& folder);

/// Unpacks a .deb file's tree below `folder` with dpkg-deb. Throws IoError.
void unpack_package(const std::filesystem::path& deb, const std::filesystem::path& folder);

}  // namespace cadre
