#include "tests/cli/run_program.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "cadre/base/error.h"

namespace cadre {
namespace {

namespace fs = std::filesystem;

std::string content_of(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

fs::path fresh_folder() {
  std::string name = fs::temp_directory_path() / "cadre-cli-XXXXXX";
  if (mkdtemp(name.data()) == nullptr) throw IoError("cannot make {}", name);
  return name;
}

void redirect(int descriptor, const fs::path& path, int flags) {
  const int file = open(path.c_str(), flags, 0600);
  if (file < 0 || dup2(file, descriptor) < 0) _exit(126);
}

/// In the child: files instead of our streams, limits, then the program.
[[noreturn]] void become(const std::vector<std::string>& arguments, const RunOptions& options,
                         const fs::path& folder) {
  redirect(0, folder / "in", O_RDONLY);
  redirect(1, folder / "out", O_WRONLY | O_CREAT);
  redirect(2, folder / "err", O_WRONLY | O_CREAT);
  if (options.max_file_bytes > 0) {
    const rlimit limit{static_cast<rlim_t>(options.max_file_bytes),
                       static_cast<rlim_t>(options.max_file_bytes)};
    setrlimit(RLIMIT_FSIZE, &limit);
    ::signal(SIGXFSZ,
             SIG_IGN);  // write() then fails with EFBIG, as it does with ENOSPC on a full disk
  }
  if (!options.group.empty()) std::ofstream(options.group) << getpid() << std::flush;
  setenv("XDG_CACHE_HOME", (folder / "cache").c_str(), 1);  // tests leave nothing behind
  for (const auto& variable : options.environment) putenv(const_cast<char*>(variable.c_str()));
  const std::string program = CADRE_BIN_DIR "/cadre";
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  _exit(127);
}

}  // namespace

Program::Program(const std::vector<std::string>& arguments, const RunOptions& options)
    : folder_(fresh_folder()) {
  std::ofstream(folder_ / "in", std::ios::binary) << options.input;
  pid_ = fork();
  if (pid_ < 0) throw IoError("cannot fork");
  if (pid_ == 0) become(arguments, options, folder_);
}

Program::~Program() {
  if (!ended_) {
    signal(SIGKILL);
    waitpid(pid_, &status_, 0);
  }
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

void Program::signal(int number) const { kill(pid_, number); }

void Program::reap(int flags) {
  rusage usage{};
  if (!ended_) ended_ = wait4(pid_, &status_, flags, &usage) == pid_;
  if (ended_) peak_ = std::max(peak_, int64_t{usage.ru_maxrss} * 1024);
}

bool Program::running() {
  reap(WNOHANG);
  return !ended_;
}

ProgramResult Program::wait() {
  reap(0);
  const int code = WIFSIGNALED(status_) ? 128 + WTERMSIG(status_) : WEXITSTATUS(status_);
  return {.exit_code = code,
          .out = content_of(folder_ / "out"),
          .err = content_of(folder_ / "err"),
          .peak_resident_bytes = peak_};
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

}  // namespace cadre
