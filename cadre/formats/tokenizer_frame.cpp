#include <utility>

#include "cadre/base/error.h"
#include "cadre/formats/tokenizer_json.h"
#include "cadre/formats/tokenizer_parts.h"

namespace cadre::bpe {
namespace {

using nlohmann::json;

constexpr const char* kLlama3Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kGpt4oRegex =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kDeepseekV3Regex =
    "[!\"#$%&'()*+,\\-./"
    ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* kCjkRegex = "[一-龥ࠀ-一가-퟿]+";
// The cased letters as DeepSeek LLM lists them; escaped where an editor that composes would change
// them.
constexpr const char* kCasedRegex =
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-"
    "ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ"
    "-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ"
    "-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉ"
    "ⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ"
    "-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";

std::vector<std::string> regexes_of(PreTokenizer pre_tokenizer) {
  switch (pre_tokenizer) {
    case PreTokenizer::kGpt2:
      return {};
    case PreTokenizer::kLlama3:
      return {kLlama3Regex};
    case PreTokenizer::kQwen2:
      return {kQwen2Regex};
    case PreTokenizer::kDeepseekCoder:
      return {"[\r\n]", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kCjkRegex, R"(\p{N})"};
    case PreTokenizer::kDeepseekLlm:
      return {"[\r\n]",  kCasedRegex, "\\s?[!-/:-~！-／：-～‘-‟　-。]+",
              R"(\s+$)", kCjkRegex,   R"(\p{N}+)"};
    case PreTokenizer::kDeepseekV3:
      return {R"(\p{N}{1,3})", "[一-龥぀-ゟ゠-ヿ]+", kDeepseekV3Regex};
    case PreTokenizer::kGpt4o:
      return {kGpt4oRegex};
    case PreTokenizer::kStarcoder:
      return {R"(\p{N})", kGpt2Regex};
  }
  throw Error("unknown pre-tokenizer {}", static_cast<int>(pre_tokenizer));
}

json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

/// A literal as an expression. Escaping byte by byte is safe: bytes of longer UTF-8 pass unchanged.
std::string escape(const std::string& literal) {
  std::string regex;
  for (const char byte : literal) {
    if (std::string_view("\\^$.[]|()?*+{}#-& ").find(byte) != std::string_view::npos) regex += '\\';
    regex += byte;
  }
  return regex;
}

SplitRule read_split(const Field& field) {
  const Field pattern = field.at("pattern");
  const bool invert = field.flag("invert", false);
  const std::string behavior = field.text("behavior");
  SplitRule rule;
  rule.regex = pattern.has("Regex") ? pattern.text("Regex") : escape(pattern.text("String"));
  if (behavior == "Removed") {
    rule.drop = invert ? SplitRule::Drop::kGaps : SplitRule::Drop::kMatches;
  } else if (behavior != "Isolated") {
    field.at("behavior").fail("\"{}\" is not supported (only Isolated and Removed are)", behavior);
  }
  return rule;
}

void read_byte_level(const Field& field, Cutting& cutting) {
  cutting.add_prefix_space = field.flag("add_prefix_space", true);
  if (cutting.add_prefix_space && !cutting.rules.empty())
    field.at("add_prefix_space").fail("is supported only where nothing is cut before ByteLevel");
  if (field.flag("use_regex", true)) cutting.rules.push_back({.regex = kGpt2Regex});
}

void read_pre_tokenizer(const Field& field, Cutting& cutting) {
  std::vector<Field> steps{field};
  if (field.has_type("Sequence")) steps = field.at("pretokenizers").items();
  for (size_t i = 0; i < steps.size(); ++i) {
    const Field& step = steps[i];
    const bool last = i + 1 == steps.size();
    const std::string type = step.text("type");
    if (type == "ByteLevel" && last) return read_byte_level(step, cutting);
    if (type == "Split") {
      cutting.rules.push_back(read_split(step));
    } else if (type == "Digits") {
      const bool each = step.flag("individual_digits", false);
      cutting.rules.push_back({.regex = each ? R"(\p{N})" : R"(\p{N}+)"});
    } else {
      step.at("type").fail(
          "\"{}\" is not supported here (ByteLevel must be last; before it, Split "
          "and Digits are)",
          type);
    }
  }
  field.fail("must end in ByteLevel: only byte-level BPE is supported");
}

bool read_normalizer(const Field& field) {
  if (field.is_null()) return false;
  if (field.has_type("NFC")) return true;
  if (!field.has_type("Sequence"))
    field.fail("type \"{}\" is not supported (null and NFC are)", field.text("type"));
  bool normalize = false;
  for (const Field& step : field.at("normalizers").items()) {
    if (!step.has_type("NFC")) step.fail("is not supported (NFC is)");
    normalize = true;
  }
  return normalize;
}

void check_model(const Field& model) {
  if (!model.has_type("BPE") && model.has("type"))
    model.at("type").fail("\"{}\" is not supported (only BPE is)", model.text("type"));
  if (model.has("dropout") && model.at("dropout").value() != 0)
    model.at("dropout").fail("is not supported");
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (model.has(affix) && !model.text(affix).empty())
      model.at(affix).fail("is not supported (byte-level BPE has none)");
}

}  // namespace

json frame_of(PreTokenizer pre_tokenizer) {
  json steps = json::array();
  for (const std::string& regex : regexes_of(pre_tokenizer))
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", regex}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  json cutting = byte_level(steps.empty());
  if (!steps.empty()) {
    steps.push_back(std::move(cutting));
    cutting = {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
  }
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"normalizer", nullptr},
          {"pre_tokenizer", std::move(cutting)},
          {"post_processor", byte_level(false)},
          {"decoder", byte_level(true)},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false}}}};
}

Cutting read_frame(const json& frame, const std::string& where) {
  const Field root(frame, where);
  Cutting cutting;
  const Field model = root.at("model");
  check_model(model);
  cutting.ignore_merges = model.flag("ignore_merges", false);
  if (root.has("normalizer")) cutting.normalize = read_normalizer(root.at("normalizer"));
  read_pre_tokenizer(root.at("pre_tokenizer"), cutting);
  if (root.has("decoder") && !root.at("decoder").has_type("ByteLevel"))
    root.at("decoder").fail("is not supported (only ByteLevel is)");
  return cutting;
}

}  // namespace cadre::bpe
