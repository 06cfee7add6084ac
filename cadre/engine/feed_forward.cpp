#include "cadre/engine/feed_forward.h"

#include <algorithm>
#include <atomic>

#include "cadre/engine/vector_math.h"

namespace cadre::engine {
namespace {

constexpr int64_t kRows = kernels::kPanelRows;
/// What one piece of work takes: blocks of 32 hidden values, panels of 16 outputs. Small enough
/// that every thread has some, large enough that the tokens' activations are read seldom.
constexpr int64_t kInnerBlocks = 4, kDownPanels = 8;
/// Tokens of one expert that are worked on at a time: their tile of outputs stays in cache.
constexpr int64_t kTokenTile = 128;

/// Blocks [first, last) of a job's hidden values for tokens [token, token_end).
struct InnerTile {
  const FeedForwardJob* job;
  int64_t first, last, token, token_end;
};

std::vector<InnerTile> inner_tiles(std::span<const FeedForwardJob> jobs) {
  std::vector<InnerTile> tiles;
  for (const FeedForwardJob& job : jobs) {
    const int64_t blocks = kernels::inner_blocks(job.expert);
    for (int64_t first = 0; first < blocks; first += kInnerBlocks) {
      for (int64_t token = 0; token < job.count; token += kTokenTile) {
        tiles.push_back({&job, first, std::min(first + kInnerBlocks, blocks), token,
                         std::min(token + kTokenTile, job.count)});
      }
    }
  }
  return tiles;
}

}  // namespace

bool reads_floats(kernels::BlockType type) {
  using kernels::BlockType;
  return type == BlockType::kF32 || type == BlockType::kF16 || type == BlockType::kBF16;
}

void FeedForward::begin(const Activations& x, int64_t tokens, int64_t hidden, float* out) {
  x_ = &x;
  hidden_ = hidden;
  out_ = out;
  std::fill_n(out, tokens * hidden, 0.0F);
}

void FeedForward::begin_group(int64_t pairs, int64_t inner) {
  pairs_ = pairs;
  inner_.resize(pairs, inner, Floats::kDrop);
}

/// In the form that the job's down matrix reads: experts of one layer may differ.
kernels::InnerActivations FeedForward::inner_of(const FeedForwardJob& job) {
  return reads_floats(job.expert.down.type) ? inner_.inner_floats(job.first_pair)
                                            : inner_.inner_bytes(job.first_pair);
}

void FeedForward::run_inner(std::span<const FeedForwardJob> jobs) {
  for (const FeedForwardJob& job : jobs)
    if (reads_floats(job.expert.down.type)) inner_.keep_floats();
  const std::vector<InnerTile> tiles = inner_tiles(jobs);
  for_each_item(team_, static_cast<int64_t>(tiles.size()), [&](int64_t i) {
    const InnerTile& tile = tiles[static_cast<size_t>(i)];
    kernels::panel_ffn_inner(tile.job->expert, x_->view(0, tile.job->tokens), tile.token,
                             tile.token_end, tile.first, tile.last, inner_of(*tile.job));
  });
}

/// Calls use(job, first token, count, column, columns, y, stride) for each tile of outputs, in the
/// jobs' order for any one column: a thread owns its columns.
template <class Use>
void FeedForward::run_down(std::span<const FeedForwardJob> jobs, Use use) {
  const int64_t panels = (hidden_ + kRows - 1) / kRows;
  for_each_item(team_, (panels + kDownPanels - 1) / kDownPanels, [&](int64_t group) {
    alignas(64) float y[kTokenTile * kDownPanels * kRows];
    const int64_t first = group * kDownPanels, last = std::min(first + kDownPanels, panels);
    const int64_t column = first * kRows, stride = (last - first) * kRows;
    const int64_t columns = std::min(stride, hidden_ - column);
    for (const FeedForwardJob& job : jobs) {
      kernels::PanelMatrix part = job.expert.down;
      part.data += first * kernels::panel_stride(part.type, part.columns);
      part.rows -= column;
      for (int64_t token = 0; token < job.count; token += kTokenTile) {
        const int64_t count = std::min(kTokenTile, job.count - token);
        kernels::panel_matmul(part, inner_.view(job.first_pair + token), count, 0, last - first, y,
                              stride);
        for (int64_t t = 0; t < count && job.expert.down_bias != nullptr; ++t) {
          add(job.expert.down_bias + column, columns, y + t * stride);
        }
        use(job, token, count, column, columns, y, stride);
      }
    }
  });
}

void FeedForward::run(std::span<const FeedForwardJob> jobs) {
  run_inner(jobs);
  run_down(jobs, [this](const FeedForwardJob& job, int64_t first, int64_t count, int64_t column,
                        int64_t columns, const float* y, int64_t stride) {
    for (int64_t t = 0; t < count; ++t) {
      add_scaled(job.weight(first + t), y + t * stride, columns,
                 out_ + job.token(first + t) * hidden_ + column);
    }
  });
}

void FeedForward::run_and_keep(std::span<const FeedForwardJob> jobs) {
  const auto needed = static_cast<size_t>(pairs_ * hidden_);
  if (kept_.size() < needed) kept_.resize(needed);
  run_inner(jobs);
  run_down(jobs, [this](const FeedForwardJob& job, int64_t first, int64_t count, int64_t column,
                        int64_t columns, const float* y, int64_t stride) {
    float* kept = kept_.data() + (job.first_pair + first) * hidden_ + column;
    for (int64_t t = 0; t < count; ++t) std::copy_n(y + t * stride, columns, kept + t * hidden_);
  });
}

void FeedForward::add_kept(std::span<const FeedForwardJob> jobs) {
  for_ranges(team_, (hidden_ + kRows - 1) / kRows, 1, [&](int64_t begin, int64_t end) {
    const int64_t column = begin * kRows, columns = std::min(end * kRows, hidden_) - column;
    for (const FeedForwardJob& job : jobs) {
      const float* kept = kept_.data() + job.first_pair * hidden_ + column;
      for (int64_t i = 0; i < job.count; ++i) {
        add_scaled(job.weight(i), kept + i * hidden_, columns,
                   out_ + job.token(i) * hidden_ + column);
      }
    }
  });
}

}  // namespace cadre::engine
