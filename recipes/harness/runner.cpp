#include "recipes/harness/runner.h"

#include <fmt/format.h>
#include <torch/torch.h>
#include <xxhash.h>

#include <algorithm>
#include <map>
#include <optional>

#include "cadre/base/interrupt.h"
#include "cadre/base/log.h"
#include "cadre/base/progress.h"
#include "cadre/base/timer.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"

namespace cadre::recipes {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int64_t kFullSeeds = 3, kSmokeSeeds = 1;

/// Results of another program are not these results, whatever changed in it.
std::string program_fingerprint() {
  const MappedFile program("/proc/self/exe");
  return fmt::format("{:016x}", XXH3_64bits(program.bytes().data(), program.bytes().size()));
}

/// What a stored run must have been made with to stand for this one.
Json provenance(const std::string& recipe, const RunOptions& options) {
  const auto [size, idea] = options.setting;
  return {{"recipe", recipe},
          {"program", program_fingerprint()},
          {"size", size == Size::kFull ? "full" : "smoke"},
          {"idea", idea == Idea::kReal ? "real" : "stub"},
          {"data", options.data.empty() ? "" : fs::absolute(options.data).string()}};
}

/// The runs of an out folder.
class Store {
 public:
  Store(const fs::path& out, Json made_with)
      : folder_(out / "runs"), made_with_(std::move(made_with)) {
    std::error_code failed;
    fs::create_directories(folder_, failed);
    if (failed) throw IoError("cannot make folder {}: {}", folder_.string(), failed.message());
  }

  std::optional<RunResult> find(const std::string& arm, uint64_t seed) const {
    const fs::path path = path_of(arm, seed);
    if (!fs::exists(path)) return std::nullopt;
    const auto json = parse_json(read_file(path), path.string());
    if (!json.is_object() || json.value("made_with", nlohmann::json()) != made_with_) {
      logger().info("{}: of another program or setting; measured again", path.string());
      return std::nullopt;
    }
    return run_from_json(json, path.string());
  }

  void keep(const RunResult& run) const {
    Json json = to_json(run);
    json["made_with"] = made_with_;
    write_file(path_of(run.arm, run.seed), json.dump(1) + "\n");
  }

 private:
  fs::path path_of(const std::string& arm, uint64_t seed) const {
    return folder_ / fmt::format("{}-seed{}.json", arm, seed);
  }

  fs::path folder_;
  nlohmann::json made_with_;
};

RunResult measure(const Arm& arm, const ArmRun& run) {
  torch::manual_seed(run.seed);
  const Stopwatch watch;
  Measurements measured = arm.measure(run);
  return {arm.name, run.seed, watch.seconds(), std::move(measured)};
}

std::vector<RunResult> run_arms(const RecipeEntry& entry, const Recipe& recipe,
                                const RunOptions& options) {
  const int64_t default_seeds = options.setting.size == Size::kFull ? kFullSeeds : kSmokeSeeds;
  const int64_t seeds = options.seeds > 0 ? options.seeds : default_seeds;
  const Store store(options.out, provenance(entry.name, options));
  std::vector<RunResult> runs;
  for (const Arm& arm : recipe.arms) {
    const int64_t arm_seeds = arm.seeds > 0 ? std::min(arm.seeds, seeds) : seeds;
    for (int64_t seed = 1; seed <= arm_seeds; ++seed) {
      auto run = store.find(arm.name, seed);
      if (!run) {
        run = measure(arm, {.setting = options.setting,
                            .seed = static_cast<uint64_t>(seed),
                            .label = fmt::format("{}: {}, seed {}", entry.name, arm.name, seed),
                            .data = options.data});
        store.keep(*run);
      }
      runs.push_back(std::move(*run));
    }
  }
  return runs;
}

std::vector<std::string> draw(const Recipe& recipe, const Results& results, const fs::path& out) {
  std::vector<std::string> files;
  if (!recipe.pictures) return files;
  for (const Picture& picture : recipe.pictures(results)) {
    std::visit([&](const auto& chart) { write_plot(chart, out / picture.file); }, picture.chart);
    files.push_back(picture.file);
  }
  return files;
}

}  // namespace

int Interrupted::exit_code() const noexcept { return interrupt_exit_code(); }

void ArmRun::steps(int64_t count, const std::function<void(int64_t step)>& body) const {
  Progress progress({.label = label, .total = count});
  for (int64_t step = 0; step < count; ++step) {
    if (interrupted()) {
      throw Interrupted("stopped; finished runs are stored, the same command goes on from there");
    }
    body(step);
    progress.advance();
  }
  progress.finish();
}

Outcome run_recipe(const RecipeEntry& entry, const RunOptions& options) {
  Recipe recipe = entry.make(options.setting);
  Results results(options.setting, run_arms(entry, recipe, options));
  Criterion criterion(results);
  recipe.accept(criterion);
  auto pictures = draw(recipe, results, options.out);
  auto remarks = recipe.remarks ? recipe.remarks(results) : std::vector<std::string>();
  return {.recipe = std::move(recipe),
          .results = results,
          .checks = criterion.checks(),
          .passed = criterion.passed(),
          .pictures = std::move(pictures),
          .remarks = std::move(remarks)};
}

}  // namespace cadre::recipes
