/// cadre data: the data sets that recipes read, and getting them.

#include <iostream>

#include <nlohmann/json.hpp>

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "cadre/base/progress.h"
#include "cadre/base/table.h"
#include "cadre/formats/data_sets.h"
#include "cadre/formats/file.h"
#include "tools/common/command_line.h"
#include "tools/common/json_text.h"
#include "tools/common/temporary_folder.h"
#include "tools/data/debian_package.h"
#include "tools/data/download.h"

namespace {

using namespace cadre;
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

struct Options {
  std::string name, out, from;
  bool json = false;
};

std::string origin_text(const DataSet& set) {
  if (const auto* debian = std::get_if<DebianOrigin>(&set.origin)) {
    return "package " + debian->package;
  }
  if (const auto* url = std::get_if<UrlOrigin>(&set.origin)) return url->url;
  return "generated";
}

std::string place_text(const DataSet& set) {
  if (std::holds_alternative<GeneratedOrigin>(set.origin)) return "always";
  const auto folder = find_data(set);
  return folder ? folder->string() : "no";
}

int list(const Options& options) {
  Json json = Json::array();
  Table table({"data set", "what it is", "licence", "from", "here"});
  for (const DataSet& set : data_sets()) {
    json.push_back({{"name", set.name},
                    {"help", set.help},
                    {"licence", set.licence},
                    {"origin", origin_text(set)},
                    {"here", place_text(set)}});
    table.add_row({set.name, set.help, set.licence, origin_text(set), place_text(set)});
  }
  std::cout << (options.json ? pretty(json) : table.str());
  return 0;
}

void fill(const DataSet& set, const DebianOrigin& origin, const Options& options,
          const fs::path& folder) {
  const TemporaryFolder work;
  const fs::path deb =
      options.from.empty() ? fetch_package(origin.package, work.path()) : fs::path(options.from);
  const fs::path tree = work.path() / "tree";
  fs::create_directory(tree);
  unpack_package(deb, tree);
  for (const std::string& file : set.files) {
    const fs::path source = tree / origin.folder / file;
    if (!fs::exists(source)) {
      throw FormatError("{}: has no {}", deb.string(), (fs::path(origin.folder) / file).string());
    }
    fs::copy_file(source, folder / file);
  }
}

void fill(const DataSet& set, const UrlOrigin& origin, const Options& options,
          const fs::path& folder) {
  constexpr int64_t kKiB = 1024;
  Progress progress({.label = "get " + set.name, .unit = "KiB"});
  int64_t bytes = 0;
  download({.url = options.from.empty() ? origin.url : options.from,
            .sha256 = origin.sha256,
            .file = folder / set.files.front(),
            .on_bytes = [&](int64_t more) {
              bytes += more;
              progress.advance(bytes / kKiB - progress.done());
            }});
  progress.finish();
}

int get(const Options& options) {
  const DataSet& set = data_set_named(options.name);
  if (std::holds_alternative<GeneratedOrigin>(set.origin)) {
    std::cout << fmt::format("{} is generated when it is used: nothing to get\n", set.name);
    return 0;
  }
  const fs::path out = options.out.empty() ? data_folder(set) : fs::path(options.out);
  AtomicFolder folder(out);
  if (const auto* debian = std::get_if<DebianOrigin>(&set.origin)) {
    fill(set, *debian, options, folder.staging());
  } else {
    fill(set, std::get<UrlOrigin>(set.origin), options, folder.staging());
  }
  folder.commit();
  const Json json = {{"name", set.name}, {"folder", out.string()}, {"files", set.files}};
  if (options.json) {
    std::cout << pretty(json);
  } else {
    std::cout << fmt::format("{} is in {} ({})\n", set.name, out.string(), set.licence);
  }
  return 0;
}

int run(int argc, char** argv) {
  Options options;
  CommandLine line("data",
                   "Recipes find a set where --data points, where 'get' puts it, in its installed "
                   "package, or in $CADRE_SHARED_DATA.");
  line.app().require_subcommand(1);
  CLI::App& list_app = *line.app().add_subcommand("list", "show the sets and where they are");
  CLI::App& get_app = *line.app().add_subcommand("get", "fetch a set; a checksum or apt vouches");
  get_app.add_option("name", options.name, "The set's name")->required();
  get_app.add_option("--out", options.out, "Folder for it (default ~/.cache/cadre/data/NAME)");
  get_app.add_option("--from", options.from,
                     "Another place with the same bytes: a URL, or a .deb file of the package");
  for (CLI::App* app : {&list_app, &get_app}) {
    app->add_flag("--json", options.json, "Print JSON");
  }
  if (const auto done = line.parse(argc, argv)) return *done;
  return list_app.parsed() ? list(options) : get(options);
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("data", [&] { return run(argc, argv); });
}
