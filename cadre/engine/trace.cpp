#include "cadre/engine/trace.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <limits>
#include <map>
#include <set>

#include "cadre/base/error.h"
#include "cadre/engine/trace_csv.h"
#include "cadre/formats/safetensors.h"

namespace cadre::engine {
namespace {

template <typename T>
std::vector<T> values_of(const SafetensorsReader& reader, const std::string& name, DType type,
                         const std::vector<int64_t>& shape) {
  const TensorView& view = reader.tensor(name);
  if (view.dtype != type || view.shape != shape)
    throw FormatError("trace tensor {} is not {} of the shape that experts has", name,
                      name_of(type));
  std::vector<T> values(view.bytes.size() / sizeof(T));
  std::memcpy(values.data(), view.bytes.data(), view.bytes.size());
  return values;
}

int64_t number_of(const SafetensorsReader& reader, const std::string& key) {
  const auto found = reader.metadata().find(key);
  int64_t value = -1;
  if (found != reader.metadata().end()) {
    const std::string& text = found->second;
    std::from_chars(text.data(), text.data() + text.size(), value);
  }
  if (value < 0) throw FormatError("trace: metadata lacks {}", key);
  return value;
}

void check(const RouteTrace& trace) {
  for (const int16_t expert : trace.chosen)
    if (expert < -1 || expert >= trace.experts)
      throw FormatError("trace names expert {} of {}", expert, trace.experts);
  if (!std::is_sorted(trace.passes.begin(), trace.passes.end()) ||
      (!trace.passes.empty() && trace.passes.front() < 0))
    throw FormatError("trace: passes are not in order");
}

RouteTrace read_safetensors_trace(const std::filesystem::path& path) {
  const SafetensorsReader reader(path);
  const TensorView& experts = reader.tensor("experts");
  if (experts.shape.size() != 3 || experts.shape[1] < 1 || experts.shape[2] < 1)
    throw FormatError("trace tensor experts is not [tokens, layers, used]");
  const std::vector<int64_t> shape = experts.shape, count = {shape[0]};
  const auto model = reader.metadata().find("model");
  RouteTrace trace = {.model = model == reader.metadata().end() ? "" : model->second,
                      .layers = shape[1],
                      .experts = number_of(reader, "experts"),
                      .used = shape[2],
                      .expert_bytes = number_of(reader, "expert_bytes"),
                      .passes = values_of<int32_t>(reader, "pass", DType::kI32, count),
                      .sequences = values_of<int32_t>(reader, "sequence", DType::kI32, count),
                      .tokens = {},
                      .chosen = values_of<int16_t>(reader, "experts", DType::kI16, shape),
                      .weights = values_of<float>(reader, "weights", DType::kF32, shape)};
  if (reader.contains("token"))
    trace.tokens = values_of<int32_t>(reader, "token", DType::kI32, count);
  return trace;
}

}  // namespace

TraceRecorder::TraceRecorder(const RouteTrace& shape) {
  if (shape.experts > std::numeric_limits<int16_t>::max())
    throw UsageError("a trace holds at most 32767 experts a layer, the model has {}",
                     shape.experts);
  trace_.model = shape.model;
  trace_.layers = shape.layers;
  trace_.experts = shape.experts;
  trace_.used = shape.used;
  trace_.expert_bytes = shape.expert_bytes;
}

int64_t TraceRecorder::add_token(int32_t pass, int32_t sequence, int32_t token) {
  trace_.passes.push_back(pass);
  trace_.sequences.push_back(sequence);
  trace_.tokens.push_back(token);
  trace_.chosen.resize(trace_.size() * trace_.layers * trace_.used, -1);
  trace_.weights.resize(trace_.chosen.size(), 0);
  return trace_.size() - 1;
}

void TraceRecorder::add_route(int64_t token, int64_t layer, std::span<const int32_t> experts,
                              std::span<const float> weights) {
  const int64_t at = (token * trace_.layers + layer) * trace_.used;
  if (static_cast<int64_t>(experts.size()) > trace_.used)
    throw Error("a token was given {} experts, the trace holds {}", experts.size(), trace_.used);
  std::copy(experts.begin(), experts.end(), trace_.chosen.begin() + at);
  std::copy(weights.begin(), weights.end(), trace_.weights.begin() + at);
}

void write_trace(const RouteTrace& trace, const std::filesystem::path& path) {
  const std::vector<int64_t> shape = {trace.size(), trace.layers, trace.used};
  std::vector<TensorSpec> specs = {{"weights", DType::kF32, shape},
                                   {"pass", DType::kI32, {trace.size()}},
                                   {"sequence", DType::kI32, {trace.size()}},
                                   {"experts", DType::kI16, shape}};
  const bool with_tokens = !trace.tokens.empty();
  if (with_tokens) specs.insert(specs.begin(), {"token", DType::kI32, {trace.size()}});
  SafetensorsWriter writer(path, specs,
                           {{"model", trace.model},
                            {"experts", std::to_string(trace.experts)},
                            {"expert_bytes", std::to_string(trace.expert_bytes)}});
  if (with_tokens) writer.write("token", std::as_bytes(std::span(trace.tokens)));
  writer.write("weights", std::as_bytes(std::span(trace.weights)));
  writer.write("pass", std::as_bytes(std::span(trace.passes)));
  writer.write("sequence", std::as_bytes(std::span(trace.sequences)));
  writer.write("experts", std::as_bytes(std::span(trace.chosen)));
  writer.commit();
}

RouteTrace read_trace(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  try {
    RouteTrace trace = name.find(".csv") == std::string::npos ? read_safetensors_trace(path)
                                                              : read_trace_csv(path);
    check(trace);
    return trace;
  } catch (const FormatError& error) {
    throw FormatError("{}: {}", path.string(), error.what());
  }
}

RouteTrace decode_part(const RouteTrace& trace) {
  std::map<int32_t, std::set<int32_t>> sequences;  // by pass
  std::map<int32_t, int64_t> count;
  for (int64_t i = 0; i < trace.size(); ++i) {
    sequences[trace.passes[i]].insert(trace.sequences[i]);
    ++count[trace.passes[i]];
  }
  RouteTrace part = trace;
  part.passes.clear(), part.sequences.clear(), part.tokens.clear();
  part.chosen.clear(), part.weights.clear();
  const int64_t row = trace.layers * trace.used;
  for (int64_t i = 0; i < trace.size(); ++i) {
    const int32_t pass = trace.passes[i];
    if (count[pass] != static_cast<int64_t>(sequences[pass].size())) continue;
    part.passes.push_back(pass);
    part.sequences.push_back(trace.sequences[i]);
    if (!trace.tokens.empty()) part.tokens.push_back(trace.tokens[i]);
    const auto first = i * row;
    part.chosen.insert(part.chosen.end(), trace.chosen.begin() + first,
                       trace.chosen.begin() + first + row);
    part.weights.insert(part.weights.end(), trace.weights.begin() + first,
                        trace.weights.begin() + first + row);
  }
  return part;
}

}  // namespace cadre::engine
