#include "tools/quickstart/samples.h"

#include <algorithm>
#include <cstdio>

#include "cadre/base/error.h"
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

/// Shows prompts and their texts one below the other as the texts come.
class Display {
 public:
  Display(std::FILE* stream, const std::vector<Sample>& samples)
      : stream_(stream), samples_(samples) {}
  void show(size_t sample, std::string_view text) {
    while (begun_ <= sample) begin(samples_[begun_]);
    put(text);
  }
  void finish() {
    if (begun_ > 0) put("\n\n");
  }

 private:
  void begin(const Sample& sample) {
    if (begun_++ > 0) put("\n\n");
    put("[" + sample.domain + "] " + sample.prompt);
  }
  void put(std::string_view text) {
    if (stream_ == nullptr) return;
    std::fwrite(text.data(), 1, text.size(), stream_);
    std::fflush(stream_);
  }

  std::FILE* stream_;
  const std::vector<Sample>& samples_;
  size_t begun_ = 0;
};

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

Samples make_samples(const std::filesystem::path& folder, LanguageModel& model,
                     const Tokenizer& tokenizer, const std::vector<DomainTokens>& domains,
                     const SamplingOptions& options, std::FILE* stream) {
  Samples made;
  std::vector<std::string> prompts;
  for (const auto& domain : domains) {
    prompts.push_back(prompt_from(domain, tokenizer));
    made.samples.push_back({.domain = domain.name, .prompt = prompts.back(), .text = ""});
  }
  Display display(stream, made.samples);
  const auto show = [&](size_t sample, std::string_view text) { display.show(sample, text); };
  try {
    made.engine.full = write_with_all_experts(folder, prompts, options, show);
    if (!interrupted()) made.engine.half = write_with_half_of_experts(folder, prompts, options);
  } catch (const FormatError& error) {
    made.engine = {.full = {}, .half = {}, .refused = error.what()};
    for (size_t i = 0; i < prompts.size() && !interrupted(); ++i) {
      made.engine.full.texts.push_back(
          generate(model, tokenizer, prompts[i], options,
                   [&](std::string_view text) { display.show(i, text); }));
    }
  }
  display.finish();
  const std::vector<std::string>& texts = made.engine.full.texts;
  made.samples.resize(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) made.samples[i].text = texts[i];
  return made;
}

}  // namespace cadre
