#include "cadre/formats/roff_escapes.h"

#include <algorithm>
#include <charconv>
#include <unordered_map>

#include "cadre/formats/utf8.h"

namespace cadre {

namespace {

/// What groff_char(7) calls special characters, as far as manual pages use them.
const std::unordered_map<std::string_view, std::string_view>& special_characters() {
  static const std::unordered_map<std::string_view, std::string_view> table = {
      {"bu", "•"}, {"em", "—"},  {"en", "–"}, {"hy", "-"},  {"mi", "-"}, {"lq", "“"}, {"rq", "”"},
      {"oq", "‘"}, {"cq", "’"},  {"aq", "'"}, {"dq", "\""}, {"ga", "`"}, {"aa", "´"}, {"ha", "^"},
      {"ti", "~"}, {"rs", "\\"}, {"sl", "/"}, {"or", "|"},  {"ba", "|"}, {"bv", "|"}, {"br", "|"},
      {"lB", "["}, {"rB", "]"},  {"lC", "{"}, {"rC", "}"},  {"la", "⟨"}, {"ra", "⟩"}, {"at", "@"},
      {"sh", "#"}, {"Do", "$"},  {"ct", "¢"}, {"Eu", "€"},  {"Po", "£"}, {"Ye", "¥"}, {"co", "©"},
      {"rg", "®"}, {"tm", "™"},  {"de", "°"}, {"sc", "§"},  {"ps", "¶"}, {"dg", "†"}, {"dd", "‡"},
      {"pl", "+"}, {"eq", "="},  {"mu", "×"}, {"di", "÷"},  {"+-", "±"}, {"<=", "≤"}, {">=", "≥"},
      {"!=", "≠"}, {"==", "≡"},  {"~~", "≈"}, {"->", "→"},  {"<-", "←"}, {"ua", "↑"}, {"da", "↓"},
      {"rA", "⇒"}, {"if", "∞"},  {"mo", "∈"}, {"pd", "∂"},  {"sr", "√"}, {"**", "*"}, {"ul", "_"},
      {"Fo", "«"}, {"Fc", "»"},  {"mc", "µ"}, {"12", "½"},  {"14", "¼"}, {"34", "¾"}, {"S1", "¹"},
      {"S2", "²"}, {"S3", "³"},  {"ss", "ß"}, {"AE", "Æ"},  {"ae", "æ"}, {"O/", "Ø"}, {"o/", "ø"},
      {"oa", "å"}, {"oA", "Å"},  {",c", "ç"}, {"~n", "ñ"},  {":a", "ä"}, {":A", "Ä"}, {":o", "ö"},
      {":O", "Ö"}, {":u", "ü"},  {":U", "Ü"}, {":e", "ë"},  {":i", "ï"}, {"'a", "á"}, {"'e", "é"},
      {"'i", "í"}, {"'o", "ó"},  {"'u", "ú"}, {"`a", "à"},  {"`e", "è"}, {"^a", "â"}, {"^e", "ê"},
      {"^i", "î"}, {"^o", "ô"},  {"^u", "û"}, {"*a", "α"},  {"*b", "β"}, {"*g", "γ"}, {"*d", "δ"},
      {"*e", "ε"}, {"*h", "θ"},  {"*l", "λ"}, {"*m", "μ"},  {"*p", "π"}, {"*s", "σ"}, {"*t", "τ"},
      {"*f", "φ"}, {"*w", "ω"},  {"*W", "Ω"}, {"*D", "Δ"},  {"*S", "Σ"}};
  return table;
}

/// Strings (\*X) that the man macros or pod2man's preamble define.
std::string_view predefined_string(std::string_view name) {
  static const std::unordered_map<std::string_view, std::string_view> table = {
      {"lq", "“"},   {"rq", "”"},   {"R", "®"},  {"Tm", "™"}, {"--", "-"},
      {"L\"", "\""}, {"R\"", "\""}, {"C'", "'"}, {"C`", "`"}, {"PI", "π"}};
  const auto found = table.find(name);
  return found == table.end() ? std::string_view() : found->second;
}

/// "uXXXX" as its character; anything else is looked up.
std::string special_character(std::string_view name) {
  const auto found = special_characters().find(name);
  if (found != special_characters().end()) return std::string(found->second);
  uint32_t code = 0;
  if (name.size() < 5 || name[0] != 'u') return {};
  const auto [end, error] = std::from_chars(name.data() + 1, name.data() + name.size(), code, 16);
  return error == std::errc() && end == name.data() + name.size() ? utf8_of(code) : std::string();
}

class Unescaper {
 public:
  explicit Unescaper(std::string_view line) : rest_(line) {}

  RoffText run() {
    while (!rest_.empty()) {
      const size_t plain = std::min(rest_.find('\\'), rest_.size());
      result_.text.append(rest_.substr(0, plain));
      rest_.remove_prefix(plain);
      if (!rest_.empty()) escape();
    }
    return std::move(result_);
  }

 private:
  /// The next character, whole, so that dropping it leaves valid UTF-8.
  std::string_view take() {
    const std::string_view character = rest_.substr(0, utf8_length(rest_));
    rest_.remove_prefix(character.size());
    return character;
  }

  std::string_view take_until(std::string_view delimiter) {
    const size_t end = delimiter.empty() ? rest_.npos : rest_.find(delimiter);
    const std::string_view inside = rest_.substr(0, end);
    rest_.remove_prefix(std::min(rest_.size(), inside.size() + delimiter.size()));
    return inside;
  }

  std::string_view take_two() {
    const std::string_view both = rest_;
    const size_t size = take().size() + take().size();
    return both.substr(0, size);
  }

  /// The three ways to give a name: X, (XX, [any].
  std::string_view take_name() {
    const std::string_view first = take();
    if (first == "(") return take_two();
    if (first == "[") return take_until("]");
    return first;
  }

  void take_size() {
    if (rest_.starts_with('+') || rest_.starts_with('-')) take();
    if (rest_.starts_with('\'')) {
      take();
      take_until("'");
      return;
    }
    const std::string_view name = take_name();
    const bool two_digits = name.size() == 1 && name[0] >= '1' && name[0] <= '3';
    if (two_digits && !rest_.empty() && rest_[0] >= '0' && rest_[0] <= '9') take();
  }

  void numbered_character(std::string_view digits) {
    uint32_t code = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), code);
    if (code >= ' ') result_.text += utf8_of(code);
  }

  void escape() {
    take();
    const std::string_view what = take();
    if (what.empty()) return;
    switch (what[0]) {
      case '"':
      case '#':
        rest_ = {};
        break;
      case '-':
        result_.text += '-';
        break;
      case 'e':
      case 'E':
      case '\\':
        result_.text += '\\';
        break;
      case ' ':
      case '~':
      case '0':
        result_.text += ' ';
        break;
      case 't':
        result_.text += '\t';
        break;
      case 'c':
        result_.continues = true;
        break;
      case '(':
        result_.text += special_character(take_two());
        break;
      case '[':
        result_.text += special_character(take_until("]"));
        break;
      case '*':
        result_.text += predefined_string(take_name());
        break;
      case 'C':
        result_.text += special_character(take_until(take()));
        break;
      case 'N':
        numbered_character(take_until(take()));
        break;
      case 's':
        take_size();
        break;
      case '$':
        take();
        break;
      default:
        escape_without_text(what);
    }
  }

  /// Fonts, motions, registers and marks leave nothing behind; an unknown escape is its own
  /// character.
  void escape_without_text(std::string_view what) {
    constexpr std::string_view kNamed = "fFmMkgYVn", kDelimited = "ABbDHhLloRSvwXxZ";
    constexpr std::string_view kAlone = "&|^%:/,)!?{}duprazi";
    if (kNamed.find(what[0]) != kNamed.npos) {
      take_register(what[0]);
    } else if (kDelimited.find(what[0]) != kDelimited.npos) {
      take_until(take());
    } else if (kAlone.find(what[0]) == kAlone.npos) {
      result_.text += what;
    }
  }

  /// \n may carry a sign; the rest have a plain name.
  void take_register(char kind) {
    if (kind == 'n' && (rest_.starts_with('+') || rest_.starts_with('-'))) take();
    take_name();
  }

  std::string_view rest_;
  RoffText result_;
};

}  // namespace

RoffText unescape_roff(std::string_view line) { return Unescaper(line).run(); }

std::string_view without_roff_comment(std::string_view line) {
  for (size_t at = line.find('\\'); at != line.npos && at + 1 < line.size();
       at = line.find('\\', at + 2)) {
    if (line[at + 1] == '"' || line[at + 1] == '#') return line.substr(0, at);
  }
  return line;
}

}  // namespace cadre
