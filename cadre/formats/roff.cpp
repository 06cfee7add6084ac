#include "cadre/formats/roff.h"

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "cadre/formats/roff_escapes.h"

namespace cadre {

namespace {

/// What a macro does to the text a reader sees.
enum class Effect {
  kDrop,         ///< layout only: nothing of it is seen
  kWords,        ///< its arguments are text, with spaces between
  kAlternating,  ///< its arguments are text in alternating fonts, without spaces between
  kHeading,      ///< its arguments make a line of their own
  kParagraph,    ///< a blank line
  kTag,          ///< a new paragraph whose first line is a tag
  kItem,         ///< a new paragraph whose first argument is a tag
  kBreak,        ///< a new line
  kNoFill,       ///< the lines that follow keep their breaks
  kFill,         ///< the lines that follow flow together
  kTable,        ///< a tbl(1) table begins
  kTableEnd,
  kConditional,  ///< text for some output devices only; may span lines in braces
  kSkip,         ///< drop everything up to the macro's end mark
};

const std::unordered_map<std::string_view, Effect>& effects() {
  using enum Effect;
  static const std::unordered_map<std::string_view, Effect> table = {
      {"B", kWords},        {"I", kWords},        {"SM", kWords},       {"SB", kWords},
      {"R", kWords},        {"UR", kWords},       {"MT", kWords},       {"SY", kWords},
      {"OP", kWords},       {"BR", kAlternating}, {"RB", kAlternating}, {"BI", kAlternating},
      {"IB", kAlternating}, {"IR", kAlternating}, {"RI", kAlternating}, {"SH", kHeading},
      {"SS", kHeading},     {"Sh", kHeading},     {"Ss", kHeading},     {"PP", kParagraph},
      {"P", kParagraph},    {"LP", kParagraph},   {"Pp", kParagraph},   {"sp", kParagraph},
      {"Sp", kParagraph},   {"HP", kParagraph},   {"TP", kTag},         {"TQ", kTag},
      {"IP", kItem},        {"It", kItem},        {"br", kBreak},       {"RS", kBreak},
      {"RE", kBreak},       {"in", kBreak},       {"YS", kBreak},       {"nf", kNoFill},
      {"EX", kNoFill},      {"Vb", kNoFill},      {"Bd", kNoFill},      {"fi", kFill},
      {"EE", kFill},        {"Ve", kFill},        {"Ed", kFill},        {"TS", kTable},
      {"TE", kTableEnd},    {"if", kConditional}, {"ie", kConditional}, {"el", kConditional},
      {"de", kSkip},        {"de1", kSkip},       {"am", kSkip},        {"ig", kSkip},
      {"EQ", kSkip},        {"PS", kSkip},        {"TH", kDrop},        {"PD", kDrop},
      {"IX", kDrop},        {"UE", kDrop},        {"ME", kDrop},        {"TA", kDrop},
      {"Dd", kDrop},        {"Dt", kDrop},        {"Os", kDrop},        {"Bl", kDrop},
      {"El", kDrop},        {"Bk", kDrop},        {"Ek", kDrop}};
  return table;
}

/// Requests of the formatter are lower case; an unknown macro with capitals is mdoc's or the page's
/// own and mostly wraps text.
Effect effect_of(std::string_view macro) {
  const auto found = effects().find(macro);
  if (found != effects().end()) return found->second;
  const bool capital = !macro.empty() && macro[0] >= 'A' && macro[0] <= 'Z';
  return capital ? Effect::kWords : Effect::kDrop;
}

std::string_view end_mark_of(std::string_view macro) {
  if (macro == "EQ") return ".EN";
  if (macro == "PS") return ".PE";
  return "..";
}

/// Splits a macro's arguments: spaces separate, double quotes join, "" inside quotes is one quote.
std::vector<std::string> arguments_of(std::string_view text) {
  std::vector<std::string> arguments;
  size_t at = 0;
  while (true) {
    while (at < text.size() && (text[at] == ' ' || text[at] == '\t')) ++at;
    if (at == text.size()) return arguments;
    const bool in_quotes = text[at] == '"';
    if (in_quotes) ++at;
    std::string argument;
    for (; at < text.size(); ++at) {
      if (in_quotes && text[at] == '"') {
        if (text.substr(at, 2) != "\"\"") break;
        ++at;
      } else if (!in_quotes && (text[at] == ' ' || text[at] == '\t')) {
        break;
      } else if (text[at] == '\\' && at + 1 < text.size()) {
        argument += text[at++];
      }
      argument += text[at];
    }
    if (at < text.size()) ++at;
    arguments.push_back(std::move(argument));
  }
}

int count(std::string_view text, std::string_view what) {
  int found = 0;
  for (size_t at = text.find(what); at != text.npos; at = text.find(what, at + what.size()))
    ++found;
  return found;
}

/// The text under way: flows lines into paragraphs, or keeps them.
class Page {
 public:
  void add(const RoffText& piece) {
    if (piece.text.empty() && !piece.continues) return;
    if (fills_ && !line_.empty() && !joins_) line_ += ' ';
    line_ += piece.text;
    joins_ = piece.continues;
    if (!fills_ && !joins_) end_line();
  }

  void end_line() {
    while (!line_.empty() && (line_.back() == ' ' || line_.back() == '\t')) line_.pop_back();
    if (!line_.empty()) text_ += line_ + '\n';
    line_.clear();
    joins_ = false;
  }

  void blank_line() {
    end_line();
    if (!text_.empty() && !text_.ends_with("\n\n")) text_ += '\n';
  }

  void set_fill(bool fills) {
    end_line();
    fills_ = fills;
  }

  std::string take() {
    end_line();
    while (text_.ends_with("\n\n")) text_.pop_back();
    return std::move(text_);
  }

 private:
  std::string text_, line_;
  bool fills_ = true, joins_ = false;
};

class Stripper {
 public:
  std::string run(std::string_view page) {
    while (!page.empty()) handle(next_line(page));
    return page_.take();
  }

 private:
  /// One logical line: a backslash at the end joins the next one.
  static std::string next_line(std::string_view& page) {
    std::string line;
    while (!page.empty()) {
      const size_t end = std::min(page.find('\n'), page.size());
      line += page.substr(0, end);
      page.remove_prefix(std::min(end + 1, page.size()));
      const size_t slashes = line.size() - std::min(line.find_last_not_of('\\') + 1, line.size());
      if (slashes % 2 == 0) break;
      line.pop_back();
    }
    return line;
  }

  void handle(const std::string& line) {
    if (!skip_until_.empty()) {
      if (line.starts_with(skip_until_)) skip_until_ = {};
    } else if (open_braces_ > 0) {
      open_braces_ += count(line, "\\{") - count(line, "\\}");
    } else if (in_table_ && !line.starts_with(".TE")) {
      table_line(line);
    } else if (line.starts_with('.') || line.starts_with('\'')) {
      control_line(std::string_view(line).substr(1));
    } else if (line.empty()) {
      page_.blank_line();
    } else {
      show(unescape_roff(line));
    }
  }

  void control_line(std::string_view line) {
    line = without_roff_comment(line);
    line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
    const std::string_view macro = line.substr(0, line.find_first_of(" \t\\"));
    apply(macro, line.substr(macro.size()));
  }

  void apply(std::string_view macro, std::string_view rest) {
    using enum Effect;
    switch (effect_of(macro)) {
      case kDrop:
        break;
      case kWords:
        words(macro, arguments_of(rest));
        break;
      case kAlternating:
        show(unescape_roff(join(arguments_of(rest), "")));
        break;
      case kHeading:
        heading(arguments_of(rest));
        break;
      case kParagraph:
        page_.blank_line();
        break;
      case kTag:
        begin_tag(macro);
        break;
      case kItem:
        item(arguments_of(rest));
        break;
      case kBreak:
        page_.end_line();
        break;
      case kNoFill:
        page_.set_fill(false);
        break;
      case kFill:
        page_.set_fill(true);
        break;
      case kTable:
        begin_table();
        break;
      case kTableEnd:
        in_table_ = false;
        break;
      case kConditional:
        open_braces_ = std::max(0, count(rest, "\\{") - count(rest, "\\}"));
        break;
      case kSkip:
        skip_until_ = end_mark_of(macro);
        break;
    }
  }

  static std::string join(const std::vector<std::string>& parts, std::string_view between) {
    std::string all;
    for (const std::string& part : parts) all += (all.empty() ? "" : std::string(between)) + part;
    return all;
  }

  /// Text of the page; the first after .TP is its tag.
  void show(const RoffText& text) {
    page_.add(text);
    if (!tag_follows_ || text.text.empty()) return;
    tag_follows_ = false;
    if (text.text != "•" && text.text != "*" && text.text != "-") page_.end_line();
  }

  void heading(const std::vector<std::string>& arguments) {
    tag_follows_ = false;
    page_.set_fill(true);
    page_.blank_line();
    page_.add(unescape_roff(join(arguments, " ")));
    page_.end_line();
  }

  void begin_tag(std::string_view macro) {
    if (macro == "TQ")
      page_.end_line();
    else
      page_.blank_line();
    tag_follows_ = true;
  }

  void item(const std::vector<std::string>& arguments) {
    page_.blank_line();
    tag_follows_ = true;
    if (!arguments.empty()) show(unescape_roff(arguments[0]));
    tag_follows_ = false;
  }

  /// mdoc macros call each other by name within a line: ".Op Fl a Ar file" reads "-a file".
  void words(std::string_view macro, std::vector<std::string> arguments) {
    if (macro == "Nm" && arguments.empty()) arguments.push_back(name_);
    if (macro == "Nm" && name_.empty()) name_ = arguments[0];
    const bool mdoc = macro.size() == 2 && macro[1] >= 'a' && macro[1] <= 'z';
    std::vector<std::string> seen;
    bool flag = macro == "Fl";
    for (const std::string& argument : arguments) {
      if (mdoc && is_callable(argument)) {
        flag = argument == "Fl";
        continue;
      }
      seen.push_back((flag ? "-" : "") + argument);
      flag = false;
    }
    show(unescape_roff(join(seen, " ")));
  }

  static bool is_callable(const std::string& word) {
    static const std::vector<std::string> kCallable = {
        "Ac", "Ao", "Aq", "Ar", "Bc", "Bo", "Bq", "Cm", "Dc", "Do", "Dq", "Dv", "Em", "Er", "Ev",
        "Fa", "Fl", "Fn", "Ft", "Ic", "Li", "Nm", "No", "Ns", "Oc", "Oo", "Op", "Pa", "Pc", "Po",
        "Pq", "Qc", "Ql", "Qo", "Qq", "Sc", "So", "Sq", "Sy", "Tn", "Va", "Vt", "Xc", "Xo", "Xr"};
    return std::binary_search(kCallable.begin(), kCallable.end(), word);
  }

  void begin_table() {
    page_.blank_line();
    in_table_ = true;
    in_table_format_ = true;
  }

  /// Options and column formats end with a line that ends in '.'; then come cells between tabs.
  void table_line(const std::string& line) {
    if (in_table_format_) {
      in_table_format_ = !line.ends_with('.');
      return;
    }
    if (line == "_" || line == "=" || line.starts_with(".\\\"")) return;
    if (line == ".T&") {
      in_table_format_ = true;
    } else if (line.starts_with('.')) {
      control_line(std::string_view(line).substr(1));
    } else {
      cells(line);
    }
  }

  /// "T{" opens a cell of several lines and "T}" closes it; only a row's last line ends it.
  void cells(std::string line) {
    if (line.starts_with("T}")) line.erase(0, 2);
    const bool goes_on = line.ends_with("T{");
    if (goes_on) line.erase(line.size() - 2);
    in_cell_ = goes_on || (in_cell_ && line.find('\t') == line.npos && !line.empty());
    std::replace(line.begin(), line.end(), '\t', ' ');
    line.erase(line.find_last_not_of(' ') + 1);
    page_.add(unescape_roff(line));
    if (!in_cell_) page_.end_line();
  }

  Page page_;
  std::string_view skip_until_;  ///< dropping lines up to this mark
  int open_braces_ = 0;          ///< dropping a conditional's lines
  bool in_table_ = false, in_table_format_ = false, in_cell_ = false;
  bool tag_follows_ = false;
  std::string name_;  ///< what .Nm alone stands for
};

}  // namespace

std::string strip_roff(std::string_view page) { return Stripper().run(page); }

}  // namespace cadre
