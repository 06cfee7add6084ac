#include "tools/common/domain_tokens.h"

#include <algorithm>

#include "cadre/base/error.h"
#include "cadre/formats/token_file.h"

namespace cadre {
namespace {

constexpr int64_t kDefaultLength = 512;

int64_t resolve_length(int64_t length, const ModelConfig& config) {
  if (length == 0) return std::min(kDefaultLength, config.max_positions);
  if (length <= config.max_positions) return length;
  throw UsageError("--length {} is beyond the model's context of {} tokens", length,
                   config.max_positions);
}

PreparedData prepared_text(const MeasureOptions& options, const Tokenizer& tokenizer,
                           const std::filesystem::path& folder) {
  if (options.data.empty() == options.domains.empty()) {
    throw UsageError(
        "no text to measure on: give --data FOLDER (of a training run) or --domain NAME=PATH");
  }
  if (options.data.empty()) {
    return encode_domains(folder, options.domains, tokenizer, options.max_domain_mib);
  }
  PreparedData data = load_prepared(options.data);
  if (hash_of(data.tokenizer) == hash_of(tokenizer)) return data;
  throw UsageError(
      "{} was made with another tokenizer than the model's: give the text with --domain NAME=PATH",
      options.data);
}

}  // namespace

std::vector<DomainTokens> open_domains(const PreparedData& data) {
  std::vector<DomainTokens> domains;
  for (const auto& domain : data.domains) {
    domains.push_back({.name = domain.name,
                       .train = std::make_shared<TokenFile>(domain.train),
                       .validation = std::make_shared<TokenFile>(domain.validation)});
  }
  return domains;
}

void add_measure_options(CommandLine& line, MeasureOptions& options) {
  line.add(kDataGroup, "--data", options.data,
           "Folder of a run's prepared text, e.g. quickstart/data: measure on its held-out part");
  line.add(kDataGroup, "--domain", options.domains,
           "NAME=PATH: measure on this file or folder; once for each domain")
      ->allow_extra_args(false);
  line.add(kDataGroup, "--max-domain-mib", options.max_domain_mib,
           "Read at most this many MiB of each domain")
      ->check(CLI::Range(1, 1 << 20));
  line.add(kDataGroup, "--length", options.length,
           "Tokens a sequence; 0 = the model's context, at most 512")
      ->check(CLI::NonNegativeNumber);
  line.add(kDataGroup, "--batch", options.batch, "Sequences at once")->check(CLI::PositiveNumber);
  line.add(kDataGroup, "--sequences", options.sequences, "At most so many sequences of each domain")
      ->check(CLI::PositiveNumber);
}

MeasureData::MeasureData(MeasureOptions& options, const Tokenizer& tokenizer,
                         const ModelConfig& config) {
  options.length = resolve_length(options.length, config);
  domains_ = open_domains(prepared_text(options, tokenizer, folder_.path()));
  for (const auto& domain : domains_) {
    if (domain.validation->size() > options.length) continue;
    throw UsageError(
        "domain '{}' has {} tokens, less than one sequence of {}: give it more text or a smaller "
        "--length",
        domain.name, domain.validation->size(), options.length + 1);
  }
}

std::vector<std::string> MeasureData::names() const {
  std::vector<std::string> names;
  for (const auto& domain : domains_) names.push_back(domain.name);
  return names;
}

std::vector<std::vector<TokenBatch>> MeasureData::batches(const MeasureOptions& options) const {
  std::vector<std::vector<TokenBatch>> batches;
  for (size_t d = 0; d < domains_.size(); ++d) {
    batches.push_back(validation_batches(domains_[d], static_cast<int64_t>(d), options.batch,
                                         options.length, options.sequences));
  }
  return batches;
}

}  // namespace cadre
