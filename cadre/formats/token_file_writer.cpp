#define XXH_INLINE_ALL  // the header alone, no library to link
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <span>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/formats/token_file.h"
#include "cadre/formats/token_file_layout.h"

namespace cadre {

namespace {

constexpr size_t kPieceBytes = size_t{256} << 10;  // some 50 ms of encoding: threads stay even
constexpr int kPiecesPerThread = 8;

/// What one thread encodes at a time: texts or parts of them, about kPieceBytes together.
struct Job {
  struct Piece {
    std::string_view text;
    bool ends_text;
  };
  std::vector<Piece> pieces;
  size_t bytes = 0;
};

/// Hands out the texts, in order, as jobs.
class JobSource {
 public:
  explicit JobSource(const std::vector<std::string_view>& texts) : texts_(texts) {}

  bool done() const { return text_ == texts_.size(); }

  Job next() {
    Job job;
    while (!done() && job.bytes < kPieceBytes) {
      const std::string_view rest = texts_[text_].substr(offset_);
      const size_t size = encoding_cut(rest, kPieceBytes - job.bytes);
      const bool ends_text = size == rest.size();
      job.pieces.push_back({rest.substr(0, size), ends_text});
      job.bytes += size;
      offset_ = ends_text ? 0 : offset_ + size;
      text_ += ends_text ? 1 : 0;
    }
    return job;
  }

 private:
  const std::vector<std::string_view>& texts_;
  size_t text_ = 0, offset_ = 0;
};

template <typename Id>
std::vector<std::byte> pack(const std::vector<TokenId>& ids) {
  const std::vector<Id> narrow(ids.begin(), ids.end());
  const auto bytes = std::as_bytes(std::span(narrow));
  return {bytes.begin(), bytes.end()};
}

std::vector<std::byte> encode(const Job& job, const Tokenizer& tokenizer, uint32_t id_bytes) {
  std::vector<TokenId> ids;
  for (const Job::Piece& piece : job.pieces) {
    const std::vector<TokenId> encoded = tokenizer.encode(piece.text);
    ids.insert(ids.end(), encoded.begin(), encoded.end());
    if (piece.ends_text && tokenizer.end_of_text() >= 0) ids.push_back(tokenizer.end_of_text());
  }
  return id_bytes == 2 ? pack<uint16_t>(ids) : pack<uint32_t>(ids);
}

std::array<uint8_t, 16> hash_bytes(const Tokenizer& tokenizer) {
  const std::string json = tokenizer.to_json();
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(json.data(), json.size()));
  std::array<uint8_t, 16> bytes;
  std::memcpy(bytes.data(), canonical.digest, bytes.size());
  return bytes;
}

/// Encodes everything to the file behind its header. Returns the number of ids.
uint64_t write_ids(AtomicFile& file, const Tokenizer& tokenizer, uint32_t id_bytes,
                   const std::vector<std::string_view>& texts,
                   const std::function<void(double)>& progress) {
  size_t total = 0, encoded = 0;
  for (const std::string_view text : texts) total += text.size();
  JobSource source(texts);
  uint64_t bytes = 0;
  while (!source.done()) {
    std::vector<Job> jobs;
    while (!source.done() && jobs.size() < size_t{kPiecesPerThread} * num_threads()) {
      jobs.push_back(source.next());
    }
    std::vector<std::vector<std::byte>> packed(jobs.size());
    parallel_tasks(static_cast<int64_t>(jobs.size()),
                   [&](int64_t i) { packed[i] = encode(jobs[i], tokenizer, id_bytes); });
    for (size_t i = 0; i < jobs.size(); ++i) {
      file.write(packed[i]);
      bytes += packed[i].size();
      encoded += jobs[i].bytes;
    }
    if (progress)
      progress(total == 0 ? 1.0 : static_cast<double>(encoded) / static_cast<double>(total));
  }
  return bytes / id_bytes;
}

}  // namespace

size_t encoding_cut(std::string_view text, size_t bytes) {
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  for (size_t at = text.find(' ', bytes); at < text.size(); at = text.find(' ', at + 1)) {
    if (at > 0 && is_letter(text[at - 1])) return at;
  }
  return text.size();
}

int64_t write_token_file(const std::filesystem::path& path, const Tokenizer& tokenizer,
                         const std::vector<std::string_view>& texts,
                         const std::function<void(double)>& progress) {
  TokenFileHeader header{.vocabulary = static_cast<uint64_t>(tokenizer.vocabulary_size()),
                         .tokenizer_hash = hash_bytes(tokenizer)};
  header.id_bytes = header.vocabulary <= uint64_t{1} << 16 ? 2 : 4;
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&header, 1)));
  header.count = write_ids(file, tokenizer, header.id_bytes, texts, progress);
  file.overwrite(0, std::as_bytes(std::span(&header, 1)));
  file.commit();
  return static_cast<int64_t>(header.count);
}

std::string hash_of(const Tokenizer& tokenizer) {
  std::string text;
  for (const uint8_t byte : hash_bytes(tokenizer)) text += fmt::format("{:02x}", byte);
  return text;
}

}  // namespace cadre
