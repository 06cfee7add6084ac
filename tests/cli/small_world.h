#pragma once

/// Small generated domains and models, so that whole runs take a second.

#include <filesystem>
#include <string>
#include <vector>

#include "cadre/formats/test_folder.h"

namespace cadre {

/// Text of a little language: `lines` sentences drawn from the words of one domain (0, 1, ...).
std::string small_text(int domain, int lines);

/// A folder with the files sums.txt and tales.txt of small_text.
class SmallWorld {
 public:
  SmallWorld();
  std::filesystem::path operator/(const std::string& name) const { return folder_ / name; }
  /// --domain options for both files.
  std::vector<std::string> domains() const;
  /// A verb with tiny settings: model, training and data; `more` is appended.
  std::vector<std::string> quickstart(const std::vector<std::string>& more = {}) const;
  std::vector<std::string> train(const std::vector<std::string>& more = {}) const;

 private:
  std::vector<std::string> command(const std::string& verb, const std::string& out,
                                   const std::vector<std::string>& more) const;
  TestFolder folder_;
};

}  // namespace cadre
