/// cadre pack: a GGUF model as a pack file, whose experts are read without repacking.

#include <iostream>
#include <optional>

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "cadre/base/progress.h"
#include "cadre/base/units.h"
#include "cadre/engine/pack.h"
#include "tools/common/command_line.h"

namespace {

using namespace cadre;

struct Options {
  std::filesystem::path input, output;
};

int run(int argc, char** argv) {
  Options options;
  CommandLine line(
      "pack",
      "The pack holds everything the original has and runs wherever that does. With "
      "less memory than the model needs it is faster: each expert is one aligned range "
      "of the file, in the form the kernels read, with a checksum.");
  line.add(kModelGroup, "model", options.input, "GGUF file (the first of a split)")->required();
  line.add(kOutputGroup, "output", options.output, "Pack to write, e.g. model.cpk")->required();
  if (const auto done = line.parse(argc, argv)) return *done;

  std::optional<Progress> progress;
  engine::write_pack(options.input, options.output, [&](const engine::PackProgress& state) {
    constexpr int64_t kMiB = 1 << 20;
    if (!progress)
      progress.emplace(
          ProgressOptions{.label = "pack", .total = state.total / kMiB, .unit = "MiB"});
    progress->advance(state.done / kMiB - progress->done());
  });
  if (progress) progress->finish();
  std::cout << fmt::format("{}: {}\n", options.output.string(),
                           format_bytes(std::filesystem::file_size(options.output)));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("pack", [&] { return run(argc, argv); });
}
