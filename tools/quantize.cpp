/// cadre quantize: a model's weights in fewer bits.

#include <nlohmann/json.hpp>

#include <cmath>
#include <iostream>
#include <map>
#include <set>

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "cadre/base/progress.h"
#include "cadre/base/table.h"
#include "cadre/base/units.h"
#include "cadre/engine/convert.h"
#include "tools/common/command_line.h"
#include "tools/common/json_text.h"
#include "tools/common/stored_tensors.h"

namespace {

using namespace cadre;
using namespace cadre::engine;

struct Options {
  std::filesystem::path input, output;
  std::string type = "Q4_K";
  std::vector<std::string> roles;
  bool json = false;
};

void add_options(CommandLine& line, Options& options) {
  line.add("model", "input", options.input,
           "GGUF file (the first of a split), or checkpoint folder")
      ->required();
  line.add("model", "output", options.output, "GGUF file to write")->required();
  line.add("quantization", "--type", options.type, "F16, BF16, Q8_0, Q4_0, Q4_K or Q6_K");
  line.add("quantization", "--role", options.roles,
           "ROLE=TYPE, may be repeated, the last that fits counts: embedding, output, attn, ffn, "
           "ffn_gate, ffn_up, ffn_down, experts, shared, or a tensor's name (attn_v)");
  line.add_flag(kOutputGroup, "--json", options.json, "Print JSON");
}

int run(int argc, char** argv) {
  Options options;
  CommandLine line("quantize",
                   "Norms, routers and biases stay F32. Rows that do not fill a type's blocks are "
                   "stored as the next best, which is said.");
  line.accept_config_file();
  add_options(line, options);
  if (const auto done = line.parse(argc, argv)) return *done;

  std::vector<RoleType> roles;
  for (const std::string& role : options.roles) roles.push_back(parse_role_type(role));
  const kernels::BlockType type = kernels::block_type_named(options.type);
  refuse_same_file(options.input, options.output);
  GgufImage image = open_image(options.input);
  const QuantizePlan plan = plan_quantize(image, type, roles);
  std::vector<std::string> notes = image.notes;
  notes.insert(notes.end(), plan.notes.begin(), plan.notes.end());
  if (!options.json) print_notes(notes);

  const auto stored = with_progress("quantize", image, [&](const ImageProgress& progress) {
    return quantize_gguf(options.output, image, plan, progress);
  });
  print_stored(
      stored,
      {.input = options.input, .output = options.output, .notes = notes, .json = options.json});
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("quantize", [&] { return run(argc, argv); });
}
