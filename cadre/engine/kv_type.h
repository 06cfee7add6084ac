#pragma once

/// What keys and values are kept as.

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

namespace cadre::engine {

/// kQ8: 8-bit integers, one scale a token and head, half of BF16's bytes.
enum class KvType : uint8_t { kBf16, kQ8 };

inline constexpr std::array kKvTypes = {std::pair{std::string_view("bf16"), KvType::kBf16},
                                        std::pair{std::string_view("q8"), KvType::kQ8}};

}  // namespace cadre::engine
