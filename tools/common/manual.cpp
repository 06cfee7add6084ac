#include "tools/common/manual.h"

#include <array>
#include <cstdio>
#include <filesystem>

#include "cadre/base/error.h"
#include "tools/common/verbs.h"

namespace cadre {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

std::string output_of(const std::string& command) {
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) throw Error("cannot run {}", command);
  std::string output;
  std::array<char, 4096> chunk;
  for (size_t n = 0; (n = fread(chunk.data(), 1, chunk.size(), pipe)) > 0;)
    output.append(chunk.data(), n);
  if (pclose(pipe) != 0) throw Error("{} failed", command);
  return output;
}

std::string quoted(const std::string& path) {
  std::string result = "'";
  for (const char c : path) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

/// man(7) text: a backslash, and a dot or quote that begins a line, would be markup.
std::string roff(const std::string& text) {
  std::string result;
  for (const char c : text) {
    const bool begins_line = result.empty() || result.back() == '\n';
    if (begins_line && (c == '.' || c == '\'')) result += "\\&";
    if (c == '\\')
      result += "\\e";
    else if (c == '-')
      result += "\\-";
    else
      result += c;
  }
  return result;
}

std::string joined(const Json& names) {
  std::string result;
  for (const auto& name : names) result += (result.empty() ? "" : ", ") + name.get<std::string>();
  return result;
}

std::string option_entry(const Json& option) {
  const std::string names = joined(option["names"]);
  const std::string label = names.empty() ? option["positional"].get<std::string>() : names;
  std::string entry = fmt::format(".TP\n.B {}\n", roff(label));
  const std::string type = option["type"];
  if (!names.empty() && !type.empty())
    entry = fmt::format(".TP\n\\fB{}\\fR \\fI{}\\fR\n", roff(label), roff(type));
  entry += roff(option["help"]);
  const std::string value = option["default"];
  if (!value.empty()) entry += fmt::format(" [{}]", roff(value));
  return entry + "\n";
}

std::string verb_section(const Json& verb, const std::string& parent) {
  const std::string name = parent + " " + verb["verb"].get<std::string>();
  std::string section = fmt::format(".SS {}\n{}.\n", roff(name), roff(verb["help"]));
  if (!verb["more"].get<std::string>().empty()) section += ".PP\n" + roff(verb["more"]) + "\n";
  for (const auto& option : verb["options"]) section += option_entry(option);
  for (const auto& sub : verb["subcommands"]) section += verb_section(sub, name);
  return section;
}

/// The option names of a verb and of its subcommands, and the subcommands' names.
void collect_words(const Json& verb, std::string& words) {
  for (const auto& option : verb["options"]) {
    for (const auto& name : option["names"]) words += name.get<std::string>() + " ";
  }
  for (const auto& sub : verb["subcommands"]) {
    words += sub["verb"].get<std::string>() + " ";
    collect_words(sub, words);
  }
}

}  // namespace

std::vector<Json> describe_verbs() {
  const fs::path folder = fs::read_symlink("/proc/self/exe").parent_path();
  std::vector<Json> verbs;
  for (const Verb& verb : kVerbs) {
    const fs::path program = folder / ("cadre-" + std::string(verb.name));
    if (!fs::exists(program)) continue;
    verbs.push_back(Json::parse(output_of(quoted(program) + " --help-json")));
  }
  return verbs;
}

std::string manual_page(const std::vector<Json>& verbs) {
  std::string page =
      ".TH CADRE 1 \"\" \"cadre " CADRE_VERSION
      "\" \"User Commands\"\n"
      ".SH NAME\ncadre \\- learn, reshape and run expert networks\n"
      ".SH SYNOPSIS\n.B cadre\n.I VERB\n.RI [ OPTIONS ]\n"
      ".SH DESCRIPTION\nTrains language models made of many experts on text that lies in "
      "domains, shows which expert works on what, and runs them.\n"
      ".SH VERBS\n";
  for (const auto& verb : verbs) page += verb_section(verb, "cadre");
  page +=
      ".SH EXIT STATUS\n0 on success, 2 for a mistake of the user's, 1 for one of the program's, "
      "130 when interrupted (the work is saved).\n";
  return page;
}

std::string bash_completion(const std::vector<Json>& verbs) {
  std::string names;
  std::string cases;
  for (const auto& verb : verbs) {
    std::string words;
    collect_words(verb, words);
    names += verb["verb"].get<std::string>() + " ";
    cases += fmt::format("    {}) words=\"{}\" ;;\n", verb["verb"].get<std::string>(), words);
  }
  return fmt::format(
      "# bash completion of cadre; made by `cadre completion`\n"
      "_cadre() {{\n"
      "  local current=\"${{COMP_WORDS[COMP_CWORD]}}\" words=\"\"\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
      "    COMPREPLY=($(compgen -W \"{}man completion --help --version\" -- \"$current\"))\n"
      "    return\n"
      "  fi\n"
      "  case \"${{COMP_WORDS[1]}}\" in\n{}  esac\n"
      "  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
      "  [[ \"$current\" == -* ]] || COMPREPLY+=($(compgen -f -- \"$current\"))\n"
      "}}\n"
      "complete -o filenames -F _cadre cadre\n",
      names, cases);
}

}  // namespace cadre
