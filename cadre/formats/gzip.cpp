#include "cadre/formats/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <span>

#include "cadre/base/error.h"

namespace cadre {

namespace {

constexpr int kGzipWindow =
    15 + 16;  // the largest window; +16 asks zlib for gzip, not zlib framing
constexpr size_t kMaxInput = size_t{1} << 30;  // zlib counts in 32 bits

class Inflater {
 public:
  Inflater() {
    if (inflateInit2(&stream_, kGzipWindow) != Z_OK) throw Error("zlib: cannot start unpacking");
  }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  /// Unpacks the next bytes of `packed` into `out` and drops what it used. Returns zlib's status.
  int step(std::string_view& packed, std::span<char> out, size_t& produced) {
    const size_t given = std::min(packed.size(), kMaxInput);
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
    stream_.avail_in = static_cast<uInt>(given);
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<uInt>(out.size());
    const int status = inflate(&stream_, Z_NO_FLUSH);
    packed.remove_prefix(given - stream_.avail_in);
    produced = out.size() - stream_.avail_out;
    return status;
  }

  void start_next_member() { inflateReset(&stream_); }

 private:
  z_stream stream_ = {};
};

}  // namespace

std::string gunzip(std::string_view packed, const std::string& where, int64_t max_bytes) {
  Inflater inflater;
  std::string text;
  std::array<char, 65536> buffer;
  bool ended = false;
  while (static_cast<int64_t>(text.size()) < max_bytes && !(ended && packed.empty())) {
    size_t produced = 0;
    const int status = inflater.step(packed, buffer, produced);
    if (status != Z_OK && status != Z_STREAM_END) {
      throw FormatError("{}: {} gzip data", where, packed.empty() ? "truncated" : "corrupt");
    }
    text.append(buffer.data(), produced);
    ended = status == Z_STREAM_END;
    if (ended) inflater.start_next_member();
  }
  text.resize(std::min(text.size(), static_cast<size_t>(std::max<int64_t>(max_bytes, 0))));
  return text;
}

}  // namespace cadre
