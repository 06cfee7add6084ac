#include "cadre/engine/kv_cache.h"

#include <algorithm>

namespace cadre::engine {
namespace {

int64_t pages_for(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

}  // namespace

KvCache::KvCache(const ModelSpec& spec) : spec_(&spec), pages_(static_cast<size_t>(spec.layers)) {}

int64_t KvCache::bytes_per_token(const ModelSpec& spec) {
  return spec.layers * KvPage::numbers_of(spec) / kPageTokens *
         static_cast<int64_t>(sizeof(uint16_t));
}

std::shared_ptr<KvPage> KvCache::copy_of(const std::shared_ptr<KvPage>& page) const {
  auto own = std::make_shared<KvPage>(*spec_);
  std::copy_n(page->keys(*spec_, 0), KvPage::numbers_of(*spec_), own->keys(*spec_, 0));
  return own;
}

void KvCache::reserve(int64_t first, int64_t length) {
  const auto needed = static_cast<size_t>(pages_for(length));
  for (auto& layer : pages_) {
    for (auto page = static_cast<size_t>(first / kPageTokens); page < layer.size(); ++page) {
      if (layer[page] != nullptr && layer[page].use_count() > 1) layer[page] = copy_of(layer[page]);
    }
    while (layer.size() < needed) layer.push_back(std::make_shared<KvPage>(*spec_));
  }
}

void KvCache::truncate(int64_t length) {
  const auto kept = static_cast<size_t>(pages_for(length));
  for (auto& layer : pages_) {
    if (layer.size() > kept) layer.resize(kept);
  }
}

void KvCache::forget_before_window(int64_t position) {
  const int64_t first = position - spec_->sliding_window + 1;
  for (int64_t layer = 0; layer < spec_->layers; ++layer) {
    if (!spec_->slides(layer)) continue;
    for (int64_t page = std::max<int64_t>(first, 0) / kPageTokens - 1; page >= 0; --page) {
      auto& slot = pages_[static_cast<size_t>(layer)][static_cast<size_t>(page)];
      if (slot == nullptr) break;
      slot.reset();
    }
  }
}

bool KvCache::covers(int64_t length) const {
  const int64_t first = std::max<int64_t>(length - spec_->sliding_window + 1, 0) / kPageTokens;
  if (spec_->sliding_window == 0 || first * kPageTokens >= length) return true;
  for (int64_t layer = 0; layer < spec_->layers; ++layer) {
    if (spec_->slides(layer) && page(layer, first) == nullptr) return false;
  }
  return true;
}

KvCache KvCache::fork(int64_t length) const {
  KvCache copy(*spec_);
  copy.pages_ = pages_;
  copy.truncate(length);
  if (length % kPageTokens == 0) return copy;
  for (auto& layer : copy.pages_) {
    if (!layer.empty() && layer.back() != nullptr) layer.back() = copy_of(layer.back());
  }
  return copy;
}

}  // namespace cadre::engine
