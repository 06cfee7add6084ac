#include "cadre/engine/expert_usage.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "cadre/base/error.h"
#include "cadre/base/log.h"
#include "cadre/formats/safetensors.h"

namespace cadre::engine {
namespace {

namespace fs = std::filesystem;

constexpr double kHalfLife = 512;  // passes

fs::path usage_file(const fs::path& folder, const std::string& fingerprint) {
  return folder / ("usage-" + fingerprint + ".safetensors");
}

}  // namespace

void ExpertUsage::add_pass(const std::vector<int64_t>& ids) {
  static const auto kKeep = static_cast<float>(std::exp2(-1 / kHalfLife));
  for (float& rate : rates_) rate *= kKeep;
  for (const int64_t id : ids) rates_[id] += 1 - kKeep;
}

std::vector<float> ExpertUsage::prior(double half_life) const {
  const auto factor = static_cast<float>(1 / (1 - std::exp2(-1 / half_life)));
  std::vector<float> prior = rates_;
  for (float& value : prior) value *= factor;
  return prior;
}

fs::path cache_folder() {
  if (const char* folder = std::getenv("XDG_CACHE_HOME"); folder != nullptr && *folder == '/')
    return fs::path(folder) / "cadre";
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0')
    return fs::path(home) / ".cache" / "cadre";
  return {};
}

std::optional<std::vector<float>> load_usage(const fs::path& folder, const std::string& fingerprint,
                                             const ExpertGrid& grid) {
  const fs::path file = usage_file(folder, fingerprint);
  if (folder.empty() || !fs::exists(file)) return std::nullopt;
  try {
    const SafetensorsReader reader(file);
    const TensorView& view = reader.tensor("rates");
    if (view.dtype != DType::kF32 || view.shape != std::vector<int64_t>{grid.layers, grid.experts})
      throw FormatError("{}: rates of another model", file.string());
    std::vector<float> rates(grid.size());
    std::memcpy(rates.data(), view.bytes.data(), view.bytes.size());
    for (float& rate : rates)
      if (!(rate >= 0 && rate <= 1)) throw FormatError("{}: a rate is {}", file.string(), rate);
    return rates;
  } catch (const Error& error) {
    logger().debug("remembered use of experts not taken: {}", error.what());
    return std::nullopt;
  }
}

void save_usage(const fs::path& folder, const std::string& fingerprint, const ExpertGrid& grid,
                const std::vector<float>& rates) {
  if (folder.empty()) return;
  try {
    std::error_code failure;
    fs::create_directories(folder, failure);
    SafetensorsWriter writer(usage_file(folder, fingerprint),
                             {{"rates", DType::kF32, {grid.layers, grid.experts}}});
    writer.write("rates", std::as_bytes(std::span(rates)));
    writer.commit();
  } catch (const Error& error) {
    logger().debug("use of experts not remembered: {}", error.what());
  }
}

}  // namespace cadre::engine
