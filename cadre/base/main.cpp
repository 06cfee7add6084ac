#include "cadre/base/main.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <new>

#include "cadre/base/error.h"

namespace cadre {
namespace {

int report(std::string_view verb, std::string_view message, int exit_code) {
  // Outside the standard allocator's way: the message of bad_alloc must still come out.
  std::fflush(stdout);
  std::fprintf(stderr, "cadre %.*s: %.*s\n", static_cast<int>(verb.size()), verb.data(),
               static_cast<int>(message.size()), message.data());
  return exit_code;
}

void flush_output() {
  std::cout.flush();
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0 || !std::cout) {
    throw IoError("cannot write to standard output: {}", std::strerror(errno));
  }
}

}  // namespace

std::string one_line(std::string_view message) {
  std::string line;
  for (const char c : message) {
    const bool control = static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    if (!control) {
      line += c;
    } else if (!line.empty() && line.back() != ' ') {
      line += ' ';
    }
  }
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line;
}

int run_main(std::string_view verb, const std::function<int()>& body) {
  try {
    const int result = body();
    flush_output();
    return result;
  } catch (const Error& error) {
    return report(verb, one_line(error.what()), error.exit_code());
  } catch (const std::bad_alloc&) {
    return report(verb, "out of memory: use a smaller model or batch, or a bigger machine", 1);
  } catch (const std::exception& error) {
    const std::string_view message = error.what();
    return report(verb, one_line(message.substr(0, message.find('\n'))), 1);
  } catch (...) {
    return report(verb, "an unknown exception", 1);
  }
}

}  // namespace cadre
