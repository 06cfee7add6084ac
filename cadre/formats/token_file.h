#pragma once

/// Token files: a text data set as one flat, memory-mapped array of ids, written once and read by
/// many. Layout (little-endian): 8 bytes magic "CADRETOK", u32 version = 1, u32 bytes per id (2 or
/// 4), u64 count, u64 vocabulary, 16 bytes of the tokenizer's hash, then the ids.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "cadre/formats/file.h"
#include "cadre/formats/tokenizer.h"

namespace cadre {

class TokenFile {
 public:
  /// Throws IoError or FormatError (magic, version, length, an id at or above the vocabulary).
  /// Every id is checked once, here, at memory speed: a bad one would read past the end of an
  /// embedding.
  explicit TokenFile(const std::filesystem::path& path);

  int64_t size() const { return count_; }
  int64_t vocabulary() const { return vocabulary_; }
  /// As hash_of(Tokenizer) gives it.
  const std::string& tokenizer_hash() const { return tokenizer_hash_; }
  TokenId operator[](int64_t index) const;
  /// Copies ids [begin, begin + count) to `out` as int64. Range must lie inside.
  void copy(int64_t begin, int64_t count, int64_t* out) const;

 private:
  MappedFile file_;
  int64_t count_ = 0, vocabulary_ = 0;
  int id_bytes_ = 2;
  std::string tokenizer_hash_;
};

/// Encodes the texts in parallel, in order, each followed by the end-of-text id when the tokenizer
/// has one, and writes them as one token file, atomically. Returns the number of tokens. A long
/// text is encoded in pieces that give the same ids as the whole; memory stays below about 100 MB
/// beside the texts. `progress` is called now and then with the share done in [0, 1]; may be empty.
int64_t write_token_file(const std::filesystem::path& path, const Tokenizer& tokenizer,
                         const std::vector<std::string_view>& texts,
                         const std::function<void(double)>& progress = {});

/// Where a piece of about `bytes` bytes of `text` may end so that the pieces encode as the whole
/// does: in front of a space or newline that follows an ASCII letter, where every pre-tokenizer
/// cuts and no character composes with another. Texts without such a place are one piece.
size_t encoding_cut(std::string_view text, size_t bytes);

/// A short hash of the tokenizer's content, stored in token files and checkpoints to tell unfit
/// pairs: 32 hex digits of XXH3-128 over its tokenizer.json.
std::string hash_of(const Tokenizer& tokenizer);

}  // namespace cadre
