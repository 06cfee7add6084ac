#include "cadre/formats/tokenizer_json.h"

#include <utility>

#include "cadre/formats/json.h"
#include "cadre/formats/tokenizer_parts.h"

namespace cadre::bpe {

using nlohmann::json;

bool Field::has(const char* key) const {
  return value_->is_object() && value_->contains(key) && !(*value_)[key].is_null();
}

bool Field::has_type(const char* type) const { return has("type") && (*value_)["type"] == type; }

Field Field::at(const char* key) const {
  if (!value_->is_object()) fail("expected an object, found {}", value_->type_name());
  const auto member = value_->find(key);
  if (member == value_->end()) fail("\"{}\" is missing", key);
  return {*member, fmt::format("{}: {}", path_, key)};
}

bool Field::flag(const char* key, bool otherwise) const {
  if (!has(key)) return otherwise;
  const Field field = at(key);
  if (!field.value().is_boolean())
    field.fail("expected true or false, found {}", field.value().type_name());
  return field.value().get<bool>();
}

std::string Field::text(const char* key) const {
  const Field field = at(key);
  if (!field.value().is_string())
    field.fail("expected a string, found {}", field.value().type_name());
  return field.value().get<std::string>();
}

int64_t Field::index(int64_t limit) const {
  if (!value_->is_number_unsigned())
    fail("expected an id (an integer from 0), found {}", value_->dump());
  const auto id = value_->get<uint64_t>();
  if (id >= static_cast<uint64_t>(limit)) fail("id {} is not below {}", id, limit);
  return static_cast<int64_t>(id);
}

std::vector<Field> Field::items() const {
  if (!value_->is_array()) fail("expected an array, found {}", value_->type_name());
  std::vector<Field> fields;
  for (size_t i = 0; i < value_->size(); ++i)
    fields.push_back({(*value_)[i], fmt::format("{}[{}]", path_, i)});
  return fields;
}

namespace {

/// Ids may leave this many unused: published vocabularies pad, but a hostile id must not cost
/// memory.
constexpr int64_t kMaxUnusedIds = 1 << 16;
void place_token(Parts& parts, TokenId id, const std::string& token, const Field& field) {
  if (token.empty()) field.fail("id {} is an empty token", id);
  if (static_cast<size_t>(id) >= parts.tokens.size()) parts.tokens.resize(id + 1);
  std::string& place = parts.tokens[id];
  if (!place.empty() && place != token)
    field.fail("id {} repeats: it is \"{}\" and \"{}\"", id, place, token);
  place = token;
}

AddedToken read_added(const Field& field, int64_t limit) {
  AddedToken token;
  token.id = static_cast<TokenId>(field.at("id").index(limit));
  token.content = field.text("content");
  token.special = field.flag("special", false);
  token.strips_left = field.flag("lstrip", false);
  token.strips_right = field.flag("rstrip", false);
  token.single_word = field.flag("single_word", false);
  token.normalized = field.flag("normalized", !token.special);
  return token;
}

void read_tokens(const Field& root, Parts& parts) {
  const Field vocabulary = root.at("model").at("vocab");
  if (!vocabulary.value().is_object() || vocabulary.value().empty())
    vocabulary.fail("expected an object of tokens and ids");
  std::vector<Field> added;
  if (root.has("added_tokens")) added = root.at("added_tokens").items();
  const auto limit = static_cast<int64_t>(vocabulary.value().size() + added.size()) + kMaxUnusedIds;
  for (const auto& [token, id] : vocabulary.value().items()) {
    const Field field(id, fmt::format("model: vocab: \"{}\"", token));
    place_token(parts, static_cast<TokenId>(field.index(limit)), token, vocabulary);
  }
  for (const Field& field : added) {
    AddedToken token = read_added(field, limit);
    token.in_vocabulary = vocabulary.value().contains(token.content);
    place_token(parts, token.id, token.content, field);
    parts.added.push_back(std::move(token));
  }
}

Merge read_merge(const Field& field, const std::unordered_map<std::string_view, TokenId>& ids,
                 const std::string& where) {
  const json& merge = field.value();
  if (merge.is_string()) {
    const auto [left, right] = split_merge(merge.get_ref<const std::string&>(), where);
    return resolve_merge(left, right, ids, where);
  }
  if (!merge.is_array() || merge.size() != 2 || !merge[0].is_string() || !merge[1].is_string())
    field.fail("expected \"a b\" or [\"a\", \"b\"], found {}", merge.type_name());
  return resolve_merge(merge[0].get_ref<const std::string&>(),
                       merge[1].get_ref<const std::string&>(), ids, where);
}

std::string added_to_json(const std::vector<AddedToken>& added) {
  json list = json::array();
  for (const AddedToken& token : added)
    list.push_back({{"id", token.id},
                    {"content", token.content},
                    {"single_word", token.single_word},
                    {"lstrip", token.strips_left},
                    {"rstrip", token.strips_right},
                    {"normalized", token.normalized},
                    {"special", token.special}});
  return list.dump();
}

/// The model's members; the vocabulary in the order of ids, one token a line, as people expect it.
std::string model_to_json(const Parts& parts) {
  std::vector<char> listed(parts.tokens.size(), 1);
  for (const AddedToken& token : parts.added) listed[token.id] = token.in_vocabulary;
  std::string out = parts.frame.at("model").dump();
  out.pop_back();
  out += ", \"vocab\": {";
  const char* separator = "\n";
  for (size_t id = 0; id < parts.tokens.size(); ++id) {
    if (!listed[id] || parts.tokens[id].empty()) continue;
    out += std::exchange(separator, ",\n");
    out += quote(parts.tokens[id]);
    out += fmt::format(": {}", id);
  }
  out += "},\n\"merges\": [";
  separator = "\n";
  for (const Merge& merge : parts.merges) {
    out += std::exchange(separator, ",\n");
    out += quote(parts.tokens[merge.left] + " " + parts.tokens[merge.right]);
  }
  return out + "]}";
}

}  // namespace

std::unordered_map<std::string_view, TokenId> index_tokens(const std::vector<std::string>& tokens,
                                                           const std::string& where) {
  std::unordered_map<std::string_view, TokenId> ids;
  ids.reserve(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].empty()) continue;
    const auto [other, fresh] = ids.emplace(tokens[id], static_cast<TokenId>(id));
    if (!fresh)
      throw FormatError("{}: ids {} and {} are both \"{}\"", where, other->second, id, tokens[id]);
  }
  return ids;
}

std::pair<std::string_view, std::string_view> split_merge(std::string_view merge,
                                                          const std::string& where) {
  const size_t blank = merge.find(' ');
  if (blank == std::string_view::npos || merge.find(' ', blank + 1) != std::string_view::npos)
    throw FormatError("{}: merges: \"{}\" is not two tokens with a blank between", where, merge);
  return {merge.substr(0, blank), merge.substr(blank + 1)};
}

Merge resolve_merge(std::string_view left, std::string_view right,
                    const std::unordered_map<std::string_view, TokenId>& ids,
                    const std::string& where) {
  const auto id_of = [&](std::string_view token) {
    const auto id = ids.find(token);
    if (id == ids.end())
      throw FormatError("{}: merges: \"{}\" + \"{}\" needs \"{}\", which the vocabulary lacks",
                        where, left, right, token);
    return id->second;
  };
  std::string whole(left);
  whole += right;
  return {id_of(left), id_of(right), id_of(whole)};
}

Parts parse_parts(std::string_view text, const std::string& where) {
  Parts parts;
  parts.frame = parse_json(text, where);
  const Field root(parts.frame, where);
  read_tokens(root, parts);
  const auto ids = index_tokens(parts.tokens, where);
  for (const Field& merge : root.at("model").at("merges").items())
    parts.merges.push_back(read_merge(merge, ids, where));
  parts.frame.at("model").erase("vocab");
  parts.frame.at("model").erase("merges");
  parts.frame.erase("added_tokens");
  return parts;
}

std::string to_json(const Parts& parts) {
  std::string out = "{";
  for (const auto& [key, value] : parts.frame.items()) {
    if (key == "model") continue;
    out += quote(key);
    out += fmt::format(": {},\n", value.dump());
  }
  out += fmt::format("\"added_tokens\": {},\n", added_to_json(parts.added));
  return out + fmt::format("\"model\": {}}}\n", model_to_json(parts));
}

}  // namespace cadre::bpe
