#include "cadre/formats/tokenizer_split.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

#include "cadre/base/error.h"

namespace cadre::bpe {
namespace {

struct Free {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
  void operator()(pcre2_jit_stack* stack) const { pcre2_jit_stack_free(stack); }
};

/// What a thread needs to match: one result, and a stack for expressions that backtrack deeply.
struct Matcher {
  static constexpr size_t kStackBytes = size_t{1} << 20;

  std::unique_ptr<pcre2_match_data, Free> data{pcre2_match_data_create(1, nullptr)};
  std::unique_ptr<pcre2_match_context, Free> context{pcre2_match_context_create(nullptr)};
  std::unique_ptr<pcre2_jit_stack, Free> stack{
      pcre2_jit_stack_create(32 * 1024, kStackBytes, nullptr)};

  Matcher() {
    if (!data || !context || !stack) throw Error("no memory for matching a regular expression");
    pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  }
};

Matcher& matcher() {
  thread_local Matcher instance;
  return instance;
}

/// From Oniguruma's dialect to PCRE2's. Two things differ in the expressions that tokenizers use:
/// \s means White_Space (PCRE2's has U+180E too), and && intersects classes (PCRE2 has no such
/// thing).
std::string translate(const std::string& regex) {
  // Quadratic on long runs of blanks as it stands; a match can only begin where the run does.
  if (regex == "\\s+$") return translate("(?<!\\s)\\s+$");
  std::string result;
  bool in_class = false;
  for (size_t i = 0; i < regex.size(); ++i) {
    if (regex[i] == '\\' && i + 1 < regex.size()) {
      const char escaped = regex[++i];
      const char* const space = "\\t-\\r\\x{85}\\p{Z}";
      if (escaped == 's') {
        result += in_class ? space : fmt::format("[{}]", space);
      } else if (escaped == 'S' && !in_class) {
        result += fmt::format("[^{}]", space);
      } else {
        result += {'\\', escaped};
      }
      continue;
    }
    if (regex[i] == '[') in_class = true;
    if (regex[i] == ']') in_class = false;
    if (in_class && regex.compare(i, 2, "&&") == 0)
      throw FormatError("class intersection (&&) is not supported in the expression {}", regex);
    result += regex[i];
  }
  return result;
}

}  // namespace

const char* const kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct Splitter::Stage {
  SplitRule rule;
  std::unique_ptr<pcre2_code, Free> code;

  explicit Stage(const SplitRule& from) : rule(from) {
    const std::string pattern = translate(rule.regex);
    int error = 0;
    PCRE2_SIZE offset = 0;
    constexpr uint32_t kOptions =
        PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_ALLOW_EMPTY_CLASS;
    code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), kOptions,
                             &error, &offset, nullptr));
    if (!code) {
      PCRE2_UCHAR reason[128] = {};
      pcre2_get_error_message(error, reason, sizeof(reason));
      throw FormatError("the expression {} does not compile: {}", rule.regex,
                        reinterpret_cast<const char*>(reason));
    }
    // Without executable memory the interpreter does the same work, slower.
    pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  }

  /// Finds the first match of at least one byte at or after `from`; false when there is none.
  bool find(std::string_view text, size_t from, size_t* begin, size_t* end) const {
    Matcher& m = matcher();
    // Steps back and forth over the whole text are honest work, a million beyond that are not.
    pcre2_set_match_limit(m.context.get(), static_cast<uint32_t>(std::min<size_t>(
                                               1'000'000 + 16 * (text.size() - from), UINT32_MAX)));
    const int found =
        pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                    PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, m.data.get(), m.context.get());
    if (found == PCRE2_ERROR_NOMATCH) return false;
    if (found < 0)
      throw FormatError("the expression {} cannot be matched on this text: PCRE2 error {}",
                        rule.regex, found);
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(m.data.get());
    *begin = range[0];
    *end = range[1];
    return *begin >= from && *end > *begin;  // \K may turn the two around
  }
};

Splitter::Splitter(const std::vector<SplitRule>& rules) {
  for (const SplitRule& rule : rules) stages_.push_back(std::make_shared<const Stage>(rule));
}

void Splitter::split(std::string_view valid, const Sink& sink) const { split_from(0, valid, sink); }

void Splitter::split_from(size_t index, std::string_view piece, const Sink& sink) const {
  if (piece.empty()) return;
  if (index == stages_.size()) return sink(piece);
  const Stage& stage = *stages_[index];
  size_t at = 0, begin = 0, end = 0;
  while (at < piece.size() && stage.find(piece, at, &begin, &end)) {
    if (stage.rule.drop != SplitRule::Drop::kGaps)
      split_from(index + 1, piece.substr(at, begin - at), sink);
    if (stage.rule.drop != SplitRule::Drop::kMatches)
      split_from(index + 1, piece.substr(begin, end - begin), sink);
    at = end;
  }
  if (stage.rule.drop != SplitRule::Drop::kGaps) split_from(index + 1, piece.substr(at), sink);
}

}  // namespace cadre::bpe
