#include "tools/quickstart/samples.h"

#include <algorithm>
#include <cstdio>

#include "cadre/base/interrupt.h"
#include "cadre/base/text.h"

namespace cadre {
namespace {

constexpr int64_t kTokens = 200;     // read from the start of the held-out text
constexpr size_t kFewestBytes = 20;  // of a line to start from
constexpr size_t kBytes = 50;

/// The first line that is long enough, not counting the first, which may begin in the middle; all
/// when none is.
std::string_view good_line(std::string_view text) {
  for (size_t end = text.find('\n'); end != std::string_view::npos;
       end = text.find('\n', end + 1)) {
    const std::string_view rest = text.substr(end + 1);
    const std::string_view line = rest.substr(0, rest.find('\n'));
    const size_t first = line.find_first_not_of(" \t*/#");
    if (first != std::string_view::npos && line.size() - first >= kFewestBytes)
      return line.substr(first);
  }
  return text;
}

}  // namespace

std::string prompt_from(const DomainTokens& domain, const Tokenizer& tokenizer) {
  std::vector<TokenId> ids;
  for (int64_t i = 0; i < std::min(kTokens, domain.validation->size()); ++i) {
    const TokenId id = (*domain.validation)[i];
    if (!tokenizer.is_special(id)) ids.push_back(id);
  }
  const std::string text = tokenizer.decode(ids);
  std::string_view line = good_line(text);
  if (line.size() > kBytes) {
    const size_t space = line.rfind(' ', kBytes);
    line = line.substr(0, space == std::string_view::npos || space == 0 ? kBytes : space);
  }
  return one_line(line);  // also mends a code point that was cut
}

std::vector<Sample> make_samples(LanguageModel& model, const Tokenizer& tokenizer,
                                 const std::vector<DomainTokens>& domains,
                                 const SamplingOptions& options, std::FILE* stream) {
  const auto show = [&](std::string_view text) {
    if (stream == nullptr) return;
    std::fwrite(text.data(), 1, text.size(), stream);
    std::fflush(stream);
  };
  std::vector<Sample> samples;
  for (const auto& domain : domains) {
    if (interrupted()) break;
    Sample sample{.domain = domain.name, .prompt = prompt_from(domain, tokenizer), .text = ""};
    show("[" + domain.name + "] " + sample.prompt);
    sample.text = generate(model, tokenizer, sample.prompt, options, show);
    show("\n\n");
    samples.push_back(std::move(sample));
  }
  return samples;
}

}  // namespace cadre
