#pragma once

/// The one family of exceptions. A message says what was wrong, where, and what to do, in one line;
/// a command prints that line and exits with `exit_code()`.

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace cadre {

/// Base of every exception cadre throws. Use it directly for faults of ours (exit code 1).
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message) : std::runtime_error(message) {}

  template <typename... Args>
  explicit Error(fmt::format_string<Args...> format, Args&&... args)
      : std::runtime_error(fmt::format(format, std::forward<Args>(args)...)) {}

  /// What a program that dies of this error returns: 2 for the user's mistakes, 1 for ours.
  virtual int exit_code() const noexcept { return 1; }
};

/// The user asked for something impossible: a bad option, an unfit combination, an empty input.
class UsageError : public Error {
 public:
  using Error::Error;
  int exit_code() const noexcept override { return 2; }
};

/// A file's content is not what its format promises: truncated, hostile, corrupt.
class FormatError : public UsageError {
 public:
  using UsageError::UsageError;
};

/// The operating system refused: missing file, no permission, full disk. Carries the system's
/// reason.
class IoError : public UsageError {
 public:
  using UsageError::UsageError;
};

}  // namespace cadre
