#pragma once

/// Runs the built programs as a user would, for tests of the command line.

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace cadre {

struct ProgramResult {
  int exit_code = 0;  ///< 128 + signal when it died of one
  std::string out, err;
  int64_t peak_resident_bytes = 0;  ///< the most it had in memory at a time
};

struct RunOptions {
  std::string input;           ///< for its standard input
  int64_t max_file_bytes = 0;  ///< RLIMIT_FSIZE: larger files fail as on a full disk; 0 = no limit
  std::vector<std::string> environment;  ///< "NAME=VALUE", added to ours
  std::string group;                     ///< cgroup.procs of the control group to run in; "" = ours
};

/// A program under way.
class Program {
 public:
  /// `arguments` go to `cadre` in the build's bin folder.
  explicit Program(const std::vector<std::string>& arguments, const RunOptions& options = {});
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void signal(int number) const;
  bool running();
  ProgramResult wait();

 private:
  void reap(int flags);

  std::filesystem::path folder_;
  pid_t pid_ = -1;
  int status_ = 0;
  int64_t peak_ = 0;
  bool ended_ = false;
};

inline ProgramResult run_cadre(const std::vector<std::string>& arguments,
                               const RunOptions& options = {}) {
  return Program(arguments, options).wait();
}

/// Lines of `text` that are not empty.
std::vector<std::string> lines_of(const std::string& text);

}  // namespace cadre
