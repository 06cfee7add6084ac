#include "tools/common/temporary_folder.h"

#include <stdlib.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "cadre/base/error.h"

namespace cadre {

TemporaryFolder::TemporaryFolder() {
  std::string pattern = std::filesystem::temp_directory_path() / "cadre-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) {
    throw IoError("cannot make a folder like {}: {} (TMPDIR chooses another place)", pattern,
                  std::strerror(errno));
  }
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace cadre
