#pragma once

/// Text as bytes, in domains, for language models with a vocabulary of 256: batches straight from
/// memory, no tokenizer.

#include <cstdint>
#include <string>
#include <vector>

#include "cadre/data/token_batches.h"
#include "cadre/formats/corpus.h"

namespace cadre {

constexpr int64_t kByteValues = 256;

struct ByteDomain {
  std::string name;
  std::string train, validation;
};

/// A domain's bytes, every 20th block of 4 KiB held out; `bytes` of it at most.
ByteDomain byte_domain(const Domain& domain, int64_t bytes);

/// code, manual, literature and dictionary from Debian packages (cadre/formats/debian_domains.h),
/// `bytes` of each at most. Domains whose packages are not there are left out: the list may be
/// empty.
std::vector<ByteDomain> debian_byte_domains(int64_t bytes);

class ByteText {
 public:
  /// Throws UsageError: no domain, or one with less than length + 1 bytes for training or
  /// validation (named).
  ByteText(std::vector<ByteDomain> domains, int64_t batch, int64_t length, uint64_t seed);

  /// Training batch `step`: domains take turns, each sequence begins at a random byte. A pure
  /// function of (seed, step).
  TokenBatch at(int64_t step) const;
  /// One list a domain: `sequences` sequences spread evenly over its validation bytes.
  std::vector<std::vector<TokenBatch>> validation(int64_t sequences) const;
  std::vector<std::string> names() const;

 private:
  TokenBatch empty_batch(int64_t rows) const;
  void copy(const std::string& text, int64_t begin, int64_t domain, int64_t row,
            TokenBatch& batch) const;

  std::vector<ByteDomain> domains_;
  int64_t batch_, length_;
  uint64_t seed_;
};

}  // namespace cadre
