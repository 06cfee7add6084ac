#include "cadre/reshape/lora.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"
#include "cadre/reshape/low_rank_sparse.h"
#include "cadre/reshape/values.h"

namespace cadre::reshape {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ConstMap = Eigen::Map<const Matrix>;

constexpr std::string_view kPrefix = "base_model.model.", kA = ".lora_A.weight",
                           kB = ".lora_B.weight";

void refuse_other_kinds(const nlohmann::json& config, const std::string& where) {
  if (config.value("peft_type", "LORA") != "LORA") {
    throw UsageError("{}: peft_type {} is no LoRA", where, config["peft_type"].dump());
  }
  for (const char* flag : {"use_dora", "lora_bias", "fan_in_fan_out"}) {
    if (config.value(flag, false)) throw UsageError("{}: {} is not supported", where, flag);
  }
  if (config.value("bias", "none") != "none") {
    throw UsageError("{}: bias {} is not supported", where, config["bias"].dump());
  }
  if (config.contains("modules_to_save") && !config["modules_to_save"].is_null() &&
      !config["modules_to_save"].empty()) {
    throw UsageError("{}: modules_to_save is not supported", where);
  }
}

/// PEFT's patterns: a key names a module by the end of its name.
double pattern_value(const nlohmann::json& config, const char* pattern, const std::string& module,
                     double fallback) {
  const auto found = config.find(pattern);
  if (found == config.end() || found->is_null()) return fallback;
  for (const auto& [key, value] : found->items()) {
    if (module == key || module.ends_with("." + key)) return value.get<double>();
  }
  return fallback;
}

double scale_of(const nlohmann::json& config, const std::string& module, int64_t rank) {
  const double alpha =
      pattern_value(config, "alpha_pattern", module, config.value("lora_alpha", 8.0));
  const auto r = static_cast<double>(rank);
  return alpha / (config.value("use_rslora", false) ? std::sqrt(r) : r);
}

std::vector<float> floats_of(const TensorView& view) {
  std::vector<float> values(static_cast<size_t>(view.elements()));
  decode(view.dtype, view.bytes, values);
  return values;
}

const TensorView& matrix_of(const SafetensorsReader& reader, const std::string& name,
                            const std::string& where) {
  const TensorView& view = reader.tensor(name);
  if (view.shape.size() != 2 || !is_floating(view.dtype) || view.elements() == 0) {
    throw FormatError("{}: {} is no matrix of floating-point numbers", where, quote(name));
  }
  return view;
}

/// Rows of W plus rows of s B A.
class AddLowRank : public TileKernel {
 public:
  AddLowRank(LoraModule module, double weight) : module_(std::move(module)) {
    for (float& b : module_.b) b = static_cast<float>(b * weight * module_.scale);
  }
  int64_t grain() const override { return module_.in; }
  void compute(const Tile& tile) const override {
    const int64_t first = tile.first / module_.in;
    const auto rows = static_cast<int64_t>(tile.out.size()) / module_.in;
    const ConstMap b(module_.b.data() + first * module_.rank, rows, module_.rank);
    const ConstMap a(module_.a.data(), module_.rank, module_.in);
    const ConstMap w(tile.in[0].data(), rows, module_.in);
    Eigen::Map<Matrix>(tile.out.data(), rows, module_.in) = w + b * a;
  }

 private:
  LoraModule module_;
};

bool chosen(const SchemaTensor& tensor, const ExtractLoraOptions& options) {
  const std::string& name = tensor.info.name;
  if (tensor.info.shape.size() != 2 || !is_floating(tensor.info.dtype)) return false;
  if (!name.ends_with(".weight")) return false;
  if (options.modules.empty()) return tensor.role != Role::kEmbedding && tensor.role != Role::kHead;
  const std::string module = name.substr(0, name.size() - 7);
  return std::any_of(options.modules.begin(), options.modules.end(), [&](const std::string& m) {
    return module == m || module.ends_with("." + m);
  });
}

LoraModule factor(const SchemaTensor& tensor, const std::vector<float>& difference,
                  const ExtractLoraOptions& options) {
  const int64_t out = tensor.info.shape[0], in = tensor.info.shape[1];
  const int64_t rank = std::min({options.rank, out, in});
  const LowRankSparse factors = factor_low_rank_sparse(
      out, in, difference.data(), {.rank = rank, .rows_kept = 0, .seed = options.seed});
  return {.out = out, .in = in, .rank = rank, .a = factors.v, .b = factors.u};
}

LoraModule append(const std::vector<std::pair<const LoraModule*, double>>& parts) {
  const LoraModule& first = *parts.front().first;
  LoraModule all{.out = first.out, .in = first.in};
  for (const auto& [part, weight] : parts) all.rank += part->rank;
  all.b.resize(static_cast<size_t>(all.out * all.rank));
  int64_t column = 0;
  for (const auto& [part, weight] : parts) {
    all.a.insert(all.a.end(), part->a.begin(), part->a.end());
    for (int64_t i = 0; i < all.out; ++i) {
      for (int64_t r = 0; r < part->rank; ++r) {
        all.b[i * all.rank + column + r] =
            static_cast<float>(weight * part->scale * part->b[i * part->rank + r]);
      }
    }
    column += part->rank;
  }
  return all;
}

LoraModule compressed(const LoraModule& module, int64_t rank) {
  const ConstMap a(module.a.data(), module.rank, module.in);
  const ConstMap b(module.b.data(), module.out, module.rank);
  const int64_t left = std::min(module.out, module.rank), right = std::min(module.in, module.rank);
  const Eigen::HouseholderQR<Eigen::MatrixXf> qr_b(b), qr_a(a.transpose());
  const Eigen::MatrixXf q_b = qr_b.householderQ() * Eigen::MatrixXf::Identity(module.out, left);
  const Eigen::MatrixXf q_a = qr_a.householderQ() * Eigen::MatrixXf::Identity(module.in, right);
  const Eigen::MatrixXf r_b = qr_b.matrixQR().topRows(left).triangularView<Eigen::Upper>();
  const Eigen::MatrixXf r_a = qr_a.matrixQR().topRows(right).triangularView<Eigen::Upper>();
  const Eigen::JacobiSVD<Eigen::MatrixXf> svd(r_b * r_a.transpose(),
                                              Eigen::ComputeThinU | Eigen::ComputeThinV);
  LoraModule small{.out = module.out,
                   .in = module.in,
                   .rank = std::min<int64_t>(rank, svd.singularValues().size())};
  const auto roots = svd.singularValues().head(small.rank).cwiseSqrt();
  small.b.resize(static_cast<size_t>(small.out * small.rank));
  small.a.resize(static_cast<size_t>(small.rank * small.in));
  Eigen::Map<Matrix>(small.b.data(), small.out, small.rank) =
      q_b * svd.matrixU().leftCols(small.rank) * roots.asDiagonal();
  Eigen::Map<Matrix>(small.a.data(), small.rank, small.in) =
      roots.asDiagonal() * svd.matrixV().leftCols(small.rank).transpose() * q_a.transpose();
  return small;
}

/// r and lora_alpha of the first module; the others' where they differ.
nlohmann::json config_of(const LoraAdapter& adapter) {
  nlohmann::json config = adapter.config;
  const LoraModule& first = adapter.modules.begin()->second;
  const auto alpha = [](const LoraModule& m) { return m.scale * static_cast<double>(m.rank); };
  config["peft_type"] = "LORA";
  config["r"] = first.rank;
  config["lora_alpha"] = alpha(first);
  config["use_rslora"] = false;
  config["bias"] = "none";
  nlohmann::json ranks = nlohmann::json::object(), alphas = nlohmann::json::object();
  std::set<std::string> targets;
  for (const auto& [name, module] : adapter.modules) {
    targets.insert(name.substr(name.rfind('.') + 1));
    if (module.rank != first.rank) ranks[name] = module.rank;
    if (alpha(module) != alpha(first)) alphas[name] = alpha(module);
  }
  config["rank_pattern"] = ranks;
  config["alpha_pattern"] = alphas;
  config["target_modules"] = targets;
  return config;
}

}  // namespace

LoraAdapter read_lora(const std::filesystem::path& folder) {
  const std::filesystem::path config_path = folder / "adapter_config.json";
  LoraAdapter adapter{.config = parse_json(read_file(config_path), config_path.string())};
  const std::string where = folder.string();
  try {
    refuse_other_kinds(adapter.config, config_path.string());
    const SafetensorsReader reader(folder / "adapter_model.safetensors");
    for (const auto& [name, view] : reader.tensors()) {
      if (name.ends_with(kB)) continue;
      if (!name.starts_with(kPrefix) || !name.ends_with(kA)) {
        throw FormatError("{}: tensor {} is no LoRA matrix", where, quote(name));
      }
      const std::string module =
          name.substr(kPrefix.size(), name.size() - kPrefix.size() - kA.size());
      const TensorView& a = matrix_of(reader, name, where);
      const TensorView& b = matrix_of(reader, fmt::format("{}{}{}", kPrefix, module, kB), where);
      if (a.shape[0] != b.shape[1]) {
        throw FormatError("{}: the matrices of {} have ranks {} and {}", where, quote(module),
                          a.shape[0], b.shape[1]);
      }
      adapter.modules[module] = {.out = b.shape[0],
                                 .in = a.shape[1],
                                 .rank = a.shape[0],
                                 .a = floats_of(a),
                                 .b = floats_of(b),
                                 .scale = scale_of(adapter.config, module, a.shape[0])};
    }
  } catch (const nlohmann::json::exception& e) {
    throw FormatError("{}: {}", config_path.string(), e.what());
  }
  if (adapter.modules.empty()) throw FormatError("{}: no LoRA matrices", where);
  return adapter;
}

void write_lora(const std::filesystem::path& folder, const LoraAdapter& adapter) {
  if (adapter.modules.empty()) throw UsageError("an adapter without modules can't be written");
  AtomicFolder output(folder);
  write_file(output.staging() / "adapter_config.json", config_of(adapter).dump(2) + "\n");
  std::vector<TensorSpec> specs;
  for (const auto& [name, m] : adapter.modules) {
    specs.push_back({fmt::format("{}{}{}", kPrefix, name, kA), DType::kF32, {m.rank, m.in}});
    specs.push_back({fmt::format("{}{}{}", kPrefix, name, kB), DType::kF32, {m.out, m.rank}});
  }
  SafetensorsWriter writer(output.staging() / "adapter_model.safetensors", specs,
                           {{"format", "pt"}});
  size_t next = 0;
  for (const auto& [name, m] : adapter.modules) {
    writer.write(specs[next++].name, std::as_bytes(std::span(m.a)));
    writer.write(specs[next++].name, std::as_bytes(std::span(m.b)));
  }
  writer.commit();
  output.commit();
}

Plan merge_lora(const CheckpointPtr& base, const LoraAdapter& adapter, double weight) {
  for (const auto& [name, module] : adapter.modules) {
    const SchemaTensor& tensor = base->schema().require(name + ".weight");
    if (tensor.info.shape != std::vector{module.out, module.in} ||
        !is_floating(tensor.info.dtype)) {
      throw UsageError("the adapter's {} is [{}, {}], in {} it has another shape", quote(name),
                       module.out, module.in, base->where());
    }
  }
  Plan plan{.config_out = base->schema().config()};
  for (const SchemaTensor& tensor : base->schema().tensors()) {
    Step step = copy_step(tensor, 0);
    const std::string& name = tensor.info.name;
    const auto found = name.ends_with(".weight")
                           ? adapter.modules.find(name.substr(0, name.size() - 7))
                           : adapter.modules.end();
    if (found != adapter.modules.end()) {
      step.kernel = std::make_shared<AddLowRank>(found->second, weight);
    }
    plan.steps.push_back(std::move(step));
  }
  return plan;
}

LoraAdapter extract_lora(const Checkpoint& base, const Checkpoint& tuned,
                         const ExtractLoraOptions& options) {
  if (options.rank < 1) throw UsageError("rank {} is below 1", options.rank);
  LoraAdapter adapter;
  for (const SchemaTensor& tensor : base.schema().tensors()) {
    if (!chosen(tensor, options)) continue;
    const SchemaTensor& twin = tuned.schema().require(tensor.info.name);
    if (twin.info.shape != tensor.info.shape) {
      throw UsageError("{}: {} has another shape than in {}", tuned.where(), tensor.info.name,
                       base.where());
    }
    std::vector<float> difference = read_values(tuned, twin);
    const std::vector<float> before = read_values(base, tensor);
    for (size_t i = 0; i < difference.size(); ++i) difference[i] -= before[i];
    const auto zero = [](float v) { return v == 0; };
    if (std::all_of(difference.begin(), difference.end(), zero)) continue;
    const std::string& name = tensor.info.name;
    adapter.modules[name.substr(0, name.size() - 7)] = factor(tensor, difference, options);
  }
  if (adapter.modules.empty()) {
    throw UsageError("{} and {} do not differ in any matrix that is looked at", base.where(),
                     tuned.where());
  }
  return adapter;
}

LoraAdapter combine_lora(const std::vector<WeightedLora>& adapters, int64_t rank) {
  if (adapters.empty()) throw UsageError("no adapter is given");
  std::map<std::string, std::vector<std::pair<const LoraModule*, double>>> parts;
  for (const WeightedLora& item : adapters) {
    for (const auto& [name, module] : item.adapter->modules) {
      auto& list = parts[name];
      if (!list.empty() &&
          (list.front().first->out != module.out || list.front().first->in != module.in)) {
        throw UsageError("the adapters' {} have different shapes", quote(name));
      }
      list.emplace_back(&module, item.weight);
    }
  }
  LoraAdapter combined{.config = adapters.front().adapter->config};
  for (const auto& [name, list] : parts) {
    LoraModule all = append(list);
    combined.modules[name] = rank > 0 && all.rank > rank ? compressed(all, rank) : std::move(all);
  }
  return combined;
}

}  // namespace cadre::reshape
