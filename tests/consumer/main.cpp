// Calls something of every room without LibTorch, so that a missing header or library shows.

#include <cstdio>
#include <filesystem>

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "cadre/base/random.h"
#include "cadre/formats/file.h"
#include "cadre/kernels/gemm.h"

namespace {

void check(bool condition, const char* what) {
  if (!condition) throw cadre::Error("{} is not what it should be", what);
}

int consume() {
  check(cadre::Random(0).next_u32() == 0x6627e8d5, "the first random number");

  const float a[] = {1, 2};
  const float b[] = {3, 4};
  float c = 0;
  using cadre::kernels::Op;
  cadre::kernels::gemm(Op::kNone, Op::kNone, 1, 1, 2, 1, a, 2, b, 1, 0, &c, 1);
  check(c == 11, "the product");

  const auto path = std::filesystem::temp_directory_path() / "cadre-consumer";
  cadre::AtomicFile file(path);
  file.write(std::string_view("text"));
  file.commit();
  check(cadre::read_file(path) == "text", "the file");
  std::filesystem::remove(path);
  return 0;
}

}  // namespace

int main() { return cadre::run_main("consumer", consume); }
