#include "cadre/training/metrics_log.h"

#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <system_error>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"

namespace cadre {
namespace {

bool belongs(std::string_view line, int64_t last_step) {
  const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return false;
  const auto step = json.find("step");
  return step != json.end() && step->is_number_integer() && step->get<int64_t>() <= last_step;
}

std::string kept_lines(std::string_view text, int64_t last_step) {
  std::string kept;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string_view::npos) break;
    if (belongs(text.substr(begin, end - begin), last_step)) {
      kept += text.substr(begin, end + 1 - begin);
    }
    begin = end + 1;
  }
  return kept;
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& path, int64_t last_step) : path_(path) {
  if (std::filesystem::exists(path)) {
    const std::string text = read_file(path);
    const std::string kept = kept_lines(text, last_step);
    if (kept.size() != text.size()) write_file(path, kept);
  }
  file_.reset(std::fopen(path.c_str(), "a"));
  if (!file_) fail();
}

void MetricsLog::append(const nlohmann::json& line) {
  const std::string text = line.dump() + "\n";
  if (std::fwrite(text.data(), 1, text.size(), file_.get()) != text.size()) fail();
}

void MetricsLog::sync() {
  if (std::fflush(file_.get()) != 0 || ::fsync(::fileno(file_.get())) != 0) fail();
}

void MetricsLog::fail() const {
  throw IoError("cannot write {}: {}", path_.string(), std::generic_category().message(errno));
}

}  // namespace cadre
