#include "cadre/reshape/delta_file.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <memory>
#include <set>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/engine/checksum.h"
#include "cadre/formats/json.h"
#include "cadre/reshape/ternary_code.h"

namespace cadre::reshape {
namespace {

constexpr std::string_view kMagic = "cdelta01";
constexpr int64_t kPrefix = 16, kIndexEntry = 8, kWave = 64;
constexpr int kLengthBits = 15;
static_assert(1 + kTernaryBlock / 8 * 2 < 1 << kLengthBits);
static_assert(std::endian::native == std::endian::little);

struct Masks {
  std::array<uint64_t, kTernaryWords> plus, minus;
};

int64_t blocks_of(int64_t entries) { return (entries + kTernaryBlock - 1) / kTernaryBlock; }

std::string_view name_of(TernaryOptions::Magnitude magnitude) {
  return magnitude == TernaryOptions::Magnitude::kDeviation ? "deviation" : "mean_kept";
}

std::string json_of(const DeltaHeader& header) {
  nlohmann::ordered_json json = {
      {"base", header.base},           {"density", header.options.density},
      {"alpha", header.options.alpha}, {"magnitude", name_of(header.options.magnitude)},
      {"deviation", header.deviation}, {"scale", header.scale},
      {"notes", header.notes}};
  for (const DeltaTensor& tensor : header.tensors) {
    json["tensors"].push_back({{"name", tensor.name}, {"shape", tensor.shape}});
  }
  try {
    return json.dump();
  } catch (const nlohmann::json::exception&) {
    throw UsageError("a tensor's name or a note is not UTF-8");
  }
}

/// Places the tensors one after the other.
void place(DeltaHeader& header) {
  std::set<std::string> names;
  int64_t next = 0;
  for (DeltaTensor& tensor : header.tensors) {
    if (!names.insert(tensor.name).second) throw UsageError("tensor {} twice", quote(tensor.name));
    tensor.first = next;
    if (__builtin_add_overflow(next, tensor.entries(), &next)) {
      throw UsageError("tensor {} is too large", quote(tensor.name));
    }
  }
}

/// Throws what nlohmann throws for a value of another type, UsageError for another fault.
DeltaHeader header_of(const nlohmann::json& json) {
  DeltaHeader header{.base = json.at("base").get<std::string>(),
                     .options = {.density = json.at("density").get<double>(),
                                 .alpha = json.at("alpha").get<double>()},
                     .deviation = json.at("deviation").get<double>(),
                     .scale = json.at("scale").get<float>(),
                     .notes = json.at("notes").get<std::map<std::string, std::string>>()};
  if (json.at("magnitude") == name_of(TernaryOptions::Magnitude::kMeanKept)) {
    header.options.magnitude = TernaryOptions::Magnitude::kMeanKept;
  }
  for (const auto& entry : json.at("tensors")) {
    header.tensors.push_back({.name = entry.at("name").get<std::string>(),
                              .shape = entry.at("shape").get<std::vector<int64_t>>()});
    for (const int64_t size : header.tensors.back().shape) {
      if (size < 1)
        throw UsageError("tensor {} has a size below 1", quote(header.tensors.back().name));
    }
  }
  place(header);
  return header;
}

template <typename T>
T number_at(std::span<const std::byte> bytes, int64_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

struct Encoded {
  std::vector<std::byte> bytes;
  uint32_t kept = 0;
};

/// Blocks [first, first + out.size()): read together, because ties go to the lower index.
void encode_wave(const FlatReader& read, const MagnitudeCut& cut, int64_t first, int64_t entries,
                 int64_t& ties_before, std::span<Encoded> out) {
  const auto count = static_cast<int64_t>(out.size());
  std::vector<std::vector<float>> values(count);
  std::vector<int64_t> ties(count);
  parallel_for(count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = (first + i) * kTernaryBlock;
      values[i].resize(std::min(kTernaryBlock, entries - at));
      read(at, values[i]);
      ties[i] = std::count_if(values[i].begin(), values[i].end(), [&](float v) {
        return (std::bit_cast<uint32_t>(v) & 0x7fffffff) == cut.bits;
      });
    }
  });
  std::vector<int64_t> before(count);
  for (int64_t i = 0; i < count; ++i) before[i] = std::exchange(ties_before, ties_before + ties[i]);
  parallel_for(count, 1, [&](int64_t begin, int64_t end) {
    const auto masks = std::make_unique<Masks>();
    for (int64_t i = begin; i < end; ++i) {
      mark(values[i], cut, before[i], masks->plus.data(), masks->minus.data());
      const auto size = static_cast<int64_t>(values[i].size());
      out[i].bytes = encode_ternary(masks->plus.data(), masks->minus.data(), size);
      for (int64_t w = 0; w < words_of(size); ++w) {
        out[i].kept += std::popcount(masks->plus[w] | masks->minus[w]);
      }
    }
  });
}

}  // namespace

int64_t DeltaTensor::entries() const {
  int64_t entries = 1;
  for (const int64_t size : shape) {
    if (__builtin_mul_overflow(entries, size, &entries)) {
      throw UsageError("tensor {} is too large", quote(name));
    }
  }
  return entries;
}

int64_t DeltaHeader::entries() const {
  return tensors.empty() ? 0 : tensors.back().first + tensors.back().entries();
}

DeltaHeader write_delta(const std::filesystem::path& path, DeltaHeader header,
                        const FlatReader& read) {
  place(header);
  const int64_t entries = header.entries(), blocks = blocks_of(entries);
  const TernaryChoice choice = choose_ternary(entries, read, header.options);
  header.deviation = choice.deviation;
  header.scale = choice.scale;
  const std::string json = json_of(header);

  AtomicFile file(path);
  std::vector<uint32_t> index(static_cast<size_t>(blocks) * 2);
  const std::string space(kPrefix + json.size() + index.size() * sizeof(uint32_t), '\0');
  file.write(space);
  std::vector<Encoded> wave;
  int64_t ties = 0;
  for (int64_t first = 0; first < blocks; first += kWave) {
    wave.assign(std::min(kWave, blocks - first), {});
    encode_wave(read, choice.cut, first, entries, ties, wave);
    for (size_t i = 0; i < wave.size(); ++i) {
      uint32_t* entry = &index[(first + i) * 2];
      entry[0] = wave[i].kept << kLengthBits | static_cast<uint32_t>(wave[i].bytes.size());
      entry[1] = engine::crc32c(wave[i].bytes);
      file.write(wave[i].bytes);
    }
  }
  const auto index_bytes = std::as_bytes(std::span(index));
  const auto json_bytes = std::as_bytes(std::span(json));
  const std::array<uint32_t, 2> numbers = {static_cast<uint32_t>(json.size()),
                                           engine::crc32c(index_bytes, engine::crc32c(json_bytes))};
  file.overwrite(0, std::as_bytes(std::span(kMagic)));
  file.overwrite(8, std::as_bytes(std::span(numbers)));
  file.overwrite(kPrefix, json_bytes);
  file.overwrite(kPrefix + static_cast<int64_t>(json.size()), index_bytes);
  file.commit();
  return header;
}

DeltaReader::DeltaReader(const std::filesystem::path& path) : file_(path) {
  const auto bytes = file_.bytes();
  const auto size = static_cast<int64_t>(bytes.size());
  const std::string where = path.string();
  if (size < kPrefix || file_.text().substr(0, kMagic.size()) != kMagic) {
    throw FormatError("{} is no .cdelta file", where);
  }
  const int64_t json_bytes = number_at<uint32_t>(bytes, 8);
  if (json_bytes > size - kPrefix) {
    throw FormatError("{}: its header of {} bytes runs past the end", where, json_bytes);
  }
  try {
    header_ = header_of(parse_json(file_.text().substr(kPrefix, json_bytes), where));
  } catch (const nlohmann::json::exception& e) {
    throw FormatError("{}: its header is not as it should be ({})", where, e.what());
  } catch (const FormatError&) {
    throw;
  } catch (const UsageError& e) {
    throw FormatError("{}: {}", where, e.what());
  }
  const int64_t blocks = blocks_of(std::min(entries(), std::numeric_limits<int64_t>::max() / 2));
  int64_t offset = kPrefix + json_bytes;
  if (blocks > (size - offset) / kIndexEntry) {
    throw FormatError("{} is cut short: its index of {} blocks runs past the end", where, blocks);
  }
  const auto checked = bytes.subspan(kPrefix, json_bytes + blocks * kIndexEntry);
  if (engine::crc32c(checked) != number_at<uint32_t>(bytes, 12)) {
    throw FormatError("{}: header and index do not have their checksum", where);
  }
  const int64_t index_at = std::exchange(offset, offset + blocks * kIndexEntry);
  for (int64_t i = 0; i < blocks; ++i) {
    const auto packed = number_at<uint32_t>(bytes, index_at + i * kIndexEntry);
    const Block block{.offset = offset,
                      .kept = packed >> kLengthBits,
                      .bytes = packed & ((1U << kLengthBits) - 1),
                      .checksum = number_at<uint32_t>(bytes, index_at + i * kIndexEntry + 4)};
    index_.push_back(block);
    offset += block.bytes;
    if (block.kept > block_entries(i) || offset > size) {
      throw FormatError("{}: block {} of its index is impossible", where, i);
    }
  }
  if (offset != size) {
    throw FormatError("{} has {} bytes where its index says {}", where, size, offset);
  }
}

int64_t DeltaReader::kept() const {
  int64_t count = 0;
  for (const Block& block : index_) count += block.kept;
  return count;
}

const DeltaTensor& DeltaReader::tensor(const std::string& name) const {
  for (const DeltaTensor& tensor : header_.tensors) {
    if (tensor.name == name) return tensor;
  }
  throw UsageError("{} has no tensor {}", path().string(), quote(name));
}

int64_t DeltaReader::block_entries(int64_t block) const {
  return std::min(kTernaryBlock, entries() - block * kTernaryBlock);
}

void DeltaReader::block(int64_t block, uint64_t* plus, uint64_t* minus) const {
  const Block& entry = index_.at(block);
  const auto bytes = file_.bytes().subspan(entry.offset, entry.bytes);
  const std::string where = path().string();
  if (engine::crc32c(bytes) != entry.checksum) {
    throw FormatError("{}: block {} does not have its checksum", where, block);
  }
  const int64_t size = block_entries(block);
  decode_ternary(bytes, entry.kept, size, plus, minus, where);
  std::fill(plus + words_of(size), plus + kTernaryWords, 0);
  std::fill(minus + words_of(size), minus + kTernaryWords, 0);
}

void DeltaReader::add_to(int64_t first, float weight, std::span<float> values) const {
  const auto masks = std::make_unique<Masks>();
  const int64_t end = first + static_cast<int64_t>(values.size());
  const float step = weight * header_.scale;
  const auto add = [&](const auto& words, int64_t base, float by) {
    for (int64_t w = 0; w < kTernaryWords; ++w) {
      for (uint64_t word = words[w]; word != 0; word &= word - 1) {
        const int64_t at = base + w * 64 + std::countr_zero(word);
        if (at >= first && at < end) values[at - first] += by;
      }
    }
  };
  for (int64_t i = first / kTernaryBlock; i * kTernaryBlock < end; ++i) {
    block(i, masks->plus.data(), masks->minus.data());
    add(masks->plus, i * kTernaryBlock, step);
    add(masks->minus, i * kTernaryBlock, -step);
  }
}

TernaryVector DeltaReader::ternary() const { return range(0, entries()); }

TernaryVector DeltaReader::ternary(const DeltaTensor& tensor) const {
  return range(tensor.first, tensor.entries());
}

TernaryVector DeltaReader::range(int64_t first, int64_t entries) const {
  const int64_t begin = first / kTernaryBlock, end = blocks_of(first + entries);
  TernaryVector all{.size = (end - begin) * kTernaryBlock, .scale = header_.scale};
  all.plus.resize(words_of(all.size));
  all.minus.resize(words_of(all.size));
  parallel_for(end - begin, 1, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      block(begin + i, &all.plus[i * kTernaryWords], &all.minus[i * kTernaryWords]);
    }
  });
  const int64_t skip = first - begin * kTernaryBlock, words = words_of(entries);
  const auto cut = [&](std::vector<uint64_t>& mask) {
    for (int64_t w = 0; w < words; ++w) {
      const int64_t bit = skip + w * 64, from = bit / 64, shift = bit % 64;
      uint64_t word = mask[from] >> shift;
      if (shift != 0 && from + 1 < words_of(all.size)) word |= mask[from + 1] << (64 - shift);
      mask[w] = word;
    }
    mask.resize(words);
    if (entries % 64 != 0) mask.back() &= (uint64_t{1} << (entries % 64)) - 1;
  };
  cut(all.plus);
  cut(all.minus);
  all.size = entries;
  return all;
}

}  // namespace cadre::reshape
