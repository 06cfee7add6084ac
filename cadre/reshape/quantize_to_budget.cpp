#include "cadre/reshape/quantize_to_budget.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <mutex>
#include <numeric>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/base/units.h"
#include "cadre/engine/expert_names.h"
#include "cadre/reshape/byte_budget.h"
#include "cadre/reshape/layer_stats.h"

namespace cadre::reshape {
namespace {

using engine::GgufImage;
using engine::ImagePart;
using engine::ImageTensor;
using kernels::BlockType;

/// Of two of a size the first that can hold the matrix.
constexpr std::array kTypes = {BlockType::kQ4_K, BlockType::kQ4_0, BlockType::kQ6_K,
                               BlockType::kQ8_0, BlockType::kF16,  BlockType::kBF16};
constexpr int64_t kAlignment = 32;  // of tensors in the file

int64_t padded(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

/// A matrix that takes a type of its own: a tensor, or one expert's part of a stack.
struct Item {
  size_t tensor;
  int64_t expert = -1;  ///< of the stack; -1 = the whole tensor
  ImageTensor matrix;
  double share = 1;
  std::vector<float> squares;  ///< of each input component, or empty
  std::vector<BlockType> types;
  std::vector<StorageOption> options;
};

/// One expert's rows of a stack, which is one part or a part an expert.
ImageTensor expert_of(const ImageTensor& stack, int64_t expert) {
  const int64_t experts = stack.shape[0];
  ImagePart part =
      stack.parts.size() == 1 ? stack.parts.front() : stack.parts[static_cast<size_t>(expert)];
  if (stack.parts.size() == 1) {
    const size_t size = part.bytes.size() / static_cast<size_t>(experts);
    part.bytes = part.bytes.subspan(static_cast<size_t>(expert) * size, size);
  }
  return {.name = engine::single_expert_name(stack.name, expert),
          .shape = {stack.shape[1], stack.shape[2]},
          .parts = {part}};
}

/// A stack whose experts' bytes are apart.
bool is_stack(const ImageTensor& tensor) {
  if (tensor.shape.size() != 3 || !engine::is_routed_expert(tensor.name)) return false;
  const auto parts = static_cast<int64_t>(tensor.parts.size());
  return parts == 1 || parts == tensor.shape[0];
}

int64_t expert_number(const std::string& name) {
  const std::string stem = name.substr(0, name.size() - std::string(".weight").size());
  return std::stoll(stem.substr(stem.rfind('.') + 1));
}

class Weigher {
 public:
  Weigher(const GgufImage& image, const StatsIndex* stats) : image_(image), stats_(stats) {
    for (const ImageTensor& tensor : image.tensors)
      if (tensor.name.find(".ffn_gate_inp.weight") != std::string::npos)
        experts_of_[engine::layer_of_tensor(tensor.name)] = tensor.shape[0];
  }

  void weigh(Item& item, int64_t expert) {
    const std::string& name = image_.tensors[item.tensor].name;
    const int64_t layer = engine::layer_of_tensor(name);
    if (expert >= 0) item.share = shares_of(layer).at(static_cast<size_t>(expert));
    const bool reads_hidden =
        name.find(".ffn_gate") != std::string::npos || name.find(".ffn_up") != std::string::npos;
    if (stats_ == nullptr || !reads_hidden) return;
    const auto squares = layer_stat(*stats_, layer, kHiddenSquare, {item.matrix.columns()});
    item.squares.assign(squares.begin(), squares.end());
  }

 private:
  /// Of the layer's stored experts: merged ones count for all that they stand for.
  const std::vector<double>& shares_of(int64_t layer) {
    std::vector<double>& shares = shares_[layer];
    if (!shares.empty()) return shares;
    const auto experts = experts_of_.find(layer);
    if (experts == experts_of_.end())
      throw UsageError("{}: layer {} has experts but no router", image_.where, layer);
    const auto count = static_cast<size_t>(experts->second);
    shares.assign(count, 1.0 / static_cast<double>(count));
    if (stats_ != nullptr) {
      const auto reach = layer_stat(*stats_, layer, kReach, {experts->second});
      const double sum = std::accumulate(reach.begin(), reach.end(), 0.0);
      for (size_t e = 0; e < count && sum > 0; ++e) shares[e] = reach[e] / sum;
    }
    const auto map = image_.expert_maps.find(layer);
    if (map == image_.expert_maps.end()) return shares;
    std::vector<double> stored(count, 0.0);
    for (size_t e = 0; e < count; ++e) {
      const auto from = e < map->second.size() ? static_cast<size_t>(map->second[e]) : count;
      if (from >= count)
        throw FormatError("{}: the expert map of layer {} does not fit its router", image_.where,
                          layer);
      stored[from] += shares[e];
    }
    shares = std::move(stored);
    return shares;
  }

  const GgufImage& image_;
  const StatsIndex* stats_;
  std::map<int64_t, int64_t> experts_of_;
  std::map<int64_t, std::vector<double>> shares_;
};

std::vector<Item> items_of(const GgufImage& image, const StatsIndex* stats) {
  std::vector<Item> items;
  Weigher weigher(image, stats);
  for (size_t i = 0; i < image.tensors.size(); ++i) {
    const ImageTensor& tensor = image.tensors[i];
    if (engine::stays_f32(tensor)) continue;
    if (!is_stack(tensor)) {
      items.push_back({.tensor = i, .matrix = tensor});
      const bool single = tensor.shape.size() == 2 && engine::is_routed_expert(tensor.name);
      weigher.weigh(items.back(), single ? expert_number(tensor.name) : -1);
      continue;
    }
    for (int64_t expert = 0; expert < tensor.shape[0]; ++expert) {
      items.push_back({.tensor = i, .expert = expert, .matrix = expert_of(tensor, expert)});
      weigher.weigh(items.back(), expert);
    }
  }
  return items;
}

/// Squared error of the outputs over their squared size, on sampled rows; infinite when a value is
/// beyond what the type holds.
double measured_error(const Item& item, BlockType type, int64_t sampled_rows) {
  const ImagePart& part = item.matrix.parts.front();
  const int64_t columns = item.matrix.columns();
  const int64_t rows =
      static_cast<int64_t>(part.bytes.size()) / kernels::row_bytes(part.type, columns);
  const int64_t sampled = std::min(rows, sampled_rows);
  std::vector<float> values(static_cast<size_t>(columns)), back(values.size());
  std::vector<std::byte> encoded(static_cast<size_t>(kernels::row_bytes(type, columns)));
  double error = 0, size = 0;
  for (int64_t i = 0; i < sampled; ++i) {
    engine::read_rows(item.matrix, part, i * rows / sampled, 1, values.data());
    kernels::quantize(type, values.data(), columns, encoded.data());
    kernels::dequantize(type, encoded.data(), columns, back.data());
    for (size_t c = 0; c < values.size(); ++c) {
      const double square = item.squares.empty() ? 1.0 : item.squares[c];
      const double missed = double{back[c]} - values[c];
      error += square * missed * missed;
      size += square * double{values[c]} * values[c];
    }
  }
  if (!std::isfinite(error)) return INFINITY;
  return size > 0 ? error / size : 0;
}

void measure(Item& item, int64_t sampled_rows) {
  const ImageTensor& matrix = item.matrix;
  const BlockType stored = matrix.parts.front().type;
  item.types = {stored};
  item.options = {{padded(matrix.bytes()), 0}};
  for (const BlockType type : kTypes) {
    if (type == stored || matrix.columns() % kernels::block_info(type).elements != 0) continue;
    const int64_t bytes = padded(matrix.rows() * kernels::row_bytes(type, matrix.columns()));
    if (bytes >= item.options.front().bytes || bytes == item.options.back().bytes) continue;
    const double error = measured_error(item, type, sampled_rows);
    if (!std::isfinite(error)) continue;
    item.types.push_back(type);
    item.options.push_back({bytes, item.share * error});
  }
}

/// The image and its types when item i takes types[i]. `cut` = stacks are cut in any case.
BudgetPlan assemble(const GgufImage& image, const std::vector<Item>& items,
                    const std::vector<BlockType>& types, bool cut) {
  BudgetPlan plan = {.image = image};
  plan.image.tensors.clear();
  const auto add = [&](const ImageTensor& tensor, BlockType type) {
    plan.image.tensors.push_back(tensor);
    plan.types.types.push_back(type);
  };
  size_t at = 0;
  for (size_t i = 0; i < image.tensors.size(); ++i) {
    const size_t begin = at;
    while (at < items.size() && items[at].tensor == i) ++at;
    if (begin == at) {
      add(image.tensors[i], BlockType::kF32);
      continue;
    }
    const auto first = types.begin() + static_cast<int64_t>(begin);
    const auto last = types.begin() + static_cast<int64_t>(at);
    const bool alike = std::adjacent_find(first, last, std::not_equal_to<>()) == last;
    if (items[begin].expert < 0 || (alike && !cut)) {
      add(image.tensors[i], types[begin]);
      continue;
    }
    for (size_t j = begin; j < at; ++j) add(items[j].matrix, types[j]);
  }
  plan.bytes = engine::quantized_bytes(plan.image, plan.types);
  return plan;
}

std::vector<BlockType> types_of(const std::vector<Item>& items, const std::vector<size_t>& chosen) {
  std::vector<BlockType> types;
  for (size_t i = 0; i < items.size(); ++i) types.push_back(items[i].types[chosen[i]]);
  return types;
}

void measure_all(std::vector<Item>& items, const BudgetOptions& options) {
  std::mutex mutex;
  size_t done = 0;
  parallel_tasks(static_cast<int64_t>(items.size()), [&](int64_t i) {
    measure(items[static_cast<size_t>(i)], options.sampled_rows);
    const std::lock_guard lock(mutex);
    ++done;
    if (options.progress)
      options.progress(static_cast<double>(done) / static_cast<double>(items.size()));
  });
}

}  // namespace

BudgetPlan plan_bytes(GgufImage image, int64_t bytes, const BudgetOptions& options) {
  std::vector<Item> items = items_of(image, options.stats);
  measure_all(items, options);
  std::vector<std::vector<StorageOption>> choices;
  for (const Item& item : items) choices.push_back(item.options);

  // Names and keys take what they take; of cut stacks, so that what is chosen fits in any case.
  const int64_t least = least_bytes(choices);
  const std::vector<BlockType> smallest = types_of(items, choose_within(choices, least));
  const int64_t beside = assemble(image, items, smallest, true).bytes - least;
  const int64_t least_file = assemble(image, items, smallest, false).bytes;
  if (bytes < least_file)
    throw UsageError("{}: {} are too few: {} bytes ({}) are the least it can be stored in",
                     image.where, format_bytes(static_cast<uint64_t>(std::max<int64_t>(0, bytes))),
                     least_file, format_bytes(static_cast<uint64_t>(least_file)));
  const std::vector<size_t> chosen = choose_within(choices, std::max(least, bytes - beside));
  BudgetPlan plan = assemble(image, items, types_of(items, chosen), false);
  plan.least_bytes = least_file;
  for (size_t i = 0; i < items.size(); ++i) plan.error += choices[i][chosen[i]].error;
  return plan;
}

}  // namespace cadre::reshape
