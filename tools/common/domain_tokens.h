#pragma once

/// Prepared text as the learn wing reads it, and the text that eval and routes measure on.

#include <memory>
#include <string>
#include <vector>

#include "cadre/data/token_batches.h"
#include "cadre/formats/model_config.h"
#include "tools/common/command_line.h"
#include "tools/common/preparation.h"
#include "tools/common/temporary_folder.h"

namespace cadre {

/// Opens the token files.
std::vector<DomainTokens> open_domains(const PreparedData& data);

struct MeasureOptions {
  std::string data;                  ///< folder of prepared data: its held-out part
  std::vector<std::string> domains;  ///< or "NAME=PATH": all of that text
  int64_t max_domain_mib = 16;       ///< MiB read of each domain at most
  int64_t length = 0;                ///< tokens a sequence; 0 = the model's context, at most 512
  int64_t batch = 16;                ///< sequences at once
  int64_t sequences = 64;            ///< of each domain at most
};
void add_measure_options(CommandLine& line, MeasureOptions& options);

/// Text to measure a model on.
class MeasureData {
 public:
  /// Sets options.length when it is 0. Throws UsageError: neither data nor domains or both, a
  /// domain smaller than one sequence, a length beyond the model's context, prepared data of
  /// another tokenizer.
  MeasureData(MeasureOptions& options, const Tokenizer& tokenizer, const ModelConfig& config);
  const std::vector<DomainTokens>& domains() const { return domains_; }
  std::vector<std::string> names() const;
  /// At most options.sequences sequences of each domain.
  std::vector<std::vector<TokenBatch>> batches(const MeasureOptions& options) const;

 private:
  TemporaryFolder folder_;
  std::vector<DomainTokens> domains_;
};

}  // namespace cadre
