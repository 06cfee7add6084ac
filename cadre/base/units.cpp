#include "cadre/base/units.h"

#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <span>

#include "cadre/base/error.h"

namespace cadre {
namespace {

struct Unit {
  std::string_view name;  ///< lower case
  double factor;
};

constexpr double kKi = 1024;
constexpr std::array<Unit, 14> kByteUnits = {{{"", 1},
                                              {"b", 1},
                                              {"k", kKi},
                                              {"kib", kKi},
                                              {"kb", 1e3},
                                              {"m", kKi* kKi},
                                              {"mib", kKi* kKi},
                                              {"mb", 1e6},
                                              {"g", kKi* kKi* kKi},
                                              {"gib", kKi* kKi* kKi},
                                              {"gb", 1e9},
                                              {"t", kKi* kKi* kKi* kKi},
                                              {"tib", kKi* kKi* kKi* kKi},
                                              {"tb", 1e12}}};
constexpr std::array<Unit, 6> kCountUnits = {
    {{"", 1}, {"k", 1e3}, {"m", 1e6}, {"g", 1e9}, {"b", 1e9}, {"t", 1e12}}};
constexpr std::array<Unit, 9> kTimeUnits = {{{"", 1},
                                             {"ms", 1e-3},
                                             {"s", 1},
                                             {"sec", 1},
                                             {"m", 60},
                                             {"min", 60},
                                             {"h", 3600},
                                             {"d", 86400},
                                             {"days", 86400}}};

void skip_spaces(std::string_view& text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
}

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::optional<double> factor_of(std::string_view name, std::span<const Unit> units) {
  std::string lower;
  for (const char c : name) lower += static_cast<char>(c | 0x20);
  for (const Unit& unit : units) {
    if (unit.name == lower) return unit.factor;
  }
  return std::nullopt;
}

// Takes one "number unit" off the front of `text`; nothing when there is none.
std::optional<double> take_quantity(std::string_view& text, std::span<const Unit> units) {
  skip_spaces(text);
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || !std::isfinite(number) || std::signbit(number)) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  skip_spaces(text);
  size_t letters = 0;
  while (letters < text.size() && is_letter(text[letters])) ++letters;
  const auto factor = factor_of(text.substr(0, letters), units);
  text.remove_prefix(letters);
  skip_spaces(text);
  if (!factor) return std::nullopt;
  return number * *factor;
}

// The whole of `text` as one quantity, a whole number below `limit`.
std::optional<double> whole_quantity(std::string_view text, std::span<const Unit> units,
                                     double limit) {
  auto value = take_quantity(text, units);
  if (!value || !text.empty() || *value >= limit) return std::nullopt;
  // 1.4M is 1399999.9999999998 in binary: that is meant to be whole.
  if (std::abs(*value - std::round(*value)) > 1e-9 * std::max(1.0, *value)) return std::nullopt;
  return std::round(*value);
}

// Three significant digits without trailing zeros: 1.25, 12.3, 123.
std::string three_digits(double value) {
  if (value >= 99.95) return fmt::format("{:.0f}", value);
  std::string text = fmt::format("{:.{}f}", value, value >= 9.995 ? 1 : 2);
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text;
}

template <size_t N>
std::string scaled(double value, double base, const std::array<std::string_view, N>& suffixes) {
  size_t scale = 0;
  // 999.5 would print as 1000 of the smaller unit.
  while (value >= base * 0.9995 && scale + 1 < N) {
    value /= base;
    ++scale;
  }
  return three_digits(value) + std::string(suffixes[scale]);
}

}  // namespace

uint64_t parse_bytes(std::string_view text) {
  const auto value = whole_quantity(text, kByteUnits, 0x1p64);
  if (!value) throw UsageError("'{}' is not a size in bytes: write it like 512MiB or 2GB", text);
  return static_cast<uint64_t>(*value);
}

std::string format_bytes(uint64_t bytes) {
  static constexpr std::array<std::string_view, 7> kSuffixes = {" B",   " KiB", " MiB", " GiB",
                                                                " TiB", " PiB", " EiB"};
  return scaled(static_cast<double>(bytes), kKi, kSuffixes);
}

int64_t parse_count(std::string_view text) {
  const auto value = whole_quantity(text, kCountUnits, 0x1p63);
  if (!value) throw UsageError("'{}' is not a whole count: write it like 1000, 12k or 1.4M", text);
  return static_cast<int64_t>(*value);
}

std::string format_count(double count) {
  static constexpr std::array<std::string_view, 5> kSuffixes = {"", "k", "M", "G", "T"};
  if (!std::isfinite(count)) return "?";
  if (count < 0) return "-" + format_count(-count);
  return scaled(count, 1000, kSuffixes);
}

double parse_duration(std::string_view text) {
  std::string_view rest = text;
  double seconds = 0;
  do {
    const auto value = take_quantity(rest, kTimeUnits);
    if (!value) throw UsageError("'{}' is not a duration: write it like 90s, 4min or 1h30m", text);
    seconds += *value;
  } while (!rest.empty());
  return seconds;
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e15) return "?";
  if (seconds < 0.9995) return three_digits(seconds * 1e3) + " ms";
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<int64_t>(std::round(seconds));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  if (whole < 86400) return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
  return fmt::format("{} d {} h", whole / 86400, whole % 86400 / 3600);
}

}  // namespace cadre
