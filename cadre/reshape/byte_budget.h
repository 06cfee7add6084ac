#pragma once

/// The multiple-choice knapsack of storing things in few bytes: each item takes one of its options,
/// the bytes stay within a budget, the sum of errors is as small as possible.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace cadre::reshape {

struct StorageOption {
  int64_t bytes = 0;
  double error = 0;
};

/// Bytes when every item takes its smallest option.
int64_t least_bytes(std::span<const std::vector<StorageOption>> items);

/// Index of each item's option. Items step along the convex hull of their options, the steps that
/// save the most error a byte first, those that no longer fit left out (Dantzig's relaxation,
/// "Discrete-Variable Extremum Problems", 1957: optimal but for the last step). Of 1024 such
/// fillings, for totals from the least to the most, the best within the budget counts: more bytes
/// never give a larger error. Throws UsageError for an item without options, or a budget below
/// least_bytes().
std::vector<size_t> choose_within(std::span<const std::vector<StorageOption>> items,
                                  int64_t budget);

}  // namespace cadre::reshape
