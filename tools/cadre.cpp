/// `cadre VERB ...`: finds the program cadre-VERB and becomes it, so that no verb pays for
/// another's libraries.

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "tools/common/manual.h"
#include "tools/common/verbs.h"

namespace {

using cadre::kVerbs;
namespace fs = std::filesystem;

void print_help() {
  std::cout
      << "cadre: learn, reshape and run expert networks\n\nUsage: cadre VERB [OPTIONS]\n\nVerbs:\n";
  for (const auto& verb : kVerbs) std::cout << fmt::format("  {:<12} {}\n", verb.name, verb.help);
  std::cout << "\n  man          print the manual page (cadre man | man -l -)\n"
               "  completion   print the bash completion (source <(cadre completion))\n"
               "\ncadre VERB --help explains a verb; cadre --version prints the version.\n";
}

[[noreturn]] void become(const std::string& program, char** argv) {
  const fs::path beside = fs::read_symlink("/proc/self/exe").parent_path() / program;
  std::string name = program;
  argv[0] = name.data();
  if (fs::exists(beside))
    execv(beside.c_str(), argv);
  else
    execvp(program.c_str(), argv);
  throw cadre::Error("cannot run {}: {} (is cadre installed completely?)", program,
                     std::strerror(errno));
}

int run(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  if (verb.empty()) {
    print_help();
    return 2;
  }
  if (verb == "--help" || verb == "-h" || verb == "help") {
    print_help();
  } else if (verb == "--version") {
    std::cout << "cadre " CADRE_VERSION "\n";
  } else if (verb == "man") {
    std::cout << cadre::manual_page(cadre::describe_verbs());
  } else if (verb == "completion") {
    std::cout << cadre::bash_completion(cadre::describe_verbs());
  } else {
    become("cadre-" + std::string(cadre::verb_named(verb).name), argv + 1);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  return cadre::run_main(verb, [&] { return run(argc, argv); });
}
