#include "cadre/formats/data_sets.h"

#include <algorithm>
#include <cstdlib>

#include "cadre/base/error.h"
#include "cadre/base/text.h"
#include "cadre/formats/file.h"
#include "cadre/formats/gzip.h"

namespace cadre {
namespace {

namespace fs = std::filesystem;

/// Fashion-MNIST's training images are 47 MB.
constexpr int64_t kMostUnpacked = int64_t{1} << 30;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool holds_all(const fs::path& folder, const DataSet& set) {
  std::error_code ignored;
  return std::all_of(set.files.begin(), set.files.end(), [&](const std::string& file) {
    return fs::is_regular_file(folder / file, ignored);
  });
}

std::string how_to_get(const DataSet& set) {
  const auto* debian = std::get_if<DebianOrigin>(&set.origin);
  const std::string install =
      debian == nullptr ? "" : fmt::format(", or install the package {}", debian->package);
  return fmt::format("run `cadre data get {}`{}, or name its folder with --data", set.name,
                     install);
}

/// The same handbook in several languages.
DataSet debian_reference(const std::string& code, const std::string& language) {
  const std::string package = "debian-reference-" + code;
  return {.name = package,
          .help = "the Debian Reference in " + language + ": about 1 MB of text",
          .licence = "GPL-2+",
          .origin = DebianOrigin{package, "usr/share/debian-reference"},
          .files = {"debian-reference." + code + ".txt.gz"}};
}

}  // namespace

const std::vector<DataSet>& data_sets() {
  static const std::vector<DataSet> sets = {
      {.name = "digits",
       .help = "UCI handwritten digits: 1797 images of 8x8, 10 classes",
       .licence = "CC BY 4.0; scikit-learn BSD-3",
       .origin =
           DebianOrigin{"python3-sklearn", "usr/lib/python3/dist-packages/sklearn/datasets/data"},
       .files = {"digits.csv.gz"}},
      {.name = "fashion-mnist",
       .help = "Fashion-MNIST: 60000 + 10000 images of 28x28, 10 classes",
       .licence = "MIT",
       .origin = DebianOrigin{"dataset-fashion-mnist", "usr/share/datasets/fashion-mnist"},
       .files = {"train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
                 "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"}},
      {.name = "tinyshakespeare",
       .help = "plays of Shakespeare: 1.1 MB of text",
       .licence = "public domain",
       .origin = UrlOrigin{"https://raw.githubusercontent.com/karpathy/char-rnn/master/data/"
                           "tinyshakespeare/input.txt",
                           "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
       .files = {"input.txt"}},
      debian_reference("en", "English"),
      debian_reference("de", "German"),
      debian_reference("es", "Spanish"),
      debian_reference("ja", "Japanese"),
      debian_reference("fr", "French"),
      {.name = "skills",
       .help = "regression on mixtures of random teachers (cadre/data/skills.h)",
       .licence = "-",
       .origin = GeneratedOrigin{}},
      {.name = "routing-memory",
       .help = "regression whose routing only the first layer sees (cadre/data/routing_memory.h)",
       .licence = "-",
       .origin = GeneratedOrigin{}},
  };
  return sets;
}

const DataSet& data_set_named(std::string_view name) {
  std::vector<std::string> names;
  for (const DataSet& set : data_sets()) {
    if (set.name == name) return set;
    names.push_back(set.name);
  }
  throw UsageError("no data set is called '{}'{} (cadre data list shows them)", one_line(name),
                   did_you_mean(name, names));
}

fs::path data_folder(const DataSet& set) {
  if (const auto own = environment("CADRE_DATA"); !own.empty()) return fs::path(own) / set.name;
  if (const auto cache = environment("XDG_CACHE_HOME"); !cache.empty()) {
    return fs::path(cache) / "cadre/data" / set.name;
  }
  return fs::path(environment("HOME")) / ".cache/cadre/data" / set.name;
}

std::optional<fs::path> find_data(const DataSet& set, const fs::path& given) {
  std::vector<fs::path> folders;
  if (!given.empty()) folders = {given / set.name, given};
  folders.push_back(data_folder(set));
  if (const auto* debian = std::get_if<DebianOrigin>(&set.origin)) {
    folders.push_back(fs::path("/") / debian->folder);
  }
  if (!set.shared.empty()) {
    const auto shared = environment("CADRE_SHARED_DATA");
    folders.push_back(fs::path(shared.empty() ? "../shared/data" : shared) / set.shared);
  }
  const auto found = std::find_if(folders.begin(), folders.end(),
                                  [&](const fs::path& folder) { return holds_all(folder, set); });
  return found == folders.end() ? std::nullopt : std::optional(*found);
}

std::string read_data(const DataSet& set, const std::string& file, const fs::path& given) {
  const auto folder = find_data(set, given);
  if (!folder) throw UsageError("data set {} is not here: {}", set.name, how_to_get(set));
  const fs::path path = *folder / file;
  std::string bytes = read_file(path);
  return path.extension() == ".gz" ? gunzip(bytes, path.string(), kMostUnpacked) : bytes;
}

}  // namespace cadre
