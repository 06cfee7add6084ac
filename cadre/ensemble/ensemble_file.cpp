#include "cadre/ensemble/ensemble_file.h"

#include <toml++/toml.h>

#include <algorithm>
#include <optional>
#include <sstream>

#include "cadre/base/error.h"
#include "cadre/base/text.h"
#include "cadre/base/units.h"
#include "cadre/formats/file.h"

namespace cadre::ensemble {
namespace {

namespace fs = std::filesystem;

class Reader {
 public:
  Reader(std::string where, fs::path folder)
      : where_(std::move(where)), folder_(std::move(folder)) {}

  EnsembleFile read(std::string_view text) {
    const toml::table document = parse(text);
    check_keys(document);
    read_models(table(document, "models"));
    file_.router = folder_ / text_of(require(document, "router"), "router");
    file_.general = model_of(require(document, "general"), "general");
    read_memory(document);
    read_window(document);
    for (const auto& [name, value] : table(document, "categories")) {
      file_.categories[std::string(name.str())] = model_of(value, std::string(name.str()));
    }
    return std::move(file_);
  }

 private:
  toml::table parse(std::string_view text) const {
    try {
      return toml::parse(text);
    } catch (const toml::parse_error& error) {
      throw UsageError("{}:{}: {}", where_, error.source().begin.line,
                       one_line(std::string(error.description())));
    }
  }

  [[noreturn]] void fail(const toml::node& node, const std::string& message) const {
    throw UsageError("{}:{}: {}", where_, node.source().begin.line, message);
  }

  void check_keys(const toml::table& document) const {
    static const std::vector<std::string> known = {"router", "general", "memory",
                                                   "window", "models",  "categories"};
    for (const auto& [key, node] : document) {
      const std::string name(key.str());
      if (std::find(known.begin(), known.end(), name) != known.end()) continue;
      fail(node, fmt::format("unknown key '{}'{}", name, did_you_mean(name, known)));
    }
  }

  const toml::node& require(const toml::table& document, const char* key) const {
    const toml::node* node = document.get(key);
    if (node == nullptr) throw UsageError("{}: {} is missing", where_, key);
    return *node;
  }

  const toml::table& table(const toml::table& document, const char* key) const {
    const toml::node& node = require(document, key);
    if (!node.is_table()) fail(node, fmt::format("{} must be a table: [{}]", key, key));
    if (node.as_table()->empty()) fail(node, fmt::format("[{}] is empty", key));
    return *node.as_table();
  }

  std::string text_of(const toml::node& node, const std::string& key) const {
    const auto text = node.value_exact<std::string>();
    if (!text || text->empty()) fail(node, fmt::format("{} must be a text in quotes", key));
    return *text;
  }

  void read_models(const toml::table& models) {
    for (const auto& [key, value] : models) {
      const std::string name(key.str());
      file_.models.push_back({name, folder_ / text_of(value, name)});
    }
  }

  int64_t model_of(const toml::node& node, const std::string& key) const {
    const std::string name = text_of(node, key);
    std::vector<std::string> names;
    for (const auto& model : file_.models) names.push_back(model.name);
    const auto found = std::find(names.begin(), names.end(), name);
    if (found != names.end()) return found - names.begin();
    fail(node,
         fmt::format("{}: no model '{}' under [models]{}", key, name, did_you_mean(name, names)));
  }

  void read_memory(const toml::table& document) {
    const toml::node* node = document.get("memory");
    if (node == nullptr) return;
    try {
      file_.memory = static_cast<int64_t>(parse_bytes(text_of(*node, "memory")));
    } catch (const UsageError& error) {
      fail(*node, fmt::format("memory: {}", error.what()));
    }
    if (file_.memory < 1) fail(*node, "memory: say how many bytes, or leave it out");
  }

  void read_window(const toml::table& document) {
    const toml::node* node = document.get("window");
    if (node == nullptr) return;
    const auto window = node->value_exact<int64_t>();
    if (!window || *window < 0) fail(*node, "window must be a whole number, 0 or more");
    file_.window = *window;
  }

  std::string where_;
  fs::path folder_;
  EnsembleFile file_;
};

}  // namespace

EnsembleFile parse_ensemble_file(std::string_view toml, const std::string& where,
                                 const fs::path& folder) {
  return Reader(where, folder).read(toml);
}

EnsembleFile read_ensemble_file(const fs::path& path) {
  return parse_ensemble_file(read_file(path), path.string(), path.parent_path());
}

std::string to_toml(const EnsembleFile& file) {
  toml::table models, categories, document;
  for (const auto& [name, path] : file.models) models.insert(name, path.string());
  for (const auto& [name, model] : file.categories) {
    categories.insert(name, file.models[static_cast<size_t>(model)].name);
  }
  document.insert("router", file.router.string());
  document.insert("general", file.models[static_cast<size_t>(file.general)].name);
  if (file.memory > 0) document.insert("memory", fmt::format("{}", file.memory));
  document.insert("window", file.window);
  document.insert("models", std::move(models));
  document.insert("categories", std::move(categories));
  std::ostringstream text;
  text << document << '\n';
  return text.str();
}

}  // namespace cadre::ensemble
