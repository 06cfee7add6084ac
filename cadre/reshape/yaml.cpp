#include "cadre/reshape/yaml.h"

#include <yaml-cpp/anchor.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <charconv>
#include <cmath>
#include <sstream>
#include <vector>

#include "cadre/base/error.h"
#include "cadre/base/text.h"
#include "cadre/formats/json.h"

namespace cadre::reshape {
namespace {

using nlohmann::json;

constexpr size_t kMaxDepth = 32;

template <typename Number>
bool reads_as(const std::string& text, Number& number) {
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const char* end = text.data() + text.size();
  const auto [after, error] = std::from_chars(begin, end, number);
  return error == std::errc() && after == end && begin != end;
}

json scalar(const std::string& text, const std::string& tag) {
  if (tag == "!" || tag == "!!str" || tag == "tag:yaml.org,2002:str") return text;  // quoted
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL")
    return nullptr;
  for (const char* yes : {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"})
    if (text == yes) return true;
  for (const char* no : {"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"})
    if (text == no) return false;
  int64_t integer = 0;
  if (reads_as(text, integer)) return integer;
  double number = 0;
  if (reads_as(text, number) && std::isfinite(number)) return number;
  return text;
}

/// Builds the value while the parser reads: nothing is kept twice and nothing recurses.
class Builder : public YAML::EventHandler {
 public:
  explicit Builder(const std::string& where) : where_(where) {}
  json take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override { put(mark, nullptr); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    fail(mark, "aliases are not supported");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                const std::string& text) override {
    if (!open_.empty() && open_.back()->is_object() && !has_key_.back()) {
      if (open_.back()->contains(text)) fail(mark, "key " + quote(text) + " stands twice");
      keys_.back() = text;
      has_key_.back() = true;
      return;
    }
    put(mark, scalar(text, tag));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    open(mark, json::array());
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    open(mark, json::object());
  }
  void OnMapEnd() override { close(); }

 private:
  [[noreturn]] void fail(const YAML::Mark& mark, const std::string& what) const {
    throw UsageError("{}:{}: {}", where_, mark.line + 1, what);
  }

  json* put(const YAML::Mark& mark, json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    if (!has_key_.back()) fail(mark, "a map's keys must be texts");
    has_key_.back() = false;
    return &(parent[keys_.back()] = std::move(value));
  }

  void open(const YAML::Mark& mark, json value) {
    if (open_.size() == kMaxDepth) fail(mark, "is nested too deeply");
    open_.push_back(put(mark, std::move(value)));
    keys_.emplace_back();
    has_key_.push_back(false);
  }
  void close() {
    open_.pop_back();
    keys_.pop_back();
    has_key_.pop_back();
  }

  const std::string where_;
  json root_;
  std::vector<json*> open_;  ///< pointers stay good: only the innermost grows
  std::vector<std::string> keys_;
  std::vector<bool> has_key_;
};

}  // namespace

json parse_yaml(std::string_view text, const std::string& where) {
  // Depth is checked before yaml-cpp's parser recurses too far: flow nesting shows in the brackets.
  size_t depth = 0;
  for (const char c : text) {
    if (c == '[' || c == '{') ++depth;
    if ((c == ']' || c == '}') && depth > 0) --depth;
    if (depth > 64 * kMaxDepth) throw UsageError("{}: is nested too deeply", where);
  }
  std::istringstream stream{std::string(text)};
  Builder builder(where);
  try {
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(builder)) throw UsageError("{}: is empty", where);
  } catch (const YAML::Exception& error) {
    throw UsageError("{}:{}: {}", where, error.mark.line + 1, one_line(error.msg));
  }
  return builder.take();
}

}  // namespace cadre::reshape
