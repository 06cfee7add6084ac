#include "cadre/formats/json.h"

#include <unordered_set>
#include <vector>

#include "cadre/base/error.h"

namespace cadre {

namespace {

constexpr int kMaxDepth = 64;

/// Sees every event of the parser, and objects to depth and repeated keys.
class Guard {
 public:
  explicit Guard(const std::string& where) : where_(where) {}

  bool operator()(int depth, nlohmann::json::parse_event_t event, const nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (depth > kMaxDepth) {
      throw FormatError("{}: JSON nested deeper than {} levels", where_, kMaxDepth);
    }
    if (event == Event::object_start) keys_.emplace_back();
    if (event == Event::object_end) keys_.pop_back();
    if (event == Event::key && !keys_.back().insert(parsed.get_ref<const std::string&>()).second) {
      throw FormatError("{}: key {} is there twice", where_, parsed.dump());
    }
    return true;
  }

 private:
  const std::string& where_;
  std::vector<std::unordered_set<std::string>> keys_;
};

}  // namespace

nlohmann::json parse_json(std::string_view text, const std::string& where) {
  Guard guard(where);
  try {
    return nlohmann::json::parse(text.begin(), text.end(), std::ref(guard));
  } catch (const nlohmann::json::parse_error& error) {
    throw FormatError("{}: broken JSON at byte {}", where, error.byte);
  } catch (const nlohmann::json::exception& error) {
    throw FormatError("{}: broken JSON: {}", where, error.what());
  }
}

std::string quote(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace cadre
