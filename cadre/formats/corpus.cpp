#include "cadre/formats/corpus.h"

#include <algorithm>
#include <numeric>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
#include "cadre/formats/gzip.h"
#include "cadre/formats/roff.h"

namespace cadre {

namespace fs = std::filesystem;

namespace {

bool is_packed(const fs::path& path) {
  return path.extension() == ".gz" || path.extension() == ".dz";
}

/// man3/printf.3.gz, man3/printf.3 and man3/printf.3posix, but not man3/README.
bool is_manual_page(const fs::path& path) {
  const std::string folder = path.parent_path().filename().string();
  const std::string section =
      is_packed(path) ? path.stem().extension().string() : path.extension().string();
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  return folder.size() >= 4 && folder.starts_with("man") && is_digit(folder[3]) &&
         section.size() >= 2 && is_digit(section[1]);
}

/// The text of one file, cut after about `max_bytes`. Throws UsageError when it is no text.
std::string read_text(const fs::path& path, int64_t max_bytes) {
  const MappedFile file(path);
  std::string text;
  if (is_packed(path)) {
    text = gunzip(file.text(), path.string(), max_bytes + 1);
  } else {
    text = file.text().substr(0, static_cast<size_t>(max_bytes) + 1);
  }
  if (static_cast<int64_t>(text.size()) > max_bytes) {
    text.resize(utf8_boundary(text, static_cast<size_t>(max_bytes)));
  }
  if (const size_t nul = text.find('\0'); nul != text.npos) {
    throw UsageError("{}: binary file (a NUL byte at offset {}), text is needed", path.string(),
                     nul);
  }
  if (const int64_t offset = find_invalid_utf8(text); offset >= 0) {
    throw UsageError("{}: invalid UTF-8 at byte {}; convert it, e.g. with iconv", path.string(),
                     offset);
  }
  return is_manual_page(path) ? strip_roff(text) : text;
}

std::vector<fs::path> sorted_files(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, fs::directory_options::skip_permission_denied,
                                              error);
       !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    std::error_code ignored;
    if (fs::is_regular_file(entry->symlink_status(ignored))) files.push_back(entry->path());
  }
  if (error) throw IoError("cannot read folder {}: {}", folder.string(), error.message());
  std::sort(files.begin(), files.end());
  return files;
}

constexpr int64_t kWidestCharacter = 4;  // with less room a document may be cut to nothing

void read_folder(const fs::path& folder, const CorpusLimits& limits, Domain& domain) {
  int64_t room = limits.max_bytes;
  for (const fs::path& file : sorted_files(folder)) {
    if (room < kWidestCharacter) break;
    try {
      std::string text = read_text(file, room);
      if (text.empty()) continue;
      room -= static_cast<int64_t>(text.size());
      domain.documents.push_back(std::move(text));
    } catch (const UsageError&) {
      ++domain.left_out;
    }
  }
}

}  // namespace

int64_t Domain::bytes() const {
  return std::accumulate(
      documents.begin(), documents.end(), int64_t{0},
      [](int64_t sum, const std::string& text) { return sum + static_cast<int64_t>(text.size()); });
}

Domain read_domain(const std::string& name, const fs::path& path, const CorpusLimits& limits) {
  Domain domain{.name = name, .documents = {}};
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    read_folder(path, limits, domain);
  } else {
    domain.documents.push_back(read_text(path, limits.max_bytes));
  }
  if (domain.bytes() == 0) {
    throw UsageError(
        "domain '{}': no text in {} ({} files left out as binary, not UTF-8 or unreadable)", name,
        path.string(), domain.left_out);
  }
  return domain;
}

std::pair<std::string, fs::path> parse_domain_option(const std::string& option) {
  const size_t equals = option.find('=');
  if (equals == option.npos || equals == 0 || equals + 1 == option.size()) {
    throw UsageError("domain '{}': expected NAME=PATH", option);
  }
  const std::string name = option.substr(0, equals);
  const auto is_usable = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
           c == '_' || c == '-';
  };
  if (name[0] == '.' || !std::all_of(name.begin(), name.end(), is_usable)) {
    throw UsageError("domain name '{}': use letters, digits, '_', '-' and '.', not '.' first",
                     name);
  }
  return {name, option.substr(equals + 1)};
}

HeldOutSplit split_held_out(std::span<const std::string> documents, int64_t block_bytes,
                            int64_t every) {
  if (block_bytes < 4) throw UsageError("held-out blocks of {} bytes: at least 4", block_bytes);
  if (every < 2) throw UsageError("every {}th block held out: at least every 2nd", every);
  HeldOutSplit split;
  int64_t position = 0;  // of the document's begin in the stream
  for (const std::string_view text : documents) {
    for (size_t begin = 0; begin < text.size();) {
      const int64_t block = (position + static_cast<int64_t>(begin)) / block_bytes;
      const bool held_out = block % every == every - 1;
      // The next block where the other part begins.
      const int64_t next = held_out ? block + 1 : block / every * every + every - 1;
      const size_t cut = std::min(static_cast<size_t>(next * block_bytes - position), text.size());
      size_t end = utf8_boundary(text, cut);
      // A character across the cut stays whole, in the earlier piece.
      if (end < cut) end = std::max(cut, end + utf8_length(text.substr(end)));
      (held_out ? split.validation : split.training).push_back(text.substr(begin, end - begin));
      begin = end;
    }
    position += static_cast<int64_t>(text.size());
  }
  return split;
}

}  // namespace cadre
