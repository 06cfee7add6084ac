#include "cadre/engine/row_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "cadre/base/error.h"

namespace cadre::engine {

RowReader::RowReader(const TensorSource& source, const SourceTensor& matrix)
    : path_(source.files().at(static_cast<size_t>(matrix.file)).string()),
      matrix_(matrix),
      descriptor_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC)),
      blocks_(static_cast<size_t>(kernels::row_bytes(matrix.type, matrix.shape[1]))) {
  if (descriptor_ < 0) throw IoError("cannot open {}: {}", path_, std::strerror(errno));
}

RowReader::~RowReader() { ::close(descriptor_); }

void RowReader::read(int64_t row, float* to) {
  const auto size = static_cast<int64_t>(blocks_.size());
  const int64_t offset = matrix_.file_offset + row * size;
  for (int64_t done = 0; done < size;) {
    const ssize_t got = ::pread(descriptor_, blocks_.data() + done,
                                static_cast<size_t>(size - done), offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      throw IoError("cannot read {} from {} at byte {}: {}", matrix_.name, path_, offset + done,
                    got < 0 ? std::strerror(errno) : "the file ends there");
    }
    done += got;
  }
  kernels::dequantize(matrix_.type, blocks_.data(), matrix_.shape[1], to);
}

}  // namespace cadre::engine
