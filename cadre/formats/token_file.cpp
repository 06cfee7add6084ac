#include "cadre/formats/token_file.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "cadre/base/error.h"
#include "cadre/formats/token_file_layout.h"

namespace cadre {

static_assert(std::endian::native == std::endian::little, "token files are mapped as they are");

namespace {

template <typename Id>
const Id* ids_of(const MappedFile& file) {
  return reinterpret_cast<const Id*>(file.bytes().data() + sizeof(TokenFileHeader));
}

/// The largest id as an unsigned number, 0 for none: negative ids look large.
template <typename Id>
uint64_t largest_id(const MappedFile& file, int64_t count) {
  const Id* ids = ids_of<Id>(file);
  Id largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, ids[i]);
  return largest;
}

}  // namespace

TokenFile::TokenFile(const std::filesystem::path& path) : file_(path) {
  const std::string where = path.string();
  const size_t bytes = file_.bytes().size();
  TokenFileHeader header;
  if (bytes < sizeof(header)) {
    throw FormatError("{}: {} bytes are too few for a token file", where, bytes);
  }
  std::memcpy(&header, file_.bytes().data(), sizeof(header));
  if (header.magic != kTokenFileMagic) {
    throw FormatError("{}: not a token file (it does not begin with CADRETOK)", where);
  }
  if (header.version != kTokenFileVersion) {
    throw FormatError("{}: version {} of the token file format, this program reads {}", where,
                      header.version, kTokenFileVersion);
  }
  if (header.id_bytes != 2 && header.id_bytes != 4) {
    throw FormatError("{}: {} bytes per id, expected 2 or 4", where, header.id_bytes);
  }
  const size_t data_bytes = bytes - sizeof(header);
  if (data_bytes % header.id_bytes != 0 || header.count != data_bytes / header.id_bytes) {
    throw FormatError("{}: the header counts {} ids of {} bytes, the file holds {} bytes of them",
                      where, header.count, header.id_bytes, data_bytes);
  }
  if (header.vocabulary > uint64_t{INT32_MAX}) {
    throw FormatError("{}: impossible vocabulary of {}", where, header.vocabulary);
  }
  count_ = static_cast<int64_t>(header.count);
  vocabulary_ = static_cast<int64_t>(header.vocabulary);
  id_bytes_ = static_cast<int>(header.id_bytes);
  for (const uint8_t byte : header.tokenizer_hash) tokenizer_hash_ += fmt::format("{:02x}", byte);
  const uint64_t largest =
      id_bytes_ == 2 ? largest_id<uint16_t>(file_, count_) : largest_id<uint32_t>(file_, count_);
  if (count_ > 0 && largest >= header.vocabulary) {
    throw FormatError("{}: id {} in a vocabulary of {}", where, largest, vocabulary_);
  }
}

TokenId TokenFile::operator[](int64_t index) const {
  return id_bytes_ == 2 ? static_cast<TokenId>(ids_of<uint16_t>(file_)[index])
                        : static_cast<TokenId>(ids_of<uint32_t>(file_)[index]);
}

void TokenFile::copy(int64_t begin, int64_t count, int64_t* out) const {
  if (begin < 0 || count < 0 || begin > count_ - count) {
    throw Error("{}: ids [{}, {} + {}) of {} asked for", file_.path().string(), begin, begin, count,
                count_);
  }
  if (id_bytes_ == 2) {
    std::copy_n(ids_of<uint16_t>(file_) + begin, count, out);
  } else {
    std::copy_n(ids_of<uint32_t>(file_) + begin, count, out);
  }
}

}  // namespace cadre
