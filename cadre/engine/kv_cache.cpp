#include "cadre/engine/kv_cache.h"

#include <algorithm>

#include "cadre/engine/vector_math.h"

namespace cadre::engine {
namespace {

int64_t pages_for(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

/// Of one number.
int64_t size_of(KvType type) { return type == KvType::kQ8 ? 1 : 2; }
/// Of one token and head: those of key and value.
int64_t scale_bytes(KvType type) { return type == KvType::kQ8 ? 2 * sizeof(float) : 0; }

}  // namespace

KvPage::KvPage(const KvPage& other) : KvPage(*other.spec_, other.type_) {
  std::copy_n(other.bytes_.get(), bytes_of(*spec_, type_), bytes_.get());
}

int64_t KvPage::bytes_of(const ModelSpec& spec, KvType type) {
  const int64_t numbers = spec.cached_key_width() + spec.cached_value_width();
  const int64_t a_head = numbers * size_of(type) + scale_bytes(type);
  return kPageTokens * spec.cached_heads() * a_head;
}

float* KvPage::key_scales(int64_t head) const {
  return reinterpret_cast<float*>(bytes_.get()) + head * kPageTokens;
}

float* KvPage::value_scales(int64_t head) const {
  return key_scales(spec_->cached_heads()) + head * kPageTokens;
}

std::byte* KvPage::keys(int64_t head) const {
  return bytes_.get() + kPageTokens * (spec_->cached_heads() * scale_bytes(type_) +
                                       head * spec_->cached_key_width() * size_of(type_));
}

std::byte* KvPage::values(int64_t head) const {
  return keys(spec_->cached_heads()) +
         kPageTokens * head * spec_->cached_value_width() * size_of(type_);
}

void KvPage::store(int64_t head, int64_t slot, const float* key, const float* value) {
  const int64_t key_width = spec_->cached_key_width(), value_width = spec_->cached_value_width();
  if (type_ == KvType::kQ8) {
    auto* k = reinterpret_cast<int8_t*>(keys(head));
    auto* v = reinterpret_cast<int8_t*>(values(head));
    key_scales(head)[slot] = to_q8(key, key_width, kPageTokens, k + slot);
    value_scales(head)[slot] = to_q8(value, value_width, 1, v + slot * value_width);
  } else {
    auto* k = reinterpret_cast<uint16_t*>(keys(head));
    auto* v = reinterpret_cast<uint16_t*>(values(head));
    to_bf16(key, key_width, kPageTokens, k + slot);
    to_bf16(value, value_width, 1, v + slot * value_width);
  }
}

void KvPage::attend(int64_t head, AttentionRow* rows, int64_t count, const KvPage* next) const {
  const int64_t key_width = spec_->cached_key_width(), value_width = spec_->cached_value_width();
  const std::byte* next_keys = next == nullptr ? nullptr : next->keys(head);
  if (type_ == KvType::kQ8) {
    const Q8AttentionPage page = {.keys = reinterpret_cast<const int8_t*>(keys(head)),
                                  .values = reinterpret_cast<const int8_t*>(values(head)),
                                  .key_scales = key_scales(head),
                                  .value_scales = value_scales(head),
                                  .key_width = key_width,
                                  .value_width = value_width,
                                  .scale = spec_->attention_scale,
                                  .next_keys = reinterpret_cast<const int8_t*>(next_keys)};
    attend_page(page, rows, count);
  } else {
    const AttentionPage page = {.keys = reinterpret_cast<const uint16_t*>(keys(head)),
                                .values = reinterpret_cast<const uint16_t*>(values(head)),
                                .key_width = key_width,
                                .value_width = value_width,
                                .scale = spec_->attention_scale,
                                .next_keys = reinterpret_cast<const uint16_t*>(next_keys)};
    attend_page(page, rows, count);
  }
}

KvCache::KvCache(const ModelSpec& spec, KvType type)
    : spec_(&spec), type_(type), pages_(static_cast<size_t>(spec.layers)) {}

int64_t KvCache::bytes_per_token(const ModelSpec& spec, KvType type) {
  return spec.layers * KvPage::bytes_of(spec, type) / kPageTokens;
}

void KvCache::reserve(int64_t first, int64_t length) {
  const auto needed = static_cast<size_t>(pages_for(length));
  for (auto& layer : pages_) {
    for (auto page = static_cast<size_t>(first / kPageTokens); page < layer.size(); ++page) {
      if (layer[page] != nullptr && layer[page].use_count() > 1)
        layer[page] = std::make_shared<KvPage>(*layer[page]);
    }
    while (layer.size() < needed) layer.push_back(std::make_shared<KvPage>(*spec_, type_));
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
  KvCache copy(*spec_, type_);
  copy.pages_ = pages_;
  copy.truncate(length);
  if (length % kPageTokens == 0) return copy;
  for (auto& layer : copy.pages_) {
    if (!layer.empty() && layer.back() != nullptr)
      layer.back() = std::make_shared<KvPage>(*layer.back());
  }
  return copy;
}

}  // namespace cadre::engine
