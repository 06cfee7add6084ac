#include "tools/data/download.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>
#include <exception>
#include <memory>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"

namespace cadre {
namespace {

constexpr long kConnectSeconds = 20, kStallSeconds = 60;

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) {
      throw Error("OpenSSL offers no SHA-256");
    }
  }
  void add(std::string_view bytes) { EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()); }
  std::string hex() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned int size = 0;
    EVP_DigestFinal_ex(context_.get(), digest.data(), &size);
    std::string text;
    for (unsigned int i = 0; i < size; ++i) text += fmt::format("{:02x}", digest[i]);
    return text;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

/// Where the bytes go. An exception may not cross curl's C code: it is kept and thrown after.
struct Sink {
  explicit Sink(const Download& request) : request(request), file(request.file) {}

  static size_t receive(char* data, size_t /*one*/, size_t size, void* self) {
    auto& sink = *static_cast<Sink*>(self);
    try {
      const std::string_view bytes(data, size);
      sink.file.write(bytes);
      sink.hash.add(bytes);
      if (sink.request.on_bytes) sink.request.on_bytes(static_cast<int64_t>(size));
      return size;
    } catch (...) {
      sink.failed = std::current_exception();
      return 0;
    }
  }

  const Download& request;
  AtomicFile file;
  Sha256 hash;
  std::exception_ptr failed;
};

void transfer(const std::string& url, Sink& sink) {
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(),
                                                                 curl_easy_cleanup);
  if (!curl) throw Error("libcurl does not start");
  std::array<char, CURL_ERROR_SIZE> reason{};
  curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_PROTOCOLS_STR, "http,https,file");
  curl_easy_setopt(curl.get(), CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl.get(), CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  curl_easy_setopt(curl.get(), CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_LOW_SPEED_TIME, kStallSeconds);
  curl_easy_setopt(curl.get(), CURLOPT_ERRORBUFFER, reason.data());
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, &Sink::receive);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &sink);
  const CURLcode code = curl_easy_perform(curl.get());
  if (sink.failed) std::rethrow_exception(sink.failed);
  if (code != CURLE_OK) {
    throw IoError("cannot download {}: {}", url,
                  reason[0] != 0 ? reason.data() : curl_easy_strerror(code));
  }
}

}  // namespace

void download(const Download& request) {
  Sink sink(request);
  transfer(request.url, sink);
  const std::string hash = sink.hash.hex();
  if (hash != request.sha256) {
    throw FormatError("{}: SHA-256 is {}, expected {}; nothing was kept", request.url, hash,
                      request.sha256);
  }
  sink.file.commit();
}

}  // namespace cadre
