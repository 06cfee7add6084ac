#include "cadre/base/main.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <new>

#include "cadre/base/error.h"
#include "cadre/base/log.h"
#include "cadre/base/terminal.h"
#include "cadre/base/text.h"

namespace cadre {
namespace {

int report(std::string_view verb, std::string_view message, int exit_code) {
  std::fflush(stdout);
  clear_live_line(stderr);
  print_line(stderr, fmt::format("cadre {}: {}", verb, one_line(message)));
  return exit_code;
}

void flush_output() {
  std::cout.flush();
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0 || !std::cout) {
    throw IoError("cannot write to standard output: {}", std::strerror(errno));
  }
}

}  // namespace

int run_main(std::string_view verb, const std::function<int()>& body) {
  try {
    logger();  // a bad CADRE_LOG is reported before any work is done
    const int result = body();
    flush_output();
    return result;
  } catch (const Error& error) {
    return report(verb, error.what(), error.exit_code());
  } catch (const std::bad_alloc&) {
    return report(verb, "out of memory: use a smaller model or batch, or a bigger machine", 1);
  } catch (const std::exception& error) {
    const std::string_view message = error.what();
    return report(verb, message.substr(0, message.find('\n')), 1);
  } catch (...) {
    return report(verb, "an unknown exception", 1);
  }
}

}  // namespace cadre
