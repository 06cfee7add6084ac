#include "cadre/formats/debian_domains.h"

#include <algorithm>
#include <cstdio>
#include <memory>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
#include "cadre/formats/gzip.h"

namespace cadre {

namespace fs = std::filesystem;

namespace {

constexpr const char* kBible = "usr/lib/bible.data";

std::string shell_quoted(const std::string& word) {
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

/// What a command prints. Its complaints are dropped: they come with an exit status or with no
/// output.
std::string output_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(
      ::popen((command + " </dev/null 2>/dev/null").c_str(), "re"), ::pclose);
  if (pipe == nullptr) throw IoError("cannot run {}", command);
  std::string output;
  char buffer[65536];
  while (const size_t got = std::fread(buffer, 1, sizeof(buffer), pipe.get())) {
    output.append(buffer, got);
  }
  return output;
}

/// The data is compressed in blocks of a format of its own, which only the program reads. A verse
/// is one line, "Ge1:1 In the beginning ...".
std::string print_bible(const fs::path& root) {
  const std::string printed =
      output_of(fmt::format("{} -p {} -f gen1:1-rev22:21", shell_quoted(root / "usr/bin/bible"),
                            shell_quoted(root / "usr/lib")));
  std::string text;
  for (size_t begin = 0; begin < printed.size();) {
    const size_t end = std::min(printed.find('\n', begin), printed.size());
    const std::string_view line = std::string_view(printed).substr(begin, end - begin);
    text += line.substr(std::min(line.find(' ') + 1, line.size()));
    text += '\n';
    begin = end + 1;
  }
  return text;
}

std::string with_replacements(std::string text) {
  std::string valid;
  std::string_view rest = text;
  for (int64_t bad = find_invalid_utf8(rest); bad >= 0; bad = find_invalid_utf8(rest)) {
    valid += rest.substr(0, static_cast<size_t>(bad));
    valid += utf8_of(0xFFFD);
    rest.remove_prefix(static_cast<size_t>(bad) + 1);
  }
  return valid.empty() ? std::move(text) : valid + std::string(rest);
}

/// Bytes worth opening another path of a domain for.
constexpr int64_t kLeastRoom = 4096;

void cut(std::string& text, int64_t max_bytes) {
  text.resize(utf8_boundary(text, static_cast<size_t>(std::max<int64_t>(max_bytes, 0))));
}

/// Adds the text of one path, at most `room` bytes of it.
void add_path(Domain& domain, const fs::path& root, const fs::path& path, int64_t room) {
  const fs::path full = root / path;
  std::string text;
  if (path == kBible) {
    text = print_bible(root);
  } else if (path.extension() == ".dz") {
    text = with_replacements(gunzip(MappedFile(full).text(), full.string(), room));
  } else {
    Domain part = read_domain(domain.name, full, {.max_bytes = room});
    std::move(part.documents.begin(), part.documents.end(), std::back_inserter(domain.documents));
    domain.left_out += part.left_out;
    return;
  }
  cut(text, room);
  if (!text.empty()) domain.documents.push_back(std::move(text));
}

}  // namespace

const std::vector<DebianDomain>& debian_domains() {
  static const std::vector<DebianDomain> domains = {
      {"code", "libstdc++-12-dev linux-libc-dev", {"usr/include/c++", "usr/include/linux"}},
      {"manual",
       "manpages manpages-dev",
       {"usr/share/man/man2", "usr/share/man/man3", "usr/share/man/man7"}},
      {"literature", "bible-kjv bible-kjv-text", {kBible}},
      {"dictionary", "dict-gcide", {"usr/share/dictd/gcide.dict.dz"}}};
  return domains;
}

Domain read_debian_domain(const DebianDomain& domain, const CorpusLimits& limits,
                          const fs::path& root) {
  Domain read{.name = domain.name, .documents = {}};
  std::error_code ignored;
  for (const fs::path& path : domain.paths) {
    const int64_t room = limits.max_bytes - read.bytes();
    // A rest of a few bytes would hold the head of a document and no text.
    if (!read.documents.empty() && room < kLeastRoom) break;
    if (!fs::exists(root / path, ignored)) continue;
    add_path(read, root, path, room);
  }
  if (read.documents.empty()) {
    std::string joined;
    for (const fs::path& path : domain.paths)
      joined += (joined.empty() ? "" : ", ") + path.string();
    throw UsageError(
        "domain '{}': no text in {} below {}; install the packages {} (a slim image leaves manual "
        "pages "
        "out: unpack them with apt-get download and dpkg-deb -x), or give your own text with "
        "--domain",
        domain.name, joined, root.string(), domain.packages);
  }
  return read;
}

}  // namespace cadre
