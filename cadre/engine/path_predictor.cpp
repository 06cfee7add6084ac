#include "cadre/engine/path_predictor.h"

#include <fmt/format.h>

#include <Eigen/Dense>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <string>

#include "cadre/base/error.h"
#include "cadre/formats/safetensors.h"
#include "cadre/kernels/position_bucket.h"

namespace cadre::engine {
namespace {

/// Rows are positions or output features.
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Row = Eigen::Matrix<float, 1, Eigen::Dynamic, Eigen::RowMajor>;

constexpr float kEpsilon = 1e-6F;
constexpr int64_t kMostBlocks = 64;
/// Sequences remembered; a server has far fewer at once.
constexpr size_t kMostSequences = 1024;
/// Positions the decoder remembers: training sees no more.
constexpr int64_t kMostPositions = 512;

/// The weights' file, every size checked.
class Weights {
 public:
  explicit Weights(const std::filesystem::path& file) : reader_(file), where_(file.string()) {}

  int64_t number(const std::string& key, int64_t otherwise = -1) const {
    const auto found = reader_.metadata().find(key);
    int64_t value = otherwise;
    if (found != reader_.metadata().end()) {
      const std::string& text = found->second;
      std::from_chars(text.data(), text.data() + text.size(), value);
    }
    if (value < 1) throw FormatError("{}: metadata {} is missing or not positive", where_, key);
    return value;
  }
  bool contains(const std::string& name) const { return reader_.contains(name); }

  /// Sizes of 0 are taken as they come.
  Matrix matrix(const std::string& name, int64_t rows, int64_t columns) const {
    const TensorView& view = reader_.tensor(name);
    const bool fits = view.dtype == DType::kF32 && view.shape.size() == 2 && view.shape[0] > 0 &&
                      view.shape[1] > 0 && (rows == 0 || view.shape[0] == rows) &&
                      (columns == 0 || view.shape[1] == columns);
    if (!fits) throw FormatError("{}: tensor {} is not F32 [{}, {}]", where_, name, rows, columns);
    Matrix matrix(view.shape[0], view.shape[1]);
    std::memcpy(matrix.data(), view.bytes.data(), view.bytes.size());
    return matrix;
  }
  Row vector(const std::string& name, int64_t size) const {
    const TensorView& view = reader_.tensor(name);
    if (view.dtype != DType::kF32 || view.shape != std::vector<int64_t>{size})
      throw FormatError("{}: tensor {} is not F32 [{}]", where_, name, size);
    Row row(size);
    std::memcpy(row.data(), view.bytes.data(), view.bytes.size());
    return row;
  }

 private:
  SafetensorsReader reader_;
  std::string where_;
};

Matrix rms_norm(const Matrix& x, const Row& weight) {
  const Eigen::ArrayXf scale =
      (x.rowwise().squaredNorm().array() / static_cast<float>(x.cols()) + kEpsilon).rsqrt();
  return ((x.array().colwise() * scale).rowwise() * weight.array()).matrix();
}

struct Attention {
  Attention(const Weights& weights, const std::string& stem, int64_t width)
      : q(weights.matrix(stem + ".q.weight", 0, width)),
        k(weights.matrix(stem + ".k.weight", q.rows(), width)),
        v(weights.matrix(stem + ".v.weight", q.rows(), width)),
        o(weights.matrix(stem + ".o.weight", width, q.rows())) {}
  Matrix q, k, v, o;
};

struct FeedForward {
  FeedForward(const Weights& weights, const std::string& stem, int64_t width)
      : wi(weights.matrix(stem + ".wi.weight", 0, width)),
        wo(weights.matrix(stem + ".wo.weight", width, wi.rows())) {}
  Matrix operator()(const Matrix& x) const {
    return (x * wi.transpose()).cwiseMax(0.0F) * wo.transpose();
  }
  Matrix wi, wo;
};

/// Keys and values of the positions so far [positions, inner]; grows by doubling.
struct KeyValues {
  Matrix keys, values;
  int64_t count = 0;
  void add(const Matrix& k, const Matrix& v) {
    if (count + k.rows() > keys.rows()) {
      const int64_t room = std::max<int64_t>(2 * keys.rows(), count + k.rows());
      keys.conservativeResize(room, k.cols());
      values.conservativeResize(room, v.cols());
    }
    keys.middleRows(count, k.rows()) = k;
    values.middleRows(count, v.rows()) = v;
    count += k.rows();
  }
};

/// Learned bias by relative position, one number a bucket and head.
struct PositionBias {
  Matrix table;  ///< [buckets, heads]
  int64_t max_distance;
  bool both_ways;
  float at(int64_t relative, int64_t head) const {
    return table(kernels::position_bucket(relative, table.rows(), max_distance, both_ways), head);
  }
};

void softmax(Row& scores) {
  scores.array() -= scores.maxCoeff();
  scores = scores.array().exp();
  scores /= scores.sum();
}

/// Queries [n, inner], the first at position `first`, over keys and values. Without a bias all keys
/// are seen; a causal one hides those after the query.
Matrix attend(const Matrix& queries, int64_t first, const KeyValues& past, int64_t heads,
              const PositionBias* bias) {
  const int64_t width = queries.cols() / heads;
  Matrix out = Matrix::Zero(queries.rows(), queries.cols());
  for (int64_t i = 0; i < queries.rows(); ++i) {
    const bool causal = bias != nullptr && !bias->both_ways;
    const int64_t seen = causal ? std::min(past.count, first + i + 1) : past.count;
    if (seen == 0) continue;
    for (int64_t head = 0; head < heads; ++head) {
      const auto keys = past.keys.block(0, head * width, seen, width);
      Row scores = queries.block(i, head * width, 1, width) * keys.transpose();
      for (int64_t j = 0; bias != nullptr && j < seen; ++j)
        scores(j) += bias->at(j - (first + i), head);
      softmax(scores);
      out.block(i, head * width, 1, width) =
          scores * past.values.block(0, head * width, seen, width);
    }
  }
  return out;
}

struct EncoderBlock {
  EncoderBlock(const Weights& weights, const std::string& stem, int64_t width)
      : attention(weights, stem + ".layer.0.SelfAttention", width),
        feed_forward(weights, stem + ".layer.1.DenseReluDense", width),
        norms{weights.vector(stem + ".layer.0.layer_norm.weight", width),
              weights.vector(stem + ".layer.1.layer_norm.weight", width)} {}
  Attention attention;
  FeedForward feed_forward;
  std::array<Row, 2> norms;
};

struct DecoderBlock {
  DecoderBlock(const Weights& weights, const std::string& stem, int64_t width)
      : self(weights, stem + ".layer.0.SelfAttention", width),
        cross(weights, stem + ".layer.1.EncDecAttention", width),
        feed_forward(weights, stem + ".layer.2.DenseReluDense", width),
        norms{weights.vector(stem + ".layer.0.layer_norm.weight", width),
              weights.vector(stem + ".layer.1.layer_norm.weight", width),
              weights.vector(stem + ".layer.2.layer_norm.weight", width)} {}
  Attention self, cross;
  FeedForward feed_forward;
  std::array<Row, 3> norms;
};

template <typename Block>
std::vector<Block> read_blocks(const Weights& weights, const std::string& side, int64_t width) {
  std::vector<Block> blocks;
  for (int64_t i = 0; i < kMostBlocks; ++i) {
    const std::string stem = fmt::format("{}.block.{}", side, i);
    if (i > 0 && !weights.contains(stem + ".layer.0.layer_norm.weight")) break;
    blocks.emplace_back(weights, stem, width);
  }
  return blocks;
}

/// One sequence: by decoder block what it has said itself and what the prompt says.
struct Memory {
  std::vector<KeyValues> self, cross;
  int64_t position = 0;
};

}  // namespace

struct PathModel::State {
  explicit State(const Weights& weights)
      : heads(weights.number("heads")),
        used(weights.number("used")),
        window(weights.number("window", 256)),
        embedding(weights.matrix("shared.weight", 0, 0)),
        encoder(read_blocks<EncoderBlock>(weights, "encoder", embedding.cols())),
        decoder(read_blocks<DecoderBlock>(weights, "decoder", embedding.cols())),
        encoder_bias(read_bias(weights, "encoder", true)),
        decoder_bias(read_bias(weights, "decoder", false)),
        encoder_norm(weights.vector("encoder.final_layer_norm.weight", embedding.cols())),
        decoder_norm(weights.vector("decoder.final_layer_norm.weight", embedding.cols())),
        head(weights.matrix("head.weight", 0, embedding.cols())) {}

  PositionBias read_bias(const Weights& weights, const std::string& side, bool both_ways) const {
    const std::string name = side + ".block.0.layer.0.SelfAttention.relative_attention_bias.weight";
    PositionBias bias = {.table = weights.matrix(name, 0, heads),
                         .max_distance = weights.number("max_distance", 128),
                         .both_ways = both_ways};
    if (bias.table.rows() < 4 || bias.max_distance <= bias.table.rows())
      throw FormatError("{}: needs 4 buckets or more and a max_distance above them", name);
    return bias;
  }

  Matrix embed(std::span<const int32_t> tokens) const {
    Matrix x(tokens.size(), embedding.cols());
    for (size_t i = 0; i < tokens.size(); ++i) {
      const bool known = tokens[i] >= 0 && tokens[i] < embedding.rows();
      x.row(static_cast<int64_t>(i)) = embedding.row(known ? tokens[i] : 0);
    }
    return x;
  }

  Matrix encode(std::span<const int32_t> prompt) const {
    Matrix x = embed(prompt);
    for (const EncoderBlock& block : encoder) {
      const Matrix normed = rms_norm(x, block.norms[0]);
      KeyValues all;
      all.add(normed * block.attention.k.transpose(), normed * block.attention.v.transpose());
      x += attend(normed * block.attention.q.transpose(), 0, all, heads, &encoder_bias) *
           block.attention.o.transpose();
      x += block.feed_forward(rms_norm(x, block.norms[1]));
    }
    return rms_norm(x, encoder_norm);
  }

  Matrix step(int32_t token, Memory& memory) const {
    Matrix x = embed(std::span(&token, 1));
    for (size_t i = 0; i < decoder.size(); ++i) {
      const DecoderBlock& block = decoder[i];
      const Matrix normed = rms_norm(x, block.norms[0]);
      memory.self[i].add(normed * block.self.k.transpose(), normed * block.self.v.transpose());
      x += attend(normed * block.self.q.transpose(), memory.position, memory.self[i], heads,
                  &decoder_bias) *
           block.self.o.transpose();
      x += attend(rms_norm(x, block.norms[1]) * block.cross.q.transpose(), 0, memory.cross[i],
                  heads, nullptr) *
           block.cross.o.transpose();
      x += block.feed_forward(rms_norm(x, block.norms[2]));
    }
    ++memory.position;
    return rms_norm(x, decoder_norm) * head.transpose();
  }

  int64_t heads, used, window;
  Matrix embedding;
  std::vector<EncoderBlock> encoder;
  std::vector<DecoderBlock> decoder;
  PositionBias encoder_bias, decoder_bias;
  Row encoder_norm, decoder_norm;
  Matrix head;
  std::map<int32_t, Memory> sequences;
};

PathModel::PathModel(const std::filesystem::path& file, int64_t layers, int64_t experts) {
  const Weights weights(file);
  if (weights.number("layers") != layers || weights.number("experts") != experts)
    throw FormatError("{}: forecasts {} layers of {} experts, the model has {} of {}",
                      file.string(), weights.number("layers"), weights.number("experts"), layers,
                      experts);
  state_ = std::make_unique<State>(weights);
  const auto fits = [&](const Attention& attention) {
    return attention.q.rows() % state_->heads == 0;
  };
  bool all_fit = state_->head.rows() == layers * experts;
  for (const EncoderBlock& block : state_->encoder) all_fit = all_fit && fits(block.attention);
  for (const DecoderBlock& block : state_->decoder)
    all_fit = all_fit && fits(block.self) && fits(block.cross);
  if (!all_fit)
    throw FormatError("{}: head or attention do not fit layers, experts and heads", file.string());
}

PathModel::~PathModel() = default;
PathModel::PathModel(PathModel&&) noexcept = default;

int64_t PathModel::used() const { return state_->used; }

void PathModel::begin_sequence(int32_t sequence, std::span<const int32_t> prompt) {
  if (state_->sequences.size() >= kMostSequences)
    state_->sequences.erase(state_->sequences.begin());
  const auto seen = std::min<size_t>(prompt.size(), state_->window);
  const Matrix encoded = state_->encode(prompt.last(seen));
  Memory memory;
  memory.self.resize(state_->decoder.size());
  for (const DecoderBlock& block : state_->decoder)
    memory.cross.emplace_back().add(encoded * block.cross.k.transpose(),
                                    encoded * block.cross.v.transpose());
  state_->sequences[sequence] = std::move(memory);
}

std::vector<float> PathModel::forecast(int32_t sequence, int32_t token) {
  if (!state_->sequences.contains(sequence)) begin_sequence(sequence, {});
  Memory& memory = state_->sequences.at(sequence);
  // Beyond what training saw the decoder starts afresh on the same prompt.
  if (memory.position >= kMostPositions) {
    memory.self.assign(state_->decoder.size(), {});
    memory.position = 0;
  }
  const Matrix logits = state_->step(token, memory);
  return {logits.data(), logits.data() + logits.size()};
}

std::vector<int64_t> likeliest(std::span<const float> logits, int64_t layers, int64_t experts,
                               int64_t count) {
  count = std::min(count, experts);
  std::vector<int64_t> all, ids(static_cast<size_t>(experts));
  for (int64_t layer = 0; layer < layers; ++layer) {
    std::iota(ids.begin(), ids.end(), layer * experts);
    std::partial_sort(ids.begin(), ids.begin() + count, ids.end(), [&](int64_t a, int64_t b) {
      return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
    });
    all.insert(all.end(), ids.begin(), ids.begin() + count);
  }
  return all;
}

}  // namespace cadre::engine
