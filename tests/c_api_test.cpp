#include <gtest/gtest.h>

#include "cadre/formats/test_folder.h"
#include "tests/cli/small_gguf.h"

extern "C" const char* check_c_api(const char* model_path);

TEST(CApi, KeepsItsPromisesInC) {
  const cadre::TestFolder folder;
  cadre::write_small_gguf(folder / "small.gguf");
  EXPECT_STREQ(check_c_api((folder / "small.gguf").c_str()), nullptr);
}
