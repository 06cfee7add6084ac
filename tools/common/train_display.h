#pragma once

/// What a user sees while a model trains: a bar with loss, speed, the time left and the experts'
/// load.

#include <string>
#include <vector>

#include "cadre/base/progress.h"
#include "cadre/training/trainer.h"

namespace cadre {

class TrainDisplay {
 public:
  TrainDisplay(const std::string& label, int64_t first_step, int64_t steps);
  void show(const StepReport& report);

 private:
  Progress progress_;
  double smooth_loss_ = 0;  ///< mean over the last steps, with weights that fade
  bool any_ = false;
};

/// The load of the experts as a row of bars of eight heights, at most `width` wide (each bar the
/// busiest of its experts); the mean load is half height, twice the mean and above full height.
std::string load_bars(const std::vector<double>& load, int width);

}  // namespace cadre
