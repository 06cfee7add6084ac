/// cadre convert: checkpoint folder <-> GGUF, weights as they are.

#include <iostream>

#include <nlohmann/json.hpp>

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "cadre/base/units.h"
#include "cadre/engine/convert.h"
#include "tools/common/command_line.h"
#include "tools/common/json_text.h"
#include "tools/common/stored_tensors.h"

namespace {

using namespace cadre;
using namespace cadre::engine;
namespace fs = std::filesystem;

struct Options {
  fs::path input, output;
  std::string type;
  bool json = false;
};

kernels::BlockType type_of(const Options& options, const GgufImage& image) {
  if (options.type.empty()) return float_type_of(image);
  const kernels::BlockType type = kernels::block_type_named(options.type);
  if (kernels::block_info(type).elements == 1) return type;
  throw UsageError("--type {}: convert writes F32, F16 or BF16; cadre quantize writes the others",
                   options.type);
}

int to_gguf(const Options& options) {
  GgufImage image = open_image(options.input);
  const kernels::BlockType type = type_of(options, image);
  const std::vector<std::string> notes = image.notes;
  if (!options.json) print_notes(notes);
  const auto stored = with_progress("convert", image, [&](const ImageProgress& progress) {
    return write_gguf(options.output, image, type, progress);
  });
  print_stored(
      stored,
      {.input = options.input, .output = options.output, .notes = notes, .json = options.json});
  return 0;
}

int to_folder(const Options& options) {
  if (fs::is_directory(options.input))
    throw UsageError(
        "{} is a checkpoint folder already; to make a GGUF file of it, let the output "
        "end in .gguf",
        options.input.string());
  const GgufImage image = image_of_gguf(options.input);
  const kernels::BlockType type = type_of(options, image);
  with_progress("convert", image, [&](const ImageProgress& progress) {
    write_checkpoint(options.output, options.input, type, progress);
    return 0;
  });
  const std::string_view name = kernels::block_info(type).name;
  if (options.json)
    std::cout << pretty({{"input", options.input.string()},
                         {"output", options.output.string()},
                         {"type", name},
                         {"tensors", image.tensors.size()}});
  else
    std::cout << fmt::format("wrote {}: {} weights\n", options.output.string(), name);
  return 0;
}

int run(int argc, char** argv) {
  Options options;
  CommandLine line("convert",
                   "A checkpoint folder becomes a GGUF file that llama.cpp loads, too, a GGUF file "
                   "becomes a folder, and F32 comes back bit for bit.");
  line.accept_config_file();
  line.add("model", "input", options.input, "Checkpoint folder, or GGUF file")->required();
  line.add("model", "output", options.output, "GGUF file (NAME.gguf), or folder, to write")
      ->required();
  line.add("model", "--type", options.type,
           "F32, F16 or BF16 for matrices; default: what the input has most of");
  line.add_flag(kOutputGroup, "--json", options.json, "Print JSON");
  if (const auto done = line.parse(argc, argv)) return *done;
  if (!fs::exists(options.input))
    throw IoError("{}: no such file or folder", options.input.string());
  refuse_same_file(options.input, options.output);
  return options.output.extension() == ".gguf" ? to_gguf(options) : to_folder(options);
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("convert", [&] { return run(argc, argv); });
}
