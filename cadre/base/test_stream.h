#pragma once

/// For tests: a FILE* whose content can be read back.

#include <cstdio>
#include <string>

namespace cadre {

class TestStream {
 public:
  TestStream() : file_(std::tmpfile()) {}
  ~TestStream() { std::fclose(file_); }
  TestStream(const TestStream&) = delete;
  TestStream& operator=(const TestStream&) = delete;

  std::FILE* file() const { return file_; }

  std::string text() const {
    std::string content(static_cast<size_t>(std::ftell(file_)), '\0');
    std::rewind(file_);
    content.resize(std::fread(content.data(), 1, content.size(), file_));
    return content;
  }

 private:
  std::FILE* file_;
};

}  // namespace cadre
