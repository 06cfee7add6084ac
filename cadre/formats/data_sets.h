#pragma once

/// The data sets that recipes read: what they are, where a user gets them, where they lie. Nothing
/// is fetched here; `cadre data get NAME` does that.

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace cadre {

/// Files of a Debian package, unpacked without installing it.
struct DebianOrigin {
  std::string package;
  std::string folder;  ///< relative to the root: "usr/share/datasets/fashion-mnist"
};

/// One file, and the SHA-256 of its bytes in hexadecimal.
struct UrlOrigin {
  std::string url;
  std::string sha256;
};

/// Made when it is needed.
struct GeneratedOrigin {};

struct DataSet {
  std::string name;
  std::string help;  ///< one line: what it is, with sizes
  std::string licence;
  std::variant<DebianOrigin, UrlOrigin, GeneratedOrigin> origin;
  std::vector<std::string> files = {};  ///< plain names
  /// The same files in a collection ($CADRE_SHARED_DATA or ../shared/data): the folder's name
  /// there; empty = not in it.
  std::string shared = {};
};

const std::vector<DataSet>& data_sets();
/// Throws UsageError naming the nearest one.
const DataSet& data_set_named(std::string_view name);

/// Where `cadre data get` puts a set: $CADRE_DATA, else $XDG_CACHE_HOME/cadre/data, else
/// ~/.cache/cadre/data, each with the set's name.
std::filesystem::path data_folder(const DataSet& set);

/// The folder that holds all of the set's files, or nothing: `given`/NAME, `given` itself (what the
/// user named, may be empty), data_folder(), the installed package, the collection.
std::optional<std::filesystem::path> find_data(const DataSet& set,
                                               const std::filesystem::path& given = {});

/// The bytes of one of the set's files, `.gz` unpacked. Throws UsageError that says how to get the
/// set when it is not there; IoError, FormatError.
std::string read_data(const DataSet& set, const std::string& file,
                      const std::filesystem::path& given = {});

}  // namespace cadre
