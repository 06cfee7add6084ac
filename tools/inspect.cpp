/// cadre inspect: what is in a checkpoint, read from its config and headers only: no weights are
/// loaded.

#include <nlohmann/json.hpp>

#include <array>
#include <fstream>
#include <iostream>
#include <map>

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "cadre/base/table.h"
#include "cadre/base/units.h"
#include "cadre/formats/model_config.h"
#include "cadre/formats/safetensors.h"
#include "cadre/formats/token_file.h"
#include "cadre/formats/tokenizer.h"
#include "tools/common/command_line.h"
#include "tools/common/inspect_gguf.h"
#include "tools/common/json_text.h"

namespace {

using namespace cadre;
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

struct Options {
  fs::path checkpoint;
  bool json = false;
  bool tensors = false;
};

struct DTypeTotal {
  int64_t tensors = 0, elements = 0, bytes = 0;
};

std::map<std::string, DTypeTotal> totals_by_dtype(const SafetensorsReader& reader) {
  std::map<std::string, DTypeTotal> totals;
  for (const auto& [name, view] : reader.tensors()) {
    DTypeTotal& total = totals[std::string(name_of(view.dtype))];
    ++total.tensors;
    total.elements += view.elements();
    total.bytes += static_cast<int64_t>(view.bytes.size());
  }
  return totals;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

/// What the checkpoint lacks or has otherwise than its config says; empty when it is whole.
std::vector<std::string> faults_of(const ModelConfig& config, const SafetensorsReader& reader) {
  std::vector<std::string> faults;
  for (const auto& [name, shape] : expected_tensors(config)) {
    if (!reader.contains(name)) {
      faults.push_back(name + " is missing");
    } else if (reader.tensor(name).shape != shape) {
      faults.push_back(fmt::format("{} is {}, should be {}", name,
                                   shape_text(reader.tensor(name).shape), shape_text(shape)));
    }
  }
  return faults;
}

Json tensors_json(const SafetensorsReader& reader) {
  Json list = Json::array();
  for (const auto& [name, view] : reader.tensors()) {
    list.push_back({{"name", name},
                    {"dtype", name_of(view.dtype)},
                    {"shape", view.shape},
                    {"bytes", view.bytes.size()}});
  }
  return list;
}

Json model_json(const ModelConfig& config) {
  const ParameterCount count = count_parameters(config);
  return {{"architecture", name_of(config.architecture)},
          {"parameters",
           {{"total", count.total},
            {"active", count.active},
            {"embedding", count.embedding},
            {"per_expert", count.per_expert}}},
          {"vocabulary", config.vocabulary},
          {"hidden", config.hidden},
          {"layers", config.layers},
          {"heads", config.heads},
          {"kv_heads", config.kv_heads},
          {"context", config.max_positions},
          {"experts", config.experts},
          {"experts_per_token", config.experts_per_token},
          {"shared_experts", config.shared_experts},
          {"expert_intermediate", config.expert_intermediate},
          {"first_dense_layers", config.first_dense_layers}};
}

std::map<std::string, uint64_t> file_sizes(const fs::path& folder) {
  std::map<std::string, uint64_t> sizes;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file()) sizes[entry.path().filename()] = entry.file_size();
  }
  return sizes;
}

std::string count_text(int64_t count) { return format_count(static_cast<double>(count)); }

void print_model(const ModelConfig& config) {
  const ParameterCount count = count_parameters(config);
  std::cout << fmt::format(
      "architecture  {}: {} layers, hidden {}, {} heads ({} kv), vocabulary {}, context {}\n",
      name_of(config.architecture), config.layers, config.hidden, config.heads, config.kv_heads,
      config.vocabulary, config.max_positions);
  std::cout << fmt::format("parameters    {} total, {} active per token, {} in embeddings\n",
                           count_text(count.total), count_text(count.active),
                           count_text(count.embedding));
  if (config.experts == 0) return;
  std::cout << fmt::format(
      "experts       {} a layer, {} per token, {} shared; inner width {}; {} parameters each\n",
      config.experts, config.experts_per_token, config.shared_experts, config.expert_intermediate,
      count_text(count.per_expert));
}

void print_tensors(const SafetensorsReader& reader) {
  Table table({"tensor", "dtype", "shape"});
  for (const auto& [name, view] : reader.tensors()) {
    table.add_row({name, std::string(name_of(view.dtype)), shape_text(view.shape)});
  }
  std::cout << '\n' << table.str();
}

void print_report(const Options& options, const SafetensorsReader& reader) {
  for (const auto& [dtype, total] : totals_by_dtype(reader)) {
    std::cout << fmt::format("tensors       {} of {}, {} elements, {}\n", total.tensors, dtype,
                             count_text(total.elements),
                             format_bytes(static_cast<uint64_t>(total.bytes)));
  }
  if (fs::is_directory(options.checkpoint)) {
    for (const auto& [name, size] : file_sizes(options.checkpoint)) {
      std::cout << fmt::format("file          {} {}\n", name, format_bytes(size));
    }
  }
  if (options.tensors) print_tensors(reader);
}

Json weights_json(const SafetensorsReader& reader) {
  Json dtypes = Json::object();
  for (const auto& [dtype, total] : totals_by_dtype(reader)) {
    dtypes[dtype] = {
        {"tensors", total.tensors}, {"elements", total.elements}, {"bytes", total.bytes}};
  }
  return {{"dtypes", dtypes}, {"tensors", tensors_json(reader)}};
}

/// A single safetensors file: nothing but its tensors is known.
int inspect_file(const Options& options) {
  const SafetensorsReader reader(options.checkpoint);
  if (options.json)
    std::cout << weights_json(reader).dump(2) << '\n';
  else
    print_report({.checkpoint = options.checkpoint, .json = false, .tensors = true}, reader);
  return 0;
}

int inspect_gguf(const Options& options) {
  if (options.json) {
    std::cout << pretty(gguf_json(options.checkpoint));
  } else {
    print_gguf(options.checkpoint, options.tensors ? TensorList::kYes : TensorList::kNo);
  }
  return 0;
}

/// By its first bytes: GGUF files and packs have any name.
bool is_gguf(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::array<char, 4> magic = {};
  return file.read(magic.data(), magic.size()) && std::string_view(magic.data(), 4) == "GGUF";
}

int inspect_folder(const Options& options) {
  const ModelConfig config = read_model_config(options.checkpoint);
  const SafetensorsReader reader(options.checkpoint);
  const std::vector<std::string> faults = faults_of(config, reader);
  if (options.json) {
    Json json = model_json(config);
    json["weights"] = weights_json(reader);
    json["files"] = file_sizes(options.checkpoint);
    json["faults"] = faults;
    std::cout << json.dump(2) << '\n';
  } else {
    print_model(config);
    print_report(options, reader);
  }
  if (faults.empty()) return 0;
  throw FormatError("{}: {} tensors do not fit config.json, first: {}", options.checkpoint.string(),
                    faults.size(), faults.front());
}

int run(int argc, char** argv) {
  Options options;
  CommandLine line(
      "inspect",
      "Reads config.json and the tensors' headers only, so it is fast for models of any size.");
  line.add("checkpoint", "checkpoint", options.checkpoint,
           "Checkpoint folder, one .safetensors file, a GGUF file or a pack")
      ->required();
  line.add_flag(kOutputGroup, "--tensors", options.tensors, "List every tensor");
  line.add_flag(kOutputGroup, "--json", options.json, "Print JSON, with every tensor");
  if (const auto done = line.parse(argc, argv)) return *done;
  if (!fs::exists(options.checkpoint))
    throw IoError("{}: no such file or folder", options.checkpoint.string());
  if (fs::is_directory(options.checkpoint)) return inspect_folder(options);
  return is_gguf(options.checkpoint) ? inspect_gguf(options) : inspect_file(options);
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("inspect", [&] { return run(argc, argv); });
}
