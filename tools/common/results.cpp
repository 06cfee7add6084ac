#include "tools/common/results.h"

#include <fmt/format.h>

#include <algorithm>

#include "cadre/base/log.h"
#include "tools/common/train_display.h"

namespace cadre {

using Json = nlohmann::ordered_json;

Json to_json(const TrainResult& result) {
  Json domains = Json::object();
  for (const auto& domain : result.validation.domains) domains[domain.domain] = domain.loss;
  Json curve = Json::array();
  for (const auto& point : result.curve) {
    curve.push_back({{"step", point.step},
                     {"tokens", point.tokens},
                     {"seconds", point.seconds},
                     {"loss", point.loss}});
  }
  return {{"validation_loss", result.validation.mean},
          {"domains", domains},
          {"steps", result.steps},
          {"tokens", result.tokens},
          {"seconds", result.train_seconds},
          {"curve", curve}};
}

Table losses_table(const std::vector<std::pair<std::string, Evaluation>>& models) {
  std::vector<std::string> headers = {"validation loss"};
  for (const auto& [name, evaluation] : models) headers.push_back(name);
  Table table(headers);
  const auto& domains = models.front().second.domains;
  for (size_t d = 0; d < domains.size(); ++d) {
    std::vector<std::string> row = {domains[d].domain};
    for (const auto& [name, evaluation] : models)
      row.push_back(fmt::format("{:.4f}", evaluation.domains[d].loss));
    table.add_row(row);
  }
  std::vector<std::string> mean = {"mean"};
  for (const auto& [name, evaluation] : models)
    mean.push_back(fmt::format("{:.4f}", evaluation.mean));
  table.add_row(mean);
  return table;
}

TrainResult run_with_display(Trainer& trainer, const std::string& label, int64_t steps) {
  if (trainer.first_step() < steps && trainer.resumed()) {
    logger().info("{}: going on after step {} of {}", label, trainer.first_step(), steps);
  }
  TrainResult result;
  if (trainer.first_step() >= steps) {
    result = trainer.run();
  } else {
    TrainDisplay display(label, trainer.first_step(), steps);
    result = trainer.run([&](const StepReport& report) { display.show(report); });
  }
  if (result.end == TrainResult::End::kInterrupted) {
    logger().warn("{}: stopped and saved after step {} of {}; the same command goes on from there",
                  label, result.steps, steps);
  }
  return result;
}

double loss_at(const std::vector<TrainResult::Point>& curve, double seconds) {
  const auto after = std::find_if(curve.begin(), curve.end(),
                                  [&](const auto& point) { return point.seconds >= seconds; });
  if (after == curve.begin()) return curve.front().loss;
  if (after == curve.end()) return curve.back().loss;
  const auto before = after - 1;
  const double share = (seconds - before->seconds) / (after->seconds - before->seconds);
  return before->loss + share * (after->loss - before->loss);
}

}  // namespace cadre
