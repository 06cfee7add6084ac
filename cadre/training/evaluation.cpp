#include "cadre/training/evaluation.h"

#include "cadre/base/error.h"

namespace cadre {

Evaluation evaluate(LanguageModel& model, const std::vector<DomainTokens>& domains, int64_t batch,
                    int64_t length, int64_t max_sequences) {
  std::vector<std::string> names;
  std::vector<std::vector<TokenBatch>> batches;
  for (const DomainTokens& domain : domains) {
    batches.push_back(validation_batches(domain, static_cast<int64_t>(names.size()), batch, length,
                                         max_sequences));
    names.push_back(domain.name);
  }
  return evaluate(model, names, batches);
}

Evaluation evaluate(LanguageModel& model, const std::vector<std::string>& names,
                    const std::vector<std::vector<TokenBatch>>& batches) {
  if (names.empty() || names.size() != batches.size()) {
    throw UsageError("{} domain names for batches of {} domains", names.size(), batches.size());
  }
  Evaluation evaluation;
  for (size_t i = 0; i < names.size(); ++i) {
    DomainLoss domain{.domain = names[i]};
    double sum = 0;
    for (const TokenBatch& batch : batches[i]) {
      sum += model.evaluate(batch.inputs, batch.targets).sum(torch::kFloat64).item<double>();
      domain.tokens += batch.inputs.numel();
    }
    if (domain.tokens == 0) throw UsageError("domain '{}' has no tokens", names[i]);
    domain.loss = sum / static_cast<double>(domain.tokens);
    evaluation.mean += domain.loss / static_cast<double>(names.size());
    evaluation.domains.push_back(domain);
  }
  return evaluation;
}

}  // namespace cadre
