#include "tools/data/debian_package.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
#include "cadre/formats/test_folder.h"

namespace cadre {
namespace {

namespace fs = std::filesystem;

TEST(DebianPackage, IsUnpackedWithoutInstalling) {
  const TestFolder folder;
  fs::create_directories(folder / "package/DEBIAN");
  fs::create_directories(folder / "package/usr/share/letters");
  write_file(folder / "package/DEBIAN/control",
             "Package: letters\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\n"
             "Description: letters\n");
  write_file(folder / "package/usr/share/letters/a.txt", "a");
  const std::string build = fmt::format("dpkg-deb --build {} {} >/dev/null 2>&1",
                                        (folder / "package").string(), (folder / "l.deb").string());
  ASSERT_EQ(std::system(build.c_str()), 0);
  fs::create_directory(folder / "tree");
  unpack_package(folder / "l.deb", folder / "tree");
  EXPECT_EQ(read_file(folder / "tree/usr/share/letters/a.txt"), "a");
}

TEST(DebianPackage, WhatIsNoneIsAnError) {
  const TestFolder folder;
  write_file(folder / "x.deb", "no package");
  EXPECT_THROW(unpack_package(folder / "x.deb", folder.path()), IoError);
  EXPECT_THROW(unpack_package(folder / "missing.deb", folder.path()), IoError);
}

}  // namespace
}  // namespace cadre
