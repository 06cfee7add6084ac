#include "tools/data/download.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <thread>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
#include "cadre/formats/test_folder.h"

namespace cadre {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr const char* kHelloHash =
    "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";  // of "hello"

/// A server on loopback that knows /hello, /moved (to /hello) and /short (half of what it
/// promises).
class Downloads : public testing::Test {
 protected:
  Downloads() {
    server_.Get("/hello", [](const httplib::Request&, httplib::Response& response) {
      response.set_content("hello", "text/plain");
    });
    server_.Get("/moved", [](const httplib::Request&, httplib::Response& response) {
      response.set_redirect("/hello");
    });
    server_.Get("/short", [](const httplib::Request&, httplib::Response& response) {
      response.set_content_provider(10, "text/plain", [](size_t, size_t, httplib::DataSink& sink) {
        sink.write("hello", 5);
        return false;
      });
    });
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::yield();
  }
  ~Downloads() override {
    server_.stop();
    thread_.join();
  }
  std::string url(const std::string& path) const {
    return fmt::format("http://127.0.0.1:{}{}", port_, path);
  }
  /// Nothing may stay, not even a temporary file.
  void expect_nothing_kept() const { EXPECT_TRUE(fs::is_empty(folder_.path())); }

  httplib::Server server_;
  std::thread thread_;
  int port_ = 0;
  TestFolder folder_;
  const fs::path file_ = folder_ / "file";
};

TEST_F(Downloads, KeepsAFileWhoseChecksumIsRight) {
  int64_t bytes = 0;
  download({.url = url("/hello"), .sha256 = kHelloHash, .file = file_, .on_bytes = [&](int64_t n) {
              bytes += n;
            }});
  EXPECT_EQ(read_file(file_), "hello");
  EXPECT_EQ(bytes, 5);
  fs::remove(file_);
  download({.url = url("/moved"), .sha256 = kHelloHash, .file = file_});
  EXPECT_EQ(read_file(file_), "hello");
}

TEST_F(Downloads, ADifferentChecksumKeepsNothing) {
  try {
    download({.url = url("/hello"), .sha256 = std::string(64, '0'), .file = file_});
    FAIL();
  } catch (const FormatError& error) {
    EXPECT_THAT(error.what(), HasSubstr(kHelloHash));
  }
  expect_nothing_kept();
}

TEST_F(Downloads, WhatTheServerRefusesOrCutsShortIsAnError) {
  for (const char* path : {"/nothing", "/short"}) {
    EXPECT_THROW(download({.url = url(path), .sha256 = kHelloHash, .file = file_}), IoError)
        << path;
  }
  EXPECT_THROW(download({.url = "http://127.0.0.1:1/", .sha256 = kHelloHash, .file = file_}),
               IoError);
  EXPECT_THROW(download({.url = "gopher://127.0.0.1/", .sha256 = kHelloHash, .file = file_}),
               IoError);
  expect_nothing_kept();
}

TEST_F(Downloads, AnExceptionOfTheCallerComesThrough) {
  EXPECT_THROW(download({.url = url("/hello"),
                         .sha256 = kHelloHash,
                         .file = file_,
                         .on_bytes = [](int64_t) { throw Error("enough"); }}),
               Error);
  expect_nothing_kept();
}

}  // namespace
}  // namespace cadre
