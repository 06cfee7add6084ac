// The example continues a prompt, and says in one line what is wrong.

#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "cadre/formats/test_folder.h"
#include "tests/cli/small_gguf.h"

namespace cadre {
namespace {

std::string output_of(const std::string& arguments) {
  const std::string command = CADRE_BIN_DIR "/example_run_model " + arguments + " 2>&1";
  std::FILE* pipe = ::popen(command.c_str(), "r");
  std::string text;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) text += static_cast<char>(c);
  ::pclose(pipe);
  return text;
}

TEST(RunModel, ContinuesAPromptTheSameWayEachTime) {
  const TestFolder folder;
  write_small_gguf(folder / "model.gguf");
  const std::string model = (folder / "model.gguf").string();
  const std::string text = output_of(model + " hello 5");
  EXPECT_GT(text.size(), 1u);
  EXPECT_EQ(output_of(model + " hello 5"), text);
  EXPECT_NE(output_of(model + ".absent hello 5").find("model.gguf.absent"), std::string::npos);
}

}  // namespace
}  // namespace cadre
