#pragma once

/// What convert and quantize show.

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cadre/base/progress.h"
#include "cadre/engine/convert.h"

namespace cadre {

struct StoredReport {
  std::filesystem::path input, output;
  std::vector<std::string> notes;
  bool json = false;
  std::optional<std::pair<double, double>> perplexity = {};  ///< before and after, if measured
};
/// Sizes before and after, types and relative error (root of squared error over squared sum) by
/// role, on stdout.
void print_stored(const std::vector<engine::StoredTensor>& tensors, const StoredReport& report);

/// A line each on stderr.
void print_notes(const std::vector<std::string>& notes);

/// Throws UsageError when both are the same file.
void refuse_same_file(const std::filesystem::path& input, const std::filesystem::path& output);

/// Runs work(progress) behind a bar that counts the image's bytes; returns its result.
template <typename Work>
auto with_progress(const std::string& label, const engine::GgufImage& image, Work work) {
  constexpr int64_t kMiB = 1 << 20;
  int64_t total = 0, done = 0;
  for (const engine::ImageTensor& tensor : image.tensors) total += tensor.bytes();
  Progress progress({.label = label, .total = (total + kMiB - 1) / kMiB, .unit = "MiB"});
  auto result = work([&](int64_t bytes) {
    done += bytes;
    progress.advance(done / kMiB - progress.done());
  });
  progress.advance((total + kMiB - 1) / kMiB - progress.done());
  progress.finish();
  return result;
}

}  // namespace cadre
