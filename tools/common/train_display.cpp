#include "tools/common/train_display.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "cadre/base/units.h"

namespace cadre {

TrainDisplay::TrainDisplay(const std::string& label, int64_t first_step, int64_t steps)
    : progress_({.label = label, .total = steps, .start = first_step, .unit = "steps"}) {}

void TrainDisplay::show(const StepReport& report) {
  constexpr double kFade = 0.9;
  constexpr int kBars = 16;
  smooth_loss_ =
      any_ ? kFade * smooth_loss_ + (1 - kFade) * report.cross_entropy : report.cross_entropy;
  any_ = true;
  progress_.field("loss", fmt::format("{:.3f}", smooth_loss_));
  progress_.field("tokens/s", format_count(report.tokens_per_second));
  if (!report.load.empty()) {
    progress_.field("load", fmt::format("{} max {:.1f}x", load_bars(report.load, kBars),
                                        report.max_over_mean_load));
  }
  progress_.advance(report.step - progress_.done());
}

std::string load_bars(const std::vector<double>& load, int width) {
  static constexpr std::array kBars = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  const auto experts = static_cast<int64_t>(load.size());
  const int64_t bars = std::min<int64_t>(experts, width);
  std::string text;
  for (int64_t b = 0; b < bars; ++b) {
    const auto begin = load.begin() + b * experts / bars;
    const auto end = load.begin() + (b + 1) * experts / bars;
    const double over_mean = *std::max_element(begin, end) * static_cast<double>(experts);
    const auto height = static_cast<int64_t>(over_mean / 2 * kBars.size());
    text += kBars[static_cast<size_t>(std::clamp<int64_t>(height, 0, kBars.size() - 1))];
  }
  return text;
}

}  // namespace cadre
