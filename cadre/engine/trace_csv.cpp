#include "cadre/engine/trace_csv.h"

#include <charconv>
#include <map>
#include <string_view>
#include <tuple>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
#include "cadre/formats/gzip.h"

namespace cadre::engine {
namespace {

constexpr int64_t kMaxBytes = int64_t{1} << 30;

/// One data line.
struct Row {
  int64_t turn, phase, step, layer, slot, expert;
  double weight;
};

template <typename T>
T parse(std::string_view field, int64_t line) {
  T value{};
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (error != std::errc() || end != field.data() + field.size())
    throw FormatError("line {}: '{}' is not a number", line, field.substr(0, 20));
  return value;
}

std::string_view next_field(std::string_view& rest, int64_t line) {
  if (rest.data() == nullptr) throw FormatError("line {}: fewer than 7 fields", line);
  const size_t comma = rest.find(',');
  const std::string_view field = rest.substr(0, comma);
  rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
  return field;
}

Row parse_row(std::string_view text, int64_t line) {
  std::string_view rest = text;
  Row row{};
  for (int64_t* field : {&row.turn, &row.phase, &row.step, &row.layer, &row.slot, &row.expert})
    *field = parse<int64_t>(next_field(rest, line), line);
  row.weight = parse<double>(next_field(rest, line), line);
  return row;
}

/// The value of " key=NUMBER" in a comment; `otherwise` when it is not there.
int64_t comment_value(std::string_view text, std::string_view key, int64_t line,
                      int64_t otherwise) {
  const size_t at = text.find(key);
  if (at == std::string_view::npos) return otherwise;
  std::string_view value = text.substr(at + key.size());
  value = value.substr(0, value.find(' '));
  return parse<int64_t>(value, line);
}

class CsvTrace {
 public:
  void comment(std::string_view text, int64_t line) {
    trace_.layers = comment_value(text, " n_layer=", line, trace_.layers);
    trace_.experts = comment_value(text, " n_expert=", line, trace_.experts);
    trace_.used = comment_value(text, " n_expert_used=", line, trace_.used);
    trace_.expert_bytes = comment_value(text, " expert_bytes=", line, trace_.expert_bytes);
    if (const size_t at = text.find("model="); at != std::string_view::npos) {
      std::string_view name = text.substr(at + 6);
      name = name.substr(0, name.find(' '));
      trace_.model = name.substr(name.rfind('/') + 1);
    }
  }

  void add(const Row& row, int64_t line) {
    check_row(row, line);
    const int64_t at = (token_of(row) * trace_.layers + row.layer) * trace_.used + row.slot;
    trace_.chosen[at] = static_cast<int16_t>(row.expert);
    trace_.weights[at] = static_cast<float>(row.weight);
  }

  RouteTrace take() {
    if (trace_.passes.empty()) throw FormatError("no routes in it");
    return std::move(trace_);
  }

 private:
  void check_row(const Row& row, int64_t line) const {
    if (trace_.layers < 1 || trace_.layers > 4096 || trace_.experts < 1 || trace_.experts > 32767 ||
        trace_.used < 1 || trace_.used > trace_.experts)
      throw FormatError("line {}: no sound n_layer, n_expert, n_expert_used above it", line);
    if (row.layer < 0 || row.layer >= trace_.layers || row.expert < 0 ||
        row.expert >= trace_.experts || row.slot < 0 || row.slot >= trace_.used)
      throw FormatError("line {}: layer {}, slot {}, expert {} is outside of the model", line,
                        row.layer, row.slot, row.expert);
  }

  /// Prefill comes layer by layer, so that a token's lines are not together.
  int64_t token_of(const Row& row) {
    const auto [found, is_new] =
        tokens_.try_emplace(std::tuple{row.turn, row.phase, row.step}, trace_.size());
    if (!is_new) return found->second;
    const std::pair part{row.turn, row.phase};
    const bool same_pass = !trace_.passes.empty() && row.phase == 0 && part == part_;
    const int32_t pass = trace_.passes.empty() ? 0 : trace_.passes.back() + (same_pass ? 0 : 1);
    trace_.passes.push_back(pass);
    trace_.sequences.push_back(static_cast<int32_t>(row.turn));
    trace_.chosen.resize(trace_.size() * trace_.layers * trace_.used, -1);
    trace_.weights.resize(trace_.chosen.size(), 0);
    part_ = part;
    return found->second;
  }

  RouteTrace trace_;
  std::map<std::tuple<int64_t, int64_t, int64_t>, int64_t> tokens_;  ///< by turn, phase, step
  std::pair<int64_t, int64_t> part_;                                 ///< turn and phase of the last
};

}  // namespace

RouteTrace read_trace_csv(const std::filesystem::path& path) {
  std::string text = read_file(path);
  if (text.starts_with("\x1f\x8b")) text = gunzip(text, path.filename().string(), kMaxBytes);
  CsvTrace trace;
  std::string_view rest = text;
  for (int64_t line = 1; !rest.empty(); ++line) {
    const size_t end = rest.find('\n');
    std::string_view row = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    if (row.ends_with('\r')) row.remove_suffix(1);
    if (row.starts_with('#'))
      trace.comment(row, line);
    else if (!row.empty() && !row.starts_with("turn,"))
      trace.add(parse_row(row, line), line);
  }
  return trace.take();
}

}  // namespace cadre::engine
