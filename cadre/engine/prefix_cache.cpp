#include "cadre/engine/prefix_cache.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

namespace cadre::engine {

/// Sequences sit in the leaves: one that ends within another is covered by it.
struct PrefixCache::Node {
  Node* parent = nullptr;
  std::vector<TokenId> edge;  ///< from the parent to here; empty in the root alone
  std::map<TokenId, std::unique_ptr<Node>> children;
  std::unique_ptr<Sequence> sequence;  ///< in leaves
  int64_t last_used = 0;               ///< in leaves

  template <class Visit>
  void each_leaf(const Visit& visit) {
    if (sequence) visit(this);
    for (auto& [first, child] : children) child->each_leaf(visit);
  }
};

/// Where a walk along the tokens ended: `into` tokens down the edge that leads to `node`.
struct PrefixCache::Place {
  Node* node;
  size_t into;
  int64_t length;
};

PrefixCache::PrefixCache(int64_t capacity) : capacity_(capacity), root_(std::make_unique<Node>()) {}

PrefixCache::~PrefixCache() = default;

PrefixCache::Place PrefixCache::walk(std::span<const TokenId> tokens) const {
  Place place{root_.get(), 0, 0};
  while (place.into == place.node->edge.size() && !tokens.empty()) {
    const auto next = place.node->children.find(tokens.front());
    if (next == place.node->children.end()) break;
    place.node = next->second.get();
    const auto& edge = place.node->edge;
    place.into = static_cast<size_t>(std::ranges::mismatch(edge, tokens).in1 - edge.begin());
    place.length += static_cast<int64_t>(place.into);
    tokens = tokens.subspan(place.into);
  }
  return place;
}

std::unique_ptr<Sequence> PrefixCache::find(std::span<const TokenId> tokens) {
  if (tokens.empty()) return nullptr;
  const Place place = walk(tokens.first(tokens.size() - 1));
  if (place.length == 0) return nullptr;
  // Every leaf below holds the beginning.
  Node* youngest = nullptr;
  place.node->each_leaf([&](Node* leaf) {
    if (youngest == nullptr || leaf->last_used > youngest->last_used) youngest = leaf;
  });
  youngest->last_used = ++clock_;
  return youngest->sequence->fork(place.length);
}

void PrefixCache::insert(std::unique_ptr<Sequence> sequence) {
  const std::span<const TokenId> tokens = sequence->tokens();
  if (tokens.empty() || static_cast<int64_t>(tokens.size()) > capacity_) return;
  const Place place = walk(tokens);
  Node* node = place.node;
  if (place.length == static_cast<int64_t>(tokens.size())) {
    node->each_leaf([this](Node* leaf) { leaf->last_used = ++clock_; });
    return;
  }
  if (place.into < node->edge.size()) {  // split the edge
    Node* parent = node->parent;
    auto upper = std::make_unique<Node>();
    auto& slot = parent->children[node->edge.front()];
    std::unique_ptr<Node> lower = std::exchange(slot, nullptr);
    const auto cut = lower->edge.begin() + static_cast<std::ptrdiff_t>(place.into);
    upper->parent = parent;
    upper->edge.assign(lower->edge.begin(), cut);
    lower->edge.erase(lower->edge.begin(), cut);
    lower->parent = upper.get();
    node = upper.get();
    upper->children[lower->edge.front()] = std::move(lower);
    slot = std::move(upper);
  }
  const auto rest = tokens.subspan(static_cast<size_t>(place.length));
  if (node->sequence != nullptr) {  // the new one goes on where the old one ended
    node->edge.insert(node->edge.end(), rest.begin(), rest.end());
  } else {
    auto leaf = std::make_unique<Node>();
    leaf->parent = node;
    leaf->edge.assign(rest.begin(), rest.end());
    node = (node->children[rest.front()] = std::move(leaf)).get();
  }
  tokens_ += static_cast<int64_t>(rest.size());
  node->sequence = std::move(sequence);
  node->last_used = ++clock_;
  shrink(capacity_);
}

void PrefixCache::shrink(int64_t tokens) {
  while (tokens_ > std::max<int64_t>(tokens, 0)) {
    Node* oldest = nullptr;
    root_->each_leaf([&](Node* leaf) {
      if (oldest == nullptr || leaf->last_used < oldest->last_used) oldest = leaf;
    });
    remove(oldest);
  }
}

/// Takes a leaf away, and its parent's edge when no other leaf needs it.
void PrefixCache::remove(Node* leaf) {
  Node* parent = leaf->parent;
  tokens_ -= static_cast<int64_t>(leaf->edge.size());
  parent->children.erase(leaf->edge.front());
  if (parent == root_.get() || parent->children.size() != 1) return;
  // One child left: its edge and the parent's become one.
  std::unique_ptr<Node> child = std::move(parent->children.begin()->second);
  child->edge.insert(child->edge.begin(), parent->edge.begin(), parent->edge.end());
  child->parent = parent->parent;
  child->parent->children[child->edge.front()] = std::move(child);
}

}  // namespace cadre::engine
