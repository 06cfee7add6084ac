#include "tools/data/debian_package.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "cadre/base/error.h"

namespace cadre {
namespace {

namespace fs = std::filesystem;

/// Runs a program in a folder, its output dropped. Throws IoError, ending with `hint`, when it
/// cannot be started or fails.
void run_program(std::vector<std::string> words, const fs::path& folder, const std::string& hint) {
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  pid_t pid = 0;
  const int failed = posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) throw IoError("cannot run {}: {}; {}", words[0], std::strerror(failed), hint);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (status == 0) return;
  throw IoError("{} failed; {}", fmt::format("{}", fmt::join(words, " ")), hint);
}

}  // namespace

fs::path fetch_package(const std::string& package, const fs::path& folder) {
  run_program({"apt-get", "download", package}, folder,
              "is there a network, and did `apt-get update` run?");
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".deb") return entry.path();
  }
  throw IoError("apt-get downloaded no file for {}", package);
}

void unpack_package(const fs::path& deb, const fs::path& folder) {
  run_program({"dpkg-deb", "--extract", fs::absolute(deb).string(), folder.string()}, "/",
              "is it a Debian package?");
}

}  // namespace cadre
