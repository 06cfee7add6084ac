#pragma once

/// The options of every verb that runs a model through the engine.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cadre/engine/perplexity.h"
#include "cadre/engine/scheduler.h"
#include "cadre/engine/session.h"
#include "tools/common/command_line.h"

namespace cadre {

inline constexpr const char* kEngineGroup = "engine";

struct EngineOptions {
  std::string model;
  std::string memory, expert_memory;  ///< as typed
  std::string storage = "auto", cache_policy = "score", predictor = "gate", predictor_file;
  std::string kv_type = "bf16";
  int64_t context = 0;
  engine::RoutingOverrides routing;
};

/// The positional MODEL, --memory, --expert-memory and so on.
void add_engine_options(CommandLine& line, EngineOptions& options);

/// --experts-per-token, --expert-top-p, --null-bias, --skip-cold. Where no tokens are drawn, the
/// second may be called --top-p, too.
void add_routing_options(CommandLine& line, engine::RoutingOverrides& routing,
                         const std::string& top_p_names = "--expert-top-p");

/// --kv-type and the type of that name.
void add_kv_type(CommandLine& line, const std::string& group, std::string& name);
engine::KvType kv_type_named(const std::string& name);

/// What the engine is asked for. "50%" of --expert-memory is of the bytes of all routed experts,
/// as they lie in memory. Throws UsageError that names the option.
engine::ModelOptions model_options(const EngineOptions& options, int threads);

/// Opens the model, saying so on stderr with the time it took.
std::shared_ptr<engine::Model> open_model(const EngineOptions& options, int threads);

/// Tokens a sequence of this model may have under the options.
int64_t context_of(const EngineOptions& options, const engine::ModelSpec& spec);

/// "87.2 % of experts from memory, 1.2 GiB read, waited 0.42 s"; empty when none was asked for.
std::string describe(const engine::ExpertCounters& counters);

/// The most memory this process has had in use so far.
int64_t peak_resident_bytes();

/// Text from a file, or standard input for "-", checked to be UTF-8 and not empty. Throws IoError,
/// UsageError.
std::string read_text(const std::string& path);
/// Throws UsageError that says where it is not UTF-8, or that it is empty.
void check_text(const std::string& text, const std::string& what);

}  // namespace cadre
