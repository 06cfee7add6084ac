#include "tools/common/engine_options.h"

#include <sys/resource.h>

#include <charconv>
#include <iostream>
#include <iterator>
#include <map>

#include "cadre/base/error.h"
#include "cadre/base/terminal.h"
#include "cadre/base/timer.h"
#include "cadre/base/units.h"
#include "cadre/engine/expert_usage.h"
#include "cadre/engine/open_experts.h"
#include "cadre/engine/pack.h"
#include "cadre/engine/tensor_source.h"
#include "cadre/formats/file.h"
#include "cadre/formats/utf8.h"

namespace cadre {
namespace {

using engine::ExpertStorage;

const std::map<std::string, ExpertStorage> kStorages = {{"auto", ExpertStorage::kAuto},
                                                        {"resident", ExpertStorage::kResident},
                                                        {"direct", ExpertStorage::kDirect},
                                                        {"pread", ExpertStorage::kPread},
                                                        {"mmap", ExpertStorage::kMmap}};

int64_t bytes_of(const std::string& option, const std::string& text) {
  try {
    const uint64_t bytes = parse_bytes(text);
    if (bytes <= static_cast<uint64_t>(INT64_MAX)) return static_cast<int64_t>(bytes);
  } catch (const UsageError& error) {
    throw UsageError("{}: {}", option, error.what());
  }
  throw UsageError("{}: {} is more than any machine has", option, text);
}

int64_t all_expert_bytes(const std::string& model, const engine::ModelOptions& options) {
  const auto source = engine::open_source(model);
  if (source->spec().experts == 0) {
    throw UsageError("--expert-memory: {} has no experts", source->where());
  }
  const engine::ExpertFiles files =
      engine::open_expert_files(*source, engine::packed_types(*source, options));
  return files.count() * files.slot_bytes();
}

int64_t expert_memory_of(const EngineOptions& options, const engine::ModelOptions& model) {
  const std::string& text = options.expert_memory;
  if (!text.ends_with('%')) return bytes_of("--expert-memory", text);
  double percent = 0;
  const char* end = text.data() + text.size() - 1;
  const auto parsed = std::from_chars(text.data(), end, percent);
  if (parsed.ec != std::errc() || parsed.ptr != end || !(percent >= 0 && percent <= 100)) {
    throw UsageError("--expert-memory: '{}' is no percentage from 0% to 100%", text);
  }
  return static_cast<int64_t>(percent / 100 *
                              static_cast<double>(all_expert_bytes(options.model, model)));
}

}  // namespace

void add_engine_options(CommandLine& line, EngineOptions& options) {
  std::vector<std::string> storages;
  for (const auto& [name, storage] : kStorages) storages.push_back(name);
  line.add("model", "model", options.model, "GGUF file, pack or checkpoint folder")->required();
  line.add(kEngineGroup, "--memory", options.memory,
           "Bytes for the whole process (2GiB); none = what is free, less a margin");
  line.add(kEngineGroup, "--expert-memory", options.expert_memory,
           "Bytes for experts, or a share of them all (50%); none = what --memory leaves");
  line.add(kEngineGroup, "--context", options.context,
           "Tokens of a sequence at most; 0 = the model's, but no more than 4096")
      ->check(CLI::NonNegativeNumber);
  add_kv_type(line, kEngineGroup, options.kv_type);
  line.add(kEngineGroup, "--cache-policy", options.cache_policy,
           "Which experts stay in memory: score, lru, lfu, plec");
  line.add(kEngineGroup, "--predictor", options.predictor,
           "What names the next experts: gate, coactivation, frequency, previous, path, none");
  line.add(kEngineGroup, "--predictor-file", options.predictor_file,
           "Weights of the path predictor (cadre train-predictor)");
  line.add(kEngineGroup, "--storage", options.storage, "How experts are read from the disk")
      ->check(CLI::IsMember(storages));
}

void add_kv_type(CommandLine& line, const std::string& group, std::string& name) {
  std::vector<std::string> names;
  for (const auto& [known, type] : engine::kKvTypes) names.emplace_back(known);
  line.add(group, "--kv-type", name, "What keys and values are kept as; q8 = half the bytes")
      ->check(CLI::IsMember(names));
}

engine::KvType kv_type_named(const std::string& name) {
  for (const auto& [known, type] : engine::kKvTypes) {
    if (known == name) return type;
  }
  throw UsageError("--kv-type '{}' is not known", name);
}

void add_routing_options(CommandLine& line, engine::RoutingOverrides& routing,
                         const std::string& top_p_names) {
  line.app()
      .add_option("--experts-per-token", routing.experts_per_token,
                  "Experts of a token, instead of the model's")
      ->group("routing")
      ->check(CLI::PositiveNumber);
  line.app()
      .add_option(top_p_names, routing.top_p,
                  "Drop a token's last experts once the others hold this share of its weight; of a "
                  "top_p router its p")
      ->group("routing")
      ->check(CLI::Range(0.0, 1.0));
  line.add("routing", "--null-bias", routing.null_bias,
           "Added to the logits of null experts: above 0 = fewer true experts a token");
  line.add("routing", "--skip-cold", routing.skip_cold,
           "Skip an expert not in memory whose weight is below this share of 1 / k; 0 = never")
      ->check(CLI::Range(0.0, 1.0));
}

engine::ModelOptions model_options(const EngineOptions& options, int threads) {
  engine::ModelOptions result;
  if (!options.memory.empty()) {
    result.memory = bytes_of("--memory", options.memory);
    if (result.memory == 0) throw UsageError("--memory is 0; say how many bytes");
  }
  result.threads = threads;
  result.context = options.context;
  result.kv_type = kv_type_named(options.kv_type);
  result.storage = kStorages.at(options.storage);
  result.cache_policy = options.cache_policy;
  result.predictor = options.predictor;
  result.predictor_file = options.predictor_file;
  result.usage_folder = engine::cache_folder();
  if (!options.expert_memory.empty()) result.expert_memory = expert_memory_of(options, result);
  return result;
}

std::shared_ptr<engine::Model> open_model(const EngineOptions& options, int threads) {
  const Stopwatch watch;
  if (is_terminal(stderr)) set_live_line(stderr, "loading " + options.model);
  auto model = engine::Model::open(options.model, model_options(options, threads));
  model->routing = options.routing;
  if (is_terminal(stderr)) clear_live_line(stderr);
  print_line(stderr, fmt::format("{}: {} loaded in {}", options.model, model->spec().architecture,
                                 format_duration(watch.seconds())));
  return model;
}

int64_t context_of(const EngineOptions& options, const engine::ModelSpec& spec) {
  return options.context > 0 ? options.context : std::min<int64_t>(spec.context, 4096);
}

std::string describe(const engine::ExpertCounters& counters) {
  if (counters.hits + counters.misses == 0) return {};
  return fmt::format("{:.1f} % of experts from memory, {} read, waited {}",
                     100 * engine::hit_rate(counters),
                     format_bytes(static_cast<uint64_t>(counters.bytes_read)),
                     format_duration(counters.stall_seconds));
}

int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

void check_text(const std::string& text, const std::string& what) {
  if (text.empty()) throw UsageError("{} is empty; give at least one character", what);
  const int64_t invalid = find_invalid_utf8(text);
  if (invalid >= 0) throw UsageError("{} is not UTF-8: byte {} is invalid", what, invalid);
}

std::string read_text(const std::string& path) {
  std::string text =
      path == "-" ? std::string(std::istreambuf_iterator<char>(std::cin), {}) : read_file(path);
  check_text(text, path == "-" ? "standard input" : path);
  return text;
}

}  // namespace cadre
