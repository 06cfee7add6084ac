#pragma once

#include <cstdint>
#include <string>

namespace cadre::engine {

/// FNV-1a over what identifies a model. Not for hostile input: it names caches.
class Fingerprint {
 public:
  void add(const std::string& text) {
    for (const char c : text) mix(static_cast<unsigned char>(c));
    mix(0);
  }
  void add(int64_t number) { add(std::to_string(number)); }
  std::string digits() const;

 private:
  void mix(unsigned char byte) { hash_ = (hash_ ^ byte) * 0x100000001b3; }
  uint64_t hash_ = 0xcbf29ce484222325;
};

}  // namespace cadre::engine
