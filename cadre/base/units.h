#pragma once

/// Numbers as people write and read them: "2GiB", "1.4M", "3 min 20 s".

#include <cstdint>
#include <string>
#include <string_view>

namespace cadre {

/// Bytes from "4096", "1.5 GiB", "2GB": KiB MiB GiB TiB are powers of 1024, KB MB GB TB of 1000,
/// and a bare K M G T is binary, as memory sizes are meant. Letter case is free. Throws UsageError.
uint64_t parse_bytes(std::string_view text);

/// "512 B", "1.5 GiB": three digits.
std::string format_bytes(uint64_t bytes);

/// A count from "1000", "1.4M", "12k", "2e6": k M G (or B, billion) T, powers of 1000. The result
/// must be whole: "1.2345k" is refused. Throws UsageError.
int64_t parse_count(std::string_view text);

/// "7", "12.3k", "1.4M": three digits, so good for rates, too.
std::string format_count(double count);

/// Seconds from "90", "1.5h", "3 min 20 s", "1h30m": ms s m min h d. Throws UsageError.
double parse_duration(std::string_view text);

/// "120 ms", "4.2 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"; "?" when not finite or negative.
std::string format_duration(double seconds);

}  // namespace cadre
