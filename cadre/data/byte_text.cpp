#include "cadre/data/byte_text.h"

#include <algorithm>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/formats/debian_domains.h"

namespace cadre {
namespace {

std::string joined(const std::vector<std::string_view>& pieces) {
  std::string text;
  for (const std::string_view piece : pieces) text += piece;
  return text;
}

}  // namespace

ByteDomain byte_domain(const Domain& domain, int64_t bytes) {
  std::vector<std::string> documents;
  int64_t left = bytes;
  for (const std::string& document : domain.documents) {
    if (left <= 0) break;
    documents.push_back(document.substr(0, left));
    left -= static_cast<int64_t>(documents.back().size());
  }
  const HeldOutSplit split = split_held_out(documents);
  return {domain.name, joined(split.training), joined(split.validation)};
}

std::vector<ByteDomain> debian_byte_domains(int64_t bytes) {
  std::vector<ByteDomain> domains;
  for (const DebianDomain& domain : debian_domains()) {
    try {
      domains.push_back(byte_domain(read_debian_domain(domain, {.max_bytes = bytes}), bytes));
    } catch (const UsageError&) {
      continue;  // its packages are not installed
    }
  }
  return domains;
}

ByteText::ByteText(std::vector<ByteDomain> domains, int64_t batch, int64_t length, uint64_t seed)
    : domains_(std::move(domains)), batch_(batch), length_(length), seed_(seed) {
  if (domains_.empty()) throw UsageError("byte text: no domain");
  if (batch < 1 || length < 1) {
    throw UsageError("byte text: batch {} and length {} must be at least 1", batch, length);
  }
  for (const ByteDomain& domain : domains_) {
    const auto smaller = std::min(domain.train.size(), domain.validation.size());
    if (static_cast<int64_t>(smaller) > length) continue;
    throw UsageError("byte text: domain {} has {} bytes to train or validate on, {} are needed",
                     domain.name, smaller, length + 1);
  }
}

TokenBatch ByteText::empty_batch(int64_t rows) const {
  const auto ids = torch::TensorOptions(torch::kInt64);
  return {torch::empty({rows, length_}, ids), torch::empty({rows, length_}, ids),
          torch::empty({rows}, ids)};
}

void ByteText::copy(const std::string& text, int64_t begin, int64_t domain, int64_t row,
                    TokenBatch& batch) const {
  int64_t* input = batch.inputs.data_ptr<int64_t>() + row * length_;
  int64_t* target = batch.targets.data_ptr<int64_t>() + row * length_;
  for (int64_t i = 0; i < length_; ++i) {
    input[i] = static_cast<uint8_t>(text[begin + i]);
    target[i] = static_cast<uint8_t>(text[begin + i + 1]);
  }
  batch.domains.data_ptr<int64_t>()[row] = domain;
}

TokenBatch ByteText::at(int64_t step) const {
  TokenBatch batch = empty_batch(batch_);
  Random random(seed_, {static_cast<uint64_t>(step)});
  const auto count = static_cast<int64_t>(domains_.size());
  for (int64_t row = 0; row < batch_; ++row) {
    const int64_t domain = (step * batch_ + row) % count;
    const std::string& text = domains_[domain].train;
    copy(text, static_cast<int64_t>(random.below(text.size() - length_)), domain, row, batch);
  }
  return batch;
}

std::vector<std::vector<TokenBatch>> ByteText::validation(int64_t sequences) const {
  std::vector<std::vector<TokenBatch>> all;
  for (size_t d = 0; d < domains_.size(); ++d) {
    const std::string& text = domains_[d].validation;
    const int64_t last = static_cast<int64_t>(text.size()) - length_ - 1;
    std::vector<TokenBatch> batches;
    for (int64_t begin = 0; begin < sequences; begin += batch_) {
      TokenBatch batch = empty_batch(std::min(batch_, sequences - begin));
      for (int64_t row = 0; row < batch.domains.size(0); ++row) {
        const int64_t place = sequences > 1 ? (begin + row) * last / (sequences - 1) : 0;
        copy(text, place, static_cast<int64_t>(d), row, batch);
      }
      batches.push_back(std::move(batch));
    }
    all.push_back(std::move(batches));
  }
  return all;
}

std::vector<std::string> ByteText::names() const {
  std::vector<std::string> names;
  for (const ByteDomain& domain : domains_) names.push_back(domain.name);
  return names;
}

}  // namespace cadre
