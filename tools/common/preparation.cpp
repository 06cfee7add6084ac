#include "tools/common/preparation.h"

#include <algorithm>
#include <functional>
#include <set>

#include <nlohmann/json.hpp>

#include "cadre/base/error.h"
#include "cadre/base/interrupt.h"
#include "cadre/base/log.h"
#include "cadre/base/progress.h"
#include "cadre/base/units.h"
#include "cadre/formats/corpus.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"
#include "cadre/formats/token_file.h"
#include "tools/common/json_text.h"

namespace cadre {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kManifest = "data.json";
constexpr int64_t kMib = int64_t{1} << 20;
constexpr int64_t kKib = int64_t{1} << 10;

std::vector<DomainSource> debian_sources(const fs::path& root) {
  std::vector<DomainSource> sources;
  for (const auto& domain : debian_domains()) {
    sources.push_back({.name = domain.name, .paths = {}, .debian = &domain, .root = root});
    for (const auto& path : domain.paths) sources.back().paths.push_back(root / path);
  }
  return sources;
}

std::vector<DomainSource> named_sources(const std::vector<std::string>& domains) {
  std::vector<DomainSource> sources;
  std::set<std::string> names;
  for (const auto& option : domains) {
    auto [name, path] = parse_domain_option(option);
    if (!names.insert(name).second) throw UsageError("--domain: the name '{}' stands twice", name);
    sources.push_back({.name = name, .paths = {path}});
  }
  return sources;
}

std::vector<DomainSource> sources_of(const PreparationOptions& options) {
  return options.domains.empty() ? debian_sources(options.debian_root)
                                 : named_sources(options.domains);
}

/// "NAME=/absolute/path", or "debian NAME" for text of Debian's.
std::string label_of(const DomainSource& source) {
  if (source.debian != nullptr) return "debian " + source.name;
  return source.name + "=" + fs::absolute(source.paths.front()).lexically_normal().string();
}

void for_each_file(const fs::path& path, const std::function<void(const fs::path&)>& visit) {
  std::error_code unreadable;
  if (!fs::is_directory(path, unreadable)) return visit(path);
  constexpr auto kSkip = fs::directory_options::skip_permission_denied;
  for (fs::recursive_directory_iterator it(path, kSkip, unreadable), end; it != end;
       it.increment(unreadable)) {
    if (it->is_regular_file(unreadable)) visit(it->path());
  }
}

/// What tells, without reading it, that text has changed: number of files, their bytes, the
/// newest's time.
Json state_of(const std::vector<fs::path>& paths) {
  int64_t files = 0;
  int64_t bytes = 0;
  int64_t newest = 0;
  const auto count = [&](const fs::path& file) {
    std::error_code gone;
    const auto size = fs::file_size(file, gone);
    const auto time = fs::last_write_time(file, gone);
    if (gone) return;
    ++files;
    bytes += static_cast<int64_t>(size);
    newest = std::max<int64_t>(newest, time.time_since_epoch().count());
  };
  for (const auto& path : paths) for_each_file(path, count);
  return {{"files", files}, {"bytes", bytes}, {"newest", newest}};
}

Json options_json(const PreparationOptions& options, const std::vector<DomainSource>& sources) {
  Json domains = Json::array();
  for (const auto& source : sources) {
    domains.push_back(label_of(source));
  }
  return {{"domain", domains},
          {"tokenizer", options.tokenizer},
          {"vocabulary", options.vocabulary},
          {"max-domain-mib", options.max_domain_mib},
          {"hold-out-every", options.hold_out_every},
          {"block-kib", options.block_kib}};
}

Json text_json(const std::vector<DomainSource>& sources, const std::string& tokenizer) {
  Json text = Json::object();
  for (const auto& source : sources) text[source.name] = state_of(source.paths);
  if (!tokenizer.empty()) text["--tokenizer"] = state_of({tokenizer});
  return text;
}

Domain read_source(const DomainSource& source, int64_t max_domain_mib) {
  const CorpusLimits limits{.max_bytes = max_domain_mib * kMib};
  if (source.debian == nullptr) return read_domain(source.name, source.paths.front(), limits);
  return read_debian_domain(*source.debian, limits, source.root);
}

std::vector<Domain> read_domains(const std::vector<DomainSource>& sources, int64_t max_domain_mib) {
  std::vector<Domain> domains;
  Progress progress(
      {.label = "read text", .total = static_cast<int64_t>(sources.size()), .unit = "domains"});
  for (const auto& source : sources) {
    domains.push_back(read_source(source, max_domain_mib));
    progress.field(source.name, format_bytes(static_cast<uint64_t>(domains.back().bytes())));
    progress.advance();
  }
  return domains;
}

/// Blocks of the size asked for, or smaller ones so that kFewestHeldOut of a small domain's are
/// held out.
HeldOutSplit hold_out(const Domain& domain, const PreparationOptions& options) {
  constexpr int64_t kFewestHeldOut = 4;
  constexpr int64_t kSmallestBlock = 64;
  const int64_t enough = domain.bytes() / (options.hold_out_every * kFewestHeldOut);
  const int64_t block = std::clamp(enough, kSmallestBlock, options.block_kib * kKib);
  return split_held_out(domain.documents, block, options.hold_out_every);
}

Tokenizer make_tokenizer(const PreparationOptions& options,
                         const std::vector<HeldOutSplit>& splits) {
  if (!options.tokenizer.empty()) return Tokenizer::load(options.tokenizer);
  std::vector<std::string_view> texts;
  for (const auto& split : splits)
    texts.insert(texts.end(), split.training.begin(), split.training.end());
  constexpr int64_t kPercent = 100;
  Progress progress({.label = "train tokenizer", .total = kPercent, .unit = "%"});
  const auto advance = [&](double share) {
    progress.advance(static_cast<int64_t>(share * kPercent) - progress.done());
  };
  Tokenizer tokenizer =
      Tokenizer::train(texts, {.vocabulary = options.vocabulary, .progress = advance});
  advance(1.0);
  return tokenizer;
}

Json domain_json(const PreparedDomain& domain) {
  return {{"name", domain.name},
          {"source", domain.source},
          {"bytes", domain.bytes},
          {"train_tokens", domain.train_tokens},
          {"validation_tokens", domain.validation_tokens}};
}

fs::path token_path(const fs::path& folder, size_t domain, const char* part) {
  return folder / fmt::format("{:03}-{}.tokens", domain, part);
}

void check_length(const PreparedDomain& domain, int64_t length) {
  const auto check = [&](int64_t tokens, const char* part, const char* remedy) {
    if (tokens > length) return;
    throw UsageError(
        "domain '{}' ({}): its {} part of {} tokens is smaller than one sequence of {}: "
        "give it more text{}, or a smaller --length",
        domain.name, domain.source, part, tokens, length + 1, remedy);
  };
  check(domain.train_tokens, "training", "");
  check(domain.validation_tokens, "held-out", ", a smaller --hold-out-every");
}

void encode_all(const fs::path& folder, const Tokenizer& tokenizer,
                const std::vector<HeldOutSplit>& splits, std::vector<PreparedDomain>& domains) {
  Progress progress(
      {.label = "encode", .total = static_cast<int64_t>(domains.size()), .unit = "domains"});
  for (size_t d = 0; d < domains.size(); ++d) {
    domains[d].train_tokens =
        write_token_file(token_path(folder, d, "train"), tokenizer, splits[d].training);
    domains[d].validation_tokens =
        write_token_file(token_path(folder, d, "validation"), tokenizer, splits[d].validation);
    progress.advance();
  }
}

void write_manifest(const fs::path& folder, const Json& options, const Json& text,
                    const std::vector<PreparedDomain>& domains) {
  Json list = Json::array();
  for (const auto& domain : domains) list.push_back(domain_json(domain));
  write_file(folder / kManifest,
             Json{{"options", options}, {"text", text}, {"domains", list}}.dump(2) + "\n");
}

void prepare_anew(const fs::path& folder, const PreparationOptions& options,
                  const std::vector<DomainSource>& sources, const Json& text, int64_t length) {
  const std::vector<Domain> read = read_domains(sources, options.max_domain_mib);
  std::vector<HeldOutSplit> splits;
  std::vector<PreparedDomain> domains;
  for (size_t d = 0; d < read.size(); ++d) {
    splits.push_back(hold_out(read[d], options));
    domains.push_back(
        {.name = sources[d].name, .source = label_of(sources[d]), .bytes = read[d].bytes()});
  }
  const Tokenizer tokenizer = make_tokenizer(options, splits);
  AtomicFolder target(folder);
  tokenizer.save(target.staging() / "tokenizer.json");
  encode_all(target.staging(), tokenizer, splits, domains);
  for (const auto& domain : domains) check_length(domain, length);
  write_manifest(target.staging(), options_json(options, sources), text, domains);
  target.commit();
}

bool usable(const fs::path& folder, const Json& options, const Json& text, ChangedText changed) {
  if (!fs::exists(folder / kManifest)) return false;
  const Json manifest = parse_json(read_file(folder / kManifest), (folder / kManifest).string());
  const std::string difference =
      first_difference(manifest.value("options", Json::object()), options);
  const bool same_text = manifest.value("text", Json::object()) == text;
  if (difference.empty() && same_text) return true;
  if (changed == ChangedText::kPrepareAgain) {
    logger().info("preparing {} again: {}", folder.string(),
                  difference.empty() ? "the text has changed" : "it was made with " + difference);
    return false;
  }
  if (!difference.empty()) {
    throw UsageError("{} was made with {}: use another --out, or --restart to begin anew",
                     folder.string(), difference);
  }
  logger().warn(
      "the text has changed since {} was made; going on with what it holds (--restart begins anew)",
      folder.string());
  return true;
}

}  // namespace

void add_preparation_options(CommandLine& line, PreparationOptions& options) {
  line.add(kDataGroup, "--domain", options.domains,
           "NAME=PATH: text of one domain, a file or a folder; once for each domain; without any, "
           "text of Debian packages: code, manual pages, literature, a dictionary")
      ->allow_extra_args(false);
  line.add(kDataGroup, "--debian-root", options.debian_root,
           "Folder that holds those Debian packages' files");
  line.add(kDataGroup, "--tokenizer", options.tokenizer,
           "Use this tokenizer.json (or the folder that holds it) instead of training one");
  line.add(kDataGroup, "--vocabulary", options.vocabulary,
           "Tokens of the tokenizer that is trained")
      ->check(CLI::Range(257, 1 << 20));
  line.add(kDataGroup, "--max-domain-mib", options.max_domain_mib,
           "Read at most this many MiB of each domain")
      ->check(CLI::Range(1, 1 << 20));
  line.add(kDataGroup, "--hold-out-every", options.hold_out_every,
           "Hold out every so many-th block of each domain's text for validation")
      ->check(CLI::Range(2, 1000));
  line.add(kDataGroup, "--block-kib", options.block_kib,
           "KiB of each block of text that is held out")
      ->check(CLI::Range(1, 1 << 20));
}

PreparedData load_prepared(const fs::path& folder) {
  const fs::path manifest_path = folder / kManifest;
  const Json manifest = parse_json(read_file(manifest_path), manifest_path.string());
  PreparedData data{
      .folder = folder, .tokenizer = Tokenizer::load(folder / "tokenizer.json"), .domains = {}};
  try {
    for (const Json& entry : manifest.at("domains")) {
      const size_t d = data.domains.size();
      data.domains.push_back({.name = entry.at("name"),
                              .source = entry.at("source"),
                              .bytes = entry.at("bytes"),
                              .train_tokens = entry.at("train_tokens"),
                              .validation_tokens = entry.at("validation_tokens"),
                              .train = token_path(folder, d, "train"),
                              .validation = token_path(folder, d, "validation")});
    }
  } catch (const Json::exception& error) {
    throw FormatError("{}: {}: remove the folder to prepare it again", manifest_path.string(),
                      error.what());
  }
  return data;
}

PreparedData prepare_data(const fs::path& folder, const PreparationOptions& options, int64_t length,
                          ChangedText changed) {
  const std::vector<DomainSource> sources = sources_of(options);
  const Json text = text_json(sources, options.tokenizer);
  if (!usable(folder, options_json(options, sources), text, changed)) {
    prepare_anew(folder, options, sources, text, length);
  }
  PreparedData data = load_prepared(folder);
  for (const auto& domain : data.domains) check_length(domain, length);
  return data;
}

PreparedData encode_domains(const fs::path& folder, const std::vector<std::string>& domains,
                            const Tokenizer& tokenizer, int64_t max_domain_mib) {
  const std::vector<DomainSource> sources = named_sources(domains);
  const std::vector<Domain> read = read_domains(sources, max_domain_mib);
  PreparedData data{.folder = folder, .tokenizer = tokenizer, .domains = {}};
  for (size_t d = 0; d < read.size(); ++d) {
    const std::vector<std::string_view> texts(read[d].documents.begin(), read[d].documents.end());
    const fs::path path = token_path(folder, d, "validation");
    const int64_t tokens = write_token_file(path, tokenizer, texts);
    data.domains.push_back({.name = sources[d].name,
                            .source = label_of(sources[d]),
                            .bytes = read[d].bytes(),
                            .validation_tokens = tokens,
                            .train = path,
                            .validation = path});
  }
  return data;
}

}  // namespace cadre
