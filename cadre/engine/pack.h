#pragma once

/// Pack files: a model whose experts lie as the kernels and the disk want them. A pack is a GGUF
/// file (version 3) with everything the original has but for its routed experts: each layer's stand
/// in one tensor "blk.N.ffn_panels_exps.weight", I8 [E, record], one record an expert: the panels
/// of gate and up, then those of down, both padded to 4096 bytes (panels.h). So one expert is one
/// aligned range, read straight into its cache slot without repacking. The last tensor holds every
/// record's CRC32C. Costs of the padding: below 0.2 %.
///
/// Keys: "cadre.pack.version" (1), "cadre.pack.types" (names, [L x 3]: gate, up, down; "" where a
/// layer has no experts), "cadre.pack.shape" ([H, D] of gate and up).

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "cadre/engine/expert_files.h"
#include "cadre/formats/gguf.h"

namespace cadre::engine {

constexpr int64_t kPackVersion = 1;

/// Whether a GGUF file is a pack.
bool is_pack(const GgufReader& gguf);
bool is_pack(const TensorSource& source);

/// Where a pack's experts are. Throws IoError; FormatError that names the file and the field: no
/// pack, another version, records that do not fit types and shape, are unaligned or missing.
ExpertFiles read_pack(const std::filesystem::path& path);
/// The same from memory: `where` names it in errors.
ExpertFiles read_pack(std::span<const std::byte> bytes, const std::string& where);

/// Where any model's experts are: read_pack() for a pack, find_expert_files() for others. Empty for
/// a dense model. Throws FormatError when a pack's records are not those of its own model.
ExpertFiles open_expert_files(const TensorSource& source,
                              const PackedType& packed_type = stays_as_stored);

struct PackProgress {
  int64_t done = 0, total = 0;  ///< bytes written
};

/// Writes `out` from a GGUF model (one file or split). Appears whole or not at all. Throws IoError,
/// FormatError; UsageError when the model is a directory, a pack already, or has no experts.
void write_pack(const std::filesystem::path& gguf, const std::filesystem::path& out,
                const std::function<void(const PackProgress&)>& progress = {});

}  // namespace cadre::engine
