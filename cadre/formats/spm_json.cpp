// SentencePiece vocabularies in tokenizer.json: BPE with byte_fallback, whose merges are all ways
// to make a piece out of two, the piece of the highest score first.

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/formats/spm.h"
#include "cadre/formats/tokenizer_json.h"

namespace cadre::spm {
namespace {

using nlohmann::json;

constexpr float kNever = -std::numeric_limits<float>::infinity();
// Ranks become scores, and floats count exactly up to here.
constexpr size_t kMaxMerges = size_t{1} << 24;

/// Blanks to "▁", perhaps with one put first; returns whether one is.
bool read_normalizer(const bpe::Field& field) {
  std::vector<bpe::Field> steps{field};
  if (field.has_type("Sequence")) steps = field.at("normalizers").items();
  bool prefix = false;
  for (const bpe::Field& step : steps) {
    const bool replaces = step.has_type("Replace") && step.at("pattern").has("String") &&
                          step.at("pattern").text("String") == " " &&
                          step.text("content") == kBlank;
    const bool prepends = step.has_type("Prepend") && step.text("prepend") == kBlank;
    if (!replaces && !prepends)
      step.fail("is not supported with byte_fallback (Prepend and Replace of blanks are)");
    prefix = prefix || prepends;
  }
  return prefix;
}

bool read_pre_tokenizer(const bpe::Field& field) {
  if (field.has_type("Metaspace") && field.text("replacement") == kBlank) {
    if (field.flag("split", true)) field.at("split").fail("is not supported (false is)");
    const std::string scheme = field.has("prepend_scheme")
                                   ? field.text("prepend_scheme")
                                   : (field.flag("add_prefix_space", true) ? "always" : "never");
    return scheme != "never";
  }
  // Gemma's: no blank is left to split at.
  const bool idle = field.has_type("Split") && field.at("pattern").has("String") &&
                    field.at("pattern").text("String") == " ";
  if (!idle) field.fail("is not supported with byte_fallback (Metaspace without split is)");
  return false;
}

json frame_of(const Vocabulary& vocabulary) {
  json normalizers = json::array();
  if (vocabulary.add_space_prefix)
    normalizers.push_back({{"type", "Prepend"}, {"prepend", kBlank}});
  normalizers.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kBlank}});
  json decoders = {
      {{"type", "Replace"}, {"pattern", {{"String", kBlank}}}, {"content", " "}},
      {{"type", "ByteFallback"}},
      {{"type", "Fuse"}},
  };
  if (vocabulary.add_space_prefix)
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  const auto unknown = std::find(vocabulary.types.begin(), vocabulary.types.end(), kUnknown);
  const json unknown_token = unknown == vocabulary.types.end()
                                 ? json(nullptr)
                                 : json(vocabulary.pieces[unknown - vocabulary.types.begin()]);
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"normalizer", {{"type", "Sequence"}, {"normalizers", std::move(normalizers)}}},
          {"pre_tokenizer", nullptr},
          {"post_processor", nullptr},
          {"decoder", {{"type", "Sequence"}, {"decoders", std::move(decoders)}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", unknown_token},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"ignore_merges", false}}}};
}

}  // namespace

bool is_spm(const json& frame) {
  const auto model = frame.find("model");
  if (model == frame.end() || !model->is_object()) return false;
  const auto fallback = model->find("byte_fallback");
  return fallback != model->end() && *fallback == true;
}

Vocabulary vocabulary_of(const bpe::Parts& parts, const std::string& where) {
  const bpe::Field root(parts.frame, where);
  const bpe::Field model = root.at("model");
  if (model.has("type") && !model.has_type("BPE"))
    model.at("type").fail("\"{}\" is not supported (only BPE is)", model.text("type"));
  if (parts.merges.size() > kMaxMerges)
    model.fail("has {} merges, more than {}", parts.merges.size(), kMaxMerges);
  Vocabulary vocabulary;
  vocabulary.add_space_prefix = false;
  if (root.has("normalizer")) vocabulary.add_space_prefix = read_normalizer(root.at("normalizer"));
  if (root.has("pre_tokenizer") && read_pre_tokenizer(root.at("pre_tokenizer")))
    vocabulary.add_space_prefix = true;
  vocabulary.pieces = parts.tokens;
  vocabulary.scores.assign(parts.tokens.size(), kNever);
  vocabulary.types.assign(parts.tokens.size(), kNormal);
  for (size_t rank = parts.merges.size(); rank-- > 0;)
    vocabulary.scores[parts.merges[rank].result] = -static_cast<float>(rank);
  const std::string unknown = model.has("unk_token") ? model.text("unk_token") : "";
  for (size_t id = 0; id < parts.tokens.size(); ++id) {
    if (byte_of(parts.tokens[id]) >= 0) vocabulary.types[id] = kByte;
    if (parts.tokens[id].empty()) vocabulary.types[id] = kControl;
  }
  for (const bpe::AddedToken& token : parts.added)
    vocabulary.types[token.id] = token.special ? kControl : kUserDefined;
  for (size_t id = 0; id < parts.tokens.size(); ++id)
    if (!unknown.empty() && parts.tokens[id] == unknown) vocabulary.types[id] = kUnknown;
  return vocabulary;
}

bpe::Parts parts_without_merges(const Vocabulary& vocabulary) {
  bpe::Parts parts;
  parts.tokens = vocabulary.pieces;
  parts.frame = frame_of(vocabulary);
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    const int32_t type = vocabulary.types[id];
    if (type != kControl && type != kUserDefined && type != kUnknown) continue;
    if (vocabulary.pieces[id].empty()) continue;
    parts.added.push_back({.id = static_cast<TokenId>(id),
                           .content = vocabulary.pieces[id],
                           .special = type != kUserDefined});
  }
  return parts;
}

bpe::Parts parts_of(const Vocabulary& vocabulary) {
  bpe::Parts parts = parts_without_merges(vocabulary);
  const auto can_merge = [&](TokenId id) {
    const int32_t type = vocabulary.types[id];
    return type == kNormal || type == kUserDefined || type == kUnused;
  };
  std::unordered_map<std::string_view, TokenId> ids;
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id)
    if (can_merge(static_cast<TokenId>(id)))
      ids.emplace(vocabulary.pieces[id], static_cast<TokenId>(id));
  for (const auto& [piece, id] : ids) {
    if (vocabulary.scores[id] == kNever) continue;
    for (size_t cut = 1; cut < piece.size(); ++cut) {
      const auto left = ids.find(piece.substr(0, cut)), right = ids.find(piece.substr(cut));
      if (left != ids.end() && right != ids.end())
        parts.merges.push_back({left->second, right->second, id});
    }
  }
  std::sort(parts.merges.begin(), parts.merges.end(), [&](const auto& a, const auto& b) {
    const float first = vocabulary.scores[a.result], second = vocabulary.scores[b.result];
    if (first != second) return first > second;
    return std::tie(a.result, a.left, a.right) < std::tie(b.result, b.left, b.right);
  });
  return parts;
}

}  // namespace cadre::spm
