#pragma once

/// For tests: a fresh folder that is removed with everything in it.

#include <stdlib.h>

#include <filesystem>
#include <string>

#include "cadre/base/error.h"

namespace cadre {

class TestFolder {
 public:
  TestFolder() {
    std::string name = std::filesystem::temp_directory_path() / "cadre-test-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw IoError("cannot make a folder like {}", name);
    path_ = std::filesystem::canonical(name);
  }
  ~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace cadre
