#include "cadre/engine/tokenizer_from_gguf.h"

#include <algorithm>
#include <array>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/formats/json.h"
#include "cadre/formats/spm.h"
#include "cadre/formats/tokenizer_parts.h"

namespace cadre::engine {
namespace {

constexpr const char* kModel = "tokenizer.ggml.model";
constexpr const char* kPre = "tokenizer.ggml.pre";
constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
constexpr const char* kMerges = "tokenizer.ggml.merges";
constexpr const char* kScores = "tokenizer.ggml.scores";
constexpr const char* kSpacePrefix = "tokenizer.ggml.add_space_prefix";
constexpr const char* kAddBegin = "tokenizer.ggml.add_bos_token";

struct PreName {
  std::string_view name;
  PreTokenizer kind;
};
/// The first name of each kind is the one we write.
constexpr std::array kPreNames = {
    PreName{"gpt-2", PreTokenizer::kGpt2},
    PreName{"default", PreTokenizer::kGpt2},
    PreName{"olmo", PreTokenizer::kGpt2},
    PreName{"mpt", PreTokenizer::kGpt2},
    PreName{"phi-2", PreTokenizer::kGpt2},
    PreName{"jina-es", PreTokenizer::kGpt2},
    PreName{"jina-de", PreTokenizer::kGpt2},
    PreName{"llama-bpe", PreTokenizer::kLlama3},
    PreName{"llama3", PreTokenizer::kLlama3},
    PreName{"llama-v3", PreTokenizer::kLlama3},
    PreName{"dbrx", PreTokenizer::kLlama3},
    PreName{"smaug-bpe", PreTokenizer::kLlama3},
    PreName{"qwen2", PreTokenizer::kQwen2},
    PreName{"deepseek-r1-qwen", PreTokenizer::kQwen2},
    PreName{"deepseek-coder", PreTokenizer::kDeepseekCoder},
    PreName{"deepseek-llm", PreTokenizer::kDeepseekLlm},
    PreName{"deepseek-v3", PreTokenizer::kDeepseekV3},
    PreName{"gpt-4o", PreTokenizer::kGpt4o},
    PreName{"refact", PreTokenizer::kStarcoder},
    PreName{"starcoder", PreTokenizer::kStarcoder},
    PreName{"smollm", PreTokenizer::kStarcoder},
    PreName{"command-r", PreTokenizer::kStarcoder},
};

std::string known_names() {
  std::string names;
  for (const PreName& entry : kPreNames)
    names += (names.empty() ? "" : ", ") + std::string(entry.name);
  return names;
}

std::vector<std::string> copied(const std::vector<std::string_view>& texts) {
  return {texts.begin(), texts.end()};
}

std::vector<int32_t> types_of(const GgufReader& file, size_t tokens, const std::string& where) {
  if (!file.contains(kTypes)) return std::vector<int32_t>(tokens, spm::kNormal);
  std::vector<int32_t> types;
  for (const int64_t type : file.integers(kTypes)) {
    if (type < 0 || type > INT32_MAX)
      throw FormatError("{}: {} holds {}, which is no type", where, kTypes, type);
    types.push_back(static_cast<int32_t>(type));
  }
  if (types.size() == tokens) return types;
  throw FormatError("{}: {} has {} entries for {} tokens", where, kTypes, types.size(), tokens);
}

/// Whether a tokenizer.json cuts text as this kind does.
bool cuts_like(const bpe::Cutting& cutting, PreTokenizer kind) {
  const auto rules = bpe::read_frame(bpe::frame_of(kind), "frame").rules;
  return std::equal(cutting.rules.begin(), cutting.rules.end(), rules.begin(), rules.end(),
                    [](const bpe::SplitRule& a, const bpe::SplitRule& b) {
                      return a.regex == b.regex && a.drop == b.drop;
                    });
}

std::string_view pre_name_of(const bpe::Parts& parts, const std::string& where) {
  const bpe::Cutting cutting = bpe::read_frame(parts.frame, where);
  for (const PreName& entry : kPreNames) {
    if (!cuts_like(cutting, entry.kind)) continue;
    // GPT-2's way with composed characters is what OLMo's models are called by.
    const bool olmo = entry.kind == PreTokenizer::kGpt2 && cutting.normalize;
    return olmo ? "olmo" : entry.name;
  }
  throw FormatError("{}: pre_tokenizer: GGUF has no name for this way of cutting text (known: {})",
                    where, known_names());
}

}  // namespace

std::optional<PreTokenizer> pre_tokenizer_named(std::string_view name) {
  for (const PreName& entry : kPreNames)
    if (entry.name == name) return entry.kind;
  return std::nullopt;
}

std::string_view name_of(PreTokenizer pre_tokenizer) {
  for (const PreName& entry : kPreNames)
    if (entry.kind == pre_tokenizer) return entry.name;
  throw Error("pre-tokenizer {} has no name", static_cast<int>(pre_tokenizer));
}

TokenizerLists read_tokenizer_lists(const GgufReader& file, const std::string& where) {
  TokenizerLists lists;
  lists.model = file.text(kModel);
  if (lists.model != "gpt2" && lists.model != "llama")
    throw FormatError("{}: {} is {}, which is not supported (known: gpt2, llama)", where, kModel,
                      quote(lists.model));
  lists.tokens = copied(file.strings(kTokens));
  lists.types = types_of(file, lists.tokens.size(), where);
  lists.pre = file.contains(kPre) ? file.text(kPre) : "default";
  if (lists.model == "gpt2") {
    lists.merges = copied(file.strings(kMerges));
    return lists;
  }
  lists.scores = file.numbers(kScores);
  lists.add_space_prefix = !file.contains(kSpacePrefix) || file.flag(kSpacePrefix);
  return lists;
}

Tokenizer tokenizer_of(const TokenizerLists& lists, const std::string& where) {
  try {
    if (lists.model == "llama") {
      return Tokenizer::from_sentencepiece(lists.tokens, lists.scores, lists.types,
                                           lists.add_space_prefix
                                               ? Tokenizer::BlankPrefix::kBeforeText
                                               : Tokenizer::BlankPrefix::kNone);
    }
    const auto kind = pre_tokenizer_named(lists.pre);
    if (!kind)
      throw FormatError("{} is {}, which is not supported (known: {})", kPre, quote(lists.pre),
                        known_names());
    std::vector<TokenId> special, added;
    for (size_t id = 0; id < lists.types.size(); ++id) {
      if (lists.types[id] == spm::kControl) special.push_back(static_cast<TokenId>(id));
      if (lists.types[id] == spm::kUserDefined) added.push_back(static_cast<TokenId>(id));
    }
    return Tokenizer::from_vocabulary(lists.tokens, lists.merges, *kind, std::move(special),
                                      std::move(added));
  } catch (const FormatError& error) {
    throw FormatError("{}: tokenizer: {}", where, error.what());
  }
}

Tokenizer tokenizer_from_gguf(const GgufReader& file, const std::string& where) {
  return tokenizer_of(read_tokenizer_lists(file, where), where);
}

TokenizerLists tokenizer_lists_of(const std::string& json, const std::string& where) {
  const bpe::Parts parts = bpe::parse_parts(json, where);
  TokenizerLists lists;
  lists.tokens = parts.tokens;
  if (spm::is_spm(parts.frame)) {
    spm::Vocabulary vocabulary = spm::vocabulary_of(parts, where);
    lists.model = "llama";
    lists.pre = "default";
    lists.types = std::move(vocabulary.types);
    lists.scores = std::move(vocabulary.scores);
    lists.add_space_prefix = vocabulary.add_space_prefix;
  } else {
    lists.model = "gpt2";
    lists.pre = pre_name_of(parts, where);
    lists.types.assign(parts.tokens.size(), spm::kNormal);
    for (const bpe::Merge& merge : parts.merges)
      lists.merges.push_back(parts.tokens[merge.left] + " " + parts.tokens[merge.right]);
    for (const bpe::AddedToken& token : parts.added)
      lists.types[token.id] = token.special ? spm::kControl : spm::kUserDefined;
  }
  for (size_t id = 0; id < lists.tokens.size(); ++id) {
    if (!lists.tokens[id].empty()) continue;
    lists.tokens[id] = fmt::format("[PAD{}]", id);
    lists.types[id] = spm::kUnused;
  }
  return lists;
}

void add_tokenizer_keys(GgufKeys& keys, const TokenizerLists& lists) {
  keys.add(kModel, lists.model);
  keys.add(kPre, lists.pre);
  keys.add(kTokens, lists.tokens);
  keys.add(kTypes, std::span<const int32_t>(lists.types));
  if (lists.model == "gpt2") {
    keys.add(kMerges, lists.merges);
  } else {
    keys.add(kScores, std::span<const float>(lists.scores));
    keys.add(kSpacePrefix, lists.add_space_prefix);
  }
}

SpecialTokenIds special_token_ids(const GgufReader& file, const std::string& where) {
  const auto tokens = static_cast<int64_t>(file.strings(kTokens).size());
  const auto id_of = [&](const char* name) -> TokenId {
    const std::string key = fmt::format("tokenizer.ggml.{}_token_id", name);
    if (!file.contains(key)) return -1;
    const int64_t id = file.integer(key);
    // Writers of other makes store "none" as the largest u32.
    if (id == -1 || id == UINT32_MAX) return -1;
    if (id < 0 || id >= tokens)
      throw FormatError("{}: {} is {}, outside the {} tokens", where, key, id, tokens);
    return static_cast<TokenId>(id);
  };
  SpecialTokenIds ids = {.begin_of_text = id_of("bos"),
                         .end_of_text = id_of("eos"),
                         .end_of_turn = id_of("eot"),
                         .unknown = id_of("unknown"),
                         .padding = id_of("padding")};
  if (file.contains(kAddBegin)) {
    ids.add_begin = file.flag(kAddBegin);
  } else {
    const std::string_view pre = file.contains(kPre) ? file.text(kPre) : "";
    ids.add_begin =
        file.text(kModel) == "llama" || pre_tokenizer_named(pre) == PreTokenizer::kLlama3;
  }
  return ids;
}

}  // namespace cadre::engine
