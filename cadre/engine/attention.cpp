#include "cadre/engine/attention.h"

#include <algorithm>
#include <limits>

#include "cadre/engine/compute.h"

namespace cadre::engine {
namespace {

constexpr int64_t kChunkTokens = 512;
constexpr float kLowest = -std::numeric_limits<float>::infinity();
/// Query rows (tokens x heads of a key head's group) that pass over a page together.
constexpr int64_t kBlockRows = 32;

/// Rows of one key head: tokens [token, token + tokens) of a span, query heads [head, head +
/// heads).
struct Block {
  const AttentionSpan* span;
  int64_t token, tokens, head, heads, key_head;

  int64_t rows() const { return tokens * heads; }
  int64_t last_position() const { return span->first_position + token + tokens - 1; }
};

struct State {
  std::vector<float> most, sum, values;  ///< [rows], [rows], [rows, value width]

  State(int64_t rows, int64_t width)
      : most(static_cast<size_t>(rows), kLowest),
        sum(static_cast<size_t>(rows)),
        values(static_cast<size_t>(rows * width)) {}
  AttentionState row(int64_t row, int64_t width) {
    const auto r = static_cast<size_t>(row);
    return {most[r], sum[r], values.data() + row * width};
  }
  void merge(State& later, int64_t width) {
    for (size_t r = 0; r < most.size(); ++r) {
      AttentionState ours = row(static_cast<int64_t>(r), width);
      merge_attention(later.row(static_cast<int64_t>(r), width), width, ours);
      most[r] = ours.most;
      sum[r] = ours.sum;
    }
  }
};

class LayerAttention {
 public:
  LayerAttention(const ModelSpec& spec, int64_t layer, std::span<const float> sinks)
      : spec_(spec),
        layer_(layer),
        sinks_(sinks),
        group_(spec.heads / spec.cached_heads()),
        key_width_(spec.cached_key_width()),
        value_width_(spec.cached_value_width()) {}

  std::vector<Block> blocks_of(std::span<const AttentionSpan> spans) const {
    const int64_t heads = std::min(group_, kBlockRows), tokens = kBlockRows / heads;
    std::vector<Block> blocks;
    for (const AttentionSpan& span : spans) {
      for (int64_t token = 0; token < span.tokens; token += tokens) {
        const int64_t here = std::min(tokens, span.tokens - token);
        for (int64_t head = 0; head < spec_.heads;) {
          const int64_t key_head = head / group_;
          const int64_t end = std::min(head + heads, (key_head + 1) * group_);
          blocks.push_back({&span, token, here, head, end - head, key_head});
          head = end;
        }
      }
    }
    return blocks;
  }

  int64_t first_chunk(const Block& block) const {
    const int64_t position = block.span->first_position + block.token;
    return window_start(position) / kChunkTokens;
  }
  static int64_t chunks_end(const Block& block) { return block.last_position() / kChunkTokens + 1; }

  State run_chunk(const Block& block, int64_t chunk) const {
    State state(block.rows(), value_width_);
    std::vector<AttentionRow> rows = rows_of(block, state);
    const int64_t pages = kChunkTokens / kPageTokens;
    const int64_t end = std::min((chunk + 1) * pages, block.last_position() / kPageTokens + 1);
    for (int64_t page = chunk * pages; page < end; ++page) {
      set_ranges(block, page, rows);
      const KvPage* stored = block.span->cache->page(layer_, page);
      if (stored == nullptr) continue;  // behind the window of all rows
      const KvPage* next = page + 1 < end ? block.span->cache->page(layer_, page + 1) : nullptr;
      stored->attend(block.key_head, rows.data(), static_cast<int64_t>(rows.size()), next);
    }
    for (size_t r = 0; r < rows.size(); ++r) {
      state.most[r] = rows[r].most;
      state.sum[r] = rows[r].sum;
    }
    return state;
  }

  State run_all(const Block& block) const {
    State total(block.rows(), value_width_);
    for (int64_t chunk = first_chunk(block); chunk < chunks_end(block); ++chunk) {
      State part = run_chunk(block, chunk);
      total.merge(part, value_width_);
    }
    return total;
  }

  void finish(const Block& block, State& state) const {
    for (int64_t r = 0; r < block.rows(); ++r) {
      const int64_t head = block.head + r % block.heads;
      AttentionState row = state.row(r, value_width_);
      finish_attention(row, sinks_.empty() ? kLowest : sinks_[static_cast<size_t>(head)],
                       value_width_);
      const int64_t token = block.token + r / block.heads;
      std::copy_n(row.values, value_width_,
                  block.span->out + (token * spec_.heads + head) * value_width_);
    }
  }

  int64_t value_width() const { return value_width_; }

 private:
  int64_t window_start(int64_t position) const {
    return spec_.slides(layer_) ? std::max<int64_t>(0, position - spec_.sliding_window + 1) : 0;
  }

  std::vector<AttentionRow> rows_of(const Block& block, State& state) const {
    std::vector<AttentionRow> rows;
    for (int64_t r = 0; r < block.rows(); ++r) {
      const int64_t token = block.token + r / block.heads, head = block.head + r % block.heads;
      rows.push_back({.q = block.span->q + (token * spec_.heads + head) * key_width_,
                      .o = state.values.data() + r * value_width_});
    }
    return rows;
  }

  void set_ranges(const Block& block, int64_t page, std::vector<AttentionRow>& rows) const {
    const int64_t start = page * kPageTokens;
    for (size_t r = 0; r < rows.size(); ++r) {
      const int64_t position =
          block.span->first_position + block.token + static_cast<int64_t>(r) / block.heads;
      rows[r].first = std::clamp<int64_t>(window_start(position) - start, 0, kPageTokens);
      rows[r].last = std::clamp<int64_t>(position + 1 - start, 0, kPageTokens);
    }
  }

  const ModelSpec& spec_;
  int64_t layer_;
  std::span<const float> sinks_;
  int64_t group_, key_width_, value_width_;
};

/// Few blocks with long contexts: chunks go to threads one by one.
void attend_by_chunks(Team& team, const LayerAttention& attention,
                      const std::vector<Block>& blocks) {
  struct Piece {
    size_t block;
    int64_t chunk;
  };
  std::vector<Piece> pieces;
  for (size_t b = 0; b < blocks.size(); ++b) {
    const int64_t end = LayerAttention::chunks_end(blocks[b]);
    for (int64_t c = attention.first_chunk(blocks[b]); c < end; ++c) pieces.push_back({b, c});
  }
  std::vector<State> states(pieces.size(), State(0, 0));
  for_each_item(team, static_cast<int64_t>(pieces.size()), [&](int64_t i) {
    const Piece& piece = pieces[static_cast<size_t>(i)];
    states[static_cast<size_t>(i)] = attention.run_chunk(blocks[piece.block], piece.chunk);
  });
  const int64_t width = attention.value_width();
  for (size_t i = 0; i < pieces.size();) {
    const Block& block = blocks[pieces[i].block];
    State total(block.rows(), width);
    const size_t first = i;
    for (; i < pieces.size() && pieces[i].block == pieces[first].block; ++i) {
      total.merge(states[i], width);
    }
    attention.finish(block, total);
  }
}

}  // namespace

void attend(Team& team, const ModelSpec& spec, int64_t layer, std::span<const float> sinks,
            std::span<const AttentionSpan> spans) {
  const LayerAttention attention(spec, layer, sinks);
  const std::vector<Block> blocks = attention.blocks_of(spans);
  const bool few = static_cast<int64_t>(blocks.size()) < 4 * team.threads();
  const bool longer = std::any_of(blocks.begin(), blocks.end(), [](const Block& block) {
    return LayerAttention::chunks_end(block) > 1;
  });
  if (few && longer && team.threads() > 1) return attend_by_chunks(team, attention, blocks);
  for_each_item(team, static_cast<int64_t>(blocks.size()), [&](int64_t i) {
    const Block& block = blocks[static_cast<size_t>(i)];
    State state = attention.run_all(block);
    attention.finish(block, state);
  });
}

}  // namespace cadre::engine
