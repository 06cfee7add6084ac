/// cadre tokenizer: train, encode, decode.

#include <nlohmann/json.hpp>

#include <iostream>
#include <iterator>
#include <sstream>

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "cadre/base/progress.h"
#include "cadre/base/units.h"
#include "cadre/formats/corpus.h"
#include "cadre/formats/file.h"
#include "cadre/formats/tokenizer.h"
#include "tools/common/command_line.h"

namespace {

using namespace cadre;
using Json = nlohmann::ordered_json;

struct Options {
  std::vector<std::string> texts;
  std::string tokenizer, input = "-", out = "tokenizer.json";
  int64_t vocabulary = 8192, min_frequency = 2, max_mib = 64;
  bool json = false, special = false;
};

std::string read_input(const std::string& path) {
  if (path != "-") return read_file(path);
  return {std::istreambuf_iterator<char>(std::cin), {}};
}

Tokenizer train(const Options& options) {
  std::vector<Domain> domains;
  std::vector<std::string_view> texts;
  for (const auto& path : options.texts) {
    domains.push_back(read_domain(path, path, {.max_bytes = options.max_mib << 20}));
  }
  for (const auto& domain : domains)
    texts.insert(texts.end(), domain.documents.begin(), domain.documents.end());
  constexpr int64_t kPercent = 100;
  Progress progress({.label = "train tokenizer", .total = kPercent, .unit = "%"});
  const auto advance = [&](double share) {
    progress.advance(static_cast<int64_t>(share * kPercent) - progress.done());
  };
  Tokenizer tokenizer = Tokenizer::train(texts, {.vocabulary = options.vocabulary,
                                                 .min_frequency = options.min_frequency,
                                                 .progress = advance});
  advance(1.0);
  return tokenizer;
}

int run_train(const Options& options) {
  const Tokenizer tokenizer = train(options);
  tokenizer.save(options.out);
  if (options.json) {
    std::cout << Json{{"file", options.out}, {"vocabulary", tokenizer.vocabulary_size()}}.dump()
              << '\n';
  } else {
    std::cout << fmt::format("wrote {}: {} tokens\n", options.out, tokenizer.vocabulary_size());
  }
  return 0;
}

int run_encode(const Options& options) {
  const Tokenizer tokenizer = Tokenizer::load(options.tokenizer);
  const auto special =
      options.special ? Tokenizer::SpecialTokens::kParse : Tokenizer::SpecialTokens::kAsText;
  const std::vector<TokenId> ids = tokenizer.encode(read_input(options.input), special);
  if (options.json) {
    Json tokens = Json::array();
    for (const TokenId id : ids) tokens.push_back(tokenizer.token(id));
    std::cout << Json{{"ids", ids}, {"tokens", tokens}}.dump() << '\n';
  } else {
    std::cout << fmt::format("{}\n", fmt::join(ids, " "));
  }
  return 0;
}

std::vector<TokenId> parse_ids(const std::string& text) {
  std::istringstream words(text);
  std::vector<TokenId> ids;
  for (std::string word; words >> word;) {
    TokenId id = 0;
    if (!CLI::detail::lexical_cast(word, id))
      throw UsageError("'{}' is no token id: give whole numbers with spaces between", word);
    ids.push_back(id);
  }
  return ids;
}

int run_decode(const Options& options) {
  const Tokenizer tokenizer = Tokenizer::load(options.tokenizer);
  const std::string text = tokenizer.decode(parse_ids(read_input(options.input)));
  if (options.json)
    std::cout << Json{{"text", text}}.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
  else
    std::cout << text;
  return 0;
}

CLI::App& add_train(CLI::App& app, Options& options) {
  CLI::App& sub = *app.add_subcommand("train", "learn a byte-level BPE tokenizer from text");
  sub.add_option("text", options.texts, "Files or folders of text")->required();
  sub.add_option("--out", options.out, "tokenizer.json to write")->capture_default_str();
  sub.add_option("--vocabulary", options.vocabulary, "Tokens, with 256 bytes and the special one")
      ->check(CLI::Range(257, 1 << 20))
      ->capture_default_str();
  sub.add_option("--min-frequency", options.min_frequency, "Pairs rarer than this are not merged")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub.add_option("--max-mib", options.max_mib, "Read at most this many MiB of each text")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  sub.add_flag("--json", options.json, "Print JSON");
  return sub;
}

CLI::App& add_coder(CLI::App& app, Options& options, const std::string& name,
                    const std::string& help, const std::string& input_help) {
  CLI::App& sub = *app.add_subcommand(name, help);
  sub.add_option("tokenizer", options.tokenizer, "tokenizer.json, or a folder that holds it")
      ->required();
  sub.add_option("input", options.input, input_help)->capture_default_str();
  sub.add_flag("--json", options.json, "Print JSON");
  return sub;
}

int run(int argc, char** argv) {
  Options options;
  CommandLine line("tokenizer");
  line.app().require_subcommand(1);
  const CLI::App& train = add_train(line.app(), options);
  CLI::App& encode =
      add_coder(line.app(), options, "encode", "text to ids", "File of text; - = standard input");
  encode.add_flag("--special", options.special, "Read special tokens in the text as such");
  add_coder(line.app(), options, "decode", "ids to text",
            "File of ids with spaces between; - = standard input");
  if (const auto done = line.parse(argc, argv)) return *done;
  if (train.parsed()) return run_train(options);
  return encode.parsed() ? run_encode(options) : run_decode(options);
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("tokenizer", [&] { return run(argc, argv); });
}
