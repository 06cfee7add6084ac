#include "cadre/training/path_trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/training/optimizer.h"

namespace cadre {
namespace {

using torch::Tensor;

enum Stream : uint64_t { kHoldOut, kExamples, kShuffle, kGroups };

constexpr std::array<int64_t, 5> kBatches = {1, 2, 4, 8, 16};

void check_options(const PathTrainOptions& o) {
  const auto check = [](const char* name, double value, double least, double most) {
    if (!(value >= least && value <= most))
      throw UsageError("{} is {}, must be from {} to {}", name, value, least, most);
  };
  check("steps", static_cast<double>(o.steps), 1, 1e9);
  check("batch", static_cast<double>(o.batch), 1, 65536);
  check("length", static_cast<double>(o.length), 1, 512);
  check("window", static_cast<double>(o.window), 1, 65536);
  check("lr", o.lr, 1e-9, 10);
  check("held-out", o.held_out, 0, 0.9);
}

PathNetworkOptions network_of(const RoutedText& text, PathNetworkOptions options) {
  int32_t largest = 0;
  for (const RoutedSequence& sequence : text.sequences)
    for (const int32_t token : sequence.tokens) {
      if (token < 0) throw UsageError("the routes name token {}; ids begin at 0", token);
      largest = std::max(largest, token);
    }
  options.vocabulary = int64_t{largest} + 1;
  options.layers = text.layers;
  options.experts = text.experts;
  return options;
}

int64_t length_of(const RoutedSequence& sequence) {
  return static_cast<int64_t>(sequence.tokens.size());
}

Tensor ids_of(const RoutedSequence& piece, int64_t first, int64_t count, int64_t vocabulary) {
  const auto begin = piece.tokens.begin() + first;
  Tensor ids = torch::tensor(std::vector<int64_t>(begin, begin + count), torch::kInt64);
  return torch::where(ids < vocabulary, ids, torch::zeros_like(ids));  // as the engine does
}

/// Mean over (token, layer) with a route of the experts' summed cross entropies.
Tensor path_loss(const Tensor& logits, const Tensor& labels) {
  const Tensor routed = labels.sum(-1).gt(0).to(torch::kFloat32);
  const Tensor losses =
      torch::binary_cross_entropy_with_logits(logits, labels, {}, {}, at::Reduction::None).sum(-1);
  return (losses * routed).sum() / routed.sum().clamp_min(1);
}

/// The experts of the `picks` largest values: [..., E] of 0 and 1.
Tensor top_of(const Tensor& values, int64_t picks) {
  const Tensor best = std::get<1>(values.topk(picks, -1));
  return torch::zeros_like(values).scatter_(-1, best, 1);
}

/// United over groups of `batch` tokens: [N, L, E] to [N / batch, L, E].
Tensor united(const Tensor& sets, int64_t batch) {
  const int64_t groups = sets.size(0) / batch;
  return sets.slice(0, 0, groups * batch).view({groups, batch, sets.size(1), sets.size(2)}).amax(1);
}

/// Recall and precision of sets [..., L, E].
std::pair<double, double> compare(const Tensor& forecast, const Tensor& truth) {
  const double both = (forecast * truth).sum(torch::kFloat64).item<double>();
  const double true_ones = truth.sum(torch::kFloat64).item<double>();
  const double named = forecast.expand_as(truth).sum(torch::kFloat64).item<double>();
  return {both / std::max(1.0, true_ones), both / std::max(1.0, named)};
}

}  // namespace

PathTrainer::PathTrainer(RoutedText text, const PathTrainOptions& options)
    : options_(options),
      layers_(text.layers),
      experts_(text.experts),
      used_(text.used),
      network_(network_of(text, options.network), options.seed) {
  check_options(options_);
  hold_out(pieces_of(text));
  if (options_.sabotage) shuffle_routes();
  count_uses();
  // The table's rows of tokens that training will not see say nothing, rather than anything.
  const Tensor seen = torch::zeros({network_.options().vocabulary, 1});
  for (const RoutedSequence& piece : training_)
    for (const int32_t token : piece.tokens) seen[token] = 1;
  const torch::NoGradGuard no_grad;
  network_.embeddings().mul_(seen);
}

std::vector<RoutedSequence> PathTrainer::pieces_of(const RoutedText& text) const {
  const int64_t most = options_.window + options_.length, row = text.layers * text.used;
  std::vector<RoutedSequence> pieces;
  for (const RoutedSequence& sequence : text.sequences)
    for (int64_t first = 0; length_of(sequence) - first >= 2; first += most) {
      const int64_t last = std::min(length_of(sequence), first + most);
      const auto tokens = sequence.tokens.begin();
      const auto chosen = sequence.chosen.begin();
      pieces.push_back(
          {{tokens + first, tokens + last}, {chosen + first * row, chosen + last * row}});
    }
  return pieces;
}

void PathTrainer::hold_out(std::vector<RoutedSequence> pieces) {
  if (pieces.size() < 2)
    throw UsageError(
        "the routes have {} sequences of {} tokens, training needs two or more: record more text",
        pieces.size(), options_.window + options_.length);
  Random random(options_.seed, {kHoldOut});
  std::shuffle(pieces.begin(), pieces.end(), random);
  const auto count = static_cast<int64_t>(pieces.size());
  const auto wanted = static_cast<int64_t>(options_.held_out * static_cast<double>(count));
  const auto held = pieces.begin() + std::clamp<int64_t>(wanted, 1, count - 1);
  held_out_.assign(std::make_move_iterator(pieces.begin()), std::make_move_iterator(held));
  training_.assign(std::make_move_iterator(held), std::make_move_iterator(pieces.end()));
}

void PathTrainer::shuffle_routes() {
  const int64_t row = layers_ * used_;
  std::vector<int16_t> all;
  for (const RoutedSequence& piece : training_)
    all.insert(all.end(), piece.chosen.begin(), piece.chosen.end());
  std::vector<int64_t> order(all.size() / row);
  std::iota(order.begin(), order.end(), 0);
  Random random(options_.seed, {kShuffle});
  std::shuffle(order.begin(), order.end(), random);
  int64_t next = 0;
  for (RoutedSequence& piece : training_)
    for (int64_t token = 0; token < length_of(piece); ++token)
      std::copy_n(all.begin() + order[next++] * row, row, piece.chosen.begin() + token * row);
}

void PathTrainer::count_uses() {
  uses_ = torch::zeros({layers_, experts_});
  float* uses = uses_.data_ptr<float>();
  const int64_t row = layers_ * used_;
  for (const RoutedSequence& piece : training_)
    for (size_t i = 0; i < piece.chosen.size(); ++i) {
      const int64_t layer = static_cast<int64_t>(i) % row / used_;
      if (piece.chosen[i] >= 0) uses[layer * experts_ + piece.chosen[i]] += 1;
    }
}

int64_t PathTrainer::training_tokens() const {
  int64_t count = 0;
  for (const RoutedSequence& piece : training_) count += length_of(piece);
  return count;
}

int64_t PathTrainer::parameters() const {
  int64_t count = 0;
  for (const auto& [name, weight] : network_.weights()) count += weight.numel();
  return count;
}

Tensor PathTrainer::labels_of(const RoutedSequence& piece, int64_t first, int64_t count) const {
  Tensor labels = torch::zeros({count, layers_, experts_});
  float* label = labels.data_ptr<float>();
  for (int64_t pair = 0; pair < count * layers_; ++pair)
    for (int64_t slot = 0; slot < used_; ++slot) {
      const int16_t expert = piece.chosen[(first * layers_ + pair) * used_ + slot];
      if (expert >= 0) label[pair * experts_ + expert] = 1;
    }
  return labels;
}

/// Pieces are drawn by how many places for such an example they have.
PathTrainer::Batch PathTrainer::batch_at(int64_t step) const {
  Random random(options_.seed, {kExamples, static_cast<uint64_t>(step)});
  int64_t longest = 0;
  for (const RoutedSequence& piece : training_) longest = std::max(longest, length_of(piece));
  const int64_t length = std::min(options_.length, std::max<int64_t>(1, longest / 2));
  const int64_t prompt = static_cast<int64_t>(
      random.below(static_cast<uint64_t>(std::min(options_.window, longest - length) + 1)));
  std::vector<int64_t> places;  // up to and with each piece
  int64_t total = 0;
  for (const RoutedSequence& piece : training_)
    places.push_back(total += std::max<int64_t>(0, length_of(piece) - prompt - length + 1));
  const int64_t vocabulary = network_.options().vocabulary;
  std::vector<Tensor> prompts, tokens, labels;
  for (int64_t i = 0; i < options_.batch; ++i) {
    const auto place = static_cast<int64_t>(random.below(static_cast<uint64_t>(total)));
    const auto at = std::upper_bound(places.begin(), places.end(), place) - places.begin();
    const RoutedSequence& piece = training_[at];
    const int64_t first = place - (at > 0 ? places[at - 1] : 0);
    prompts.push_back(ids_of(piece, first, prompt, vocabulary));
    tokens.push_back(ids_of(piece, first + prompt, length, vocabulary));
    labels.push_back(labels_of(piece, first + prompt, length));
  }
  return {torch::stack(prompts), torch::stack(tokens), torch::stack(labels)};
}

void PathTrainer::train(const std::function<bool(int64_t step, double loss)>& on_step) {
  AdamW optimizer(network_.weights(), {.beta2 = 0.99, .weight_decay = options_.weight_decay});
  const CosineSchedule schedule = {.lr = options_.lr,
                                   .warmup_steps = std::min<int64_t>(50, options_.steps / 4),
                                   .total_steps = options_.steps,
                                   .final_share = 0.05};
  torch::manual_seed(options_.seed);  // dropout's draws
  for (int64_t step = 0; step < options_.steps; ++step) {
    const Batch batch = batch_at(step);
    const Tensor logits =
        network_.logits(batch.prompts, batch.tokens, PathNetwork::Mode::kTraining);
    const Tensor loss = path_loss(logits, batch.labels);
    loss.backward();
    optimizer.step(schedule.at(step));
    if (!on_step(step + 1, loss.item<double>())) return;
  }
}

PathEvaluation PathTrainer::evaluate(const RoutedText& other) const {
  if (other.layers != layers_ || other.experts != experts_ || other.used != used_)
    throw UsageError(
        "the routes are of {} layers of {} experts, {} used; the predictor's of {}, {}, {}",
        other.layers, other.experts, other.used, layers_, experts_, used_);
  return evaluate_on(pieces_of(other));
}

/// Each piece's first half is its prompt, as far as it is seen.
PathEvaluation PathTrainer::evaluate_on(const std::vector<RoutedSequence>& pieces) const {
  const torch::NoGradGuard no_grad;
  PathEvaluation evaluation;
  std::vector<Tensor> all_logits, all_labels;
  const int64_t vocabulary = network_.options().vocabulary;
  for (const RoutedSequence& piece : pieces) {
    const int64_t half = length_of(piece) / 2, count = length_of(piece) - half;
    const int64_t prompt = std::min(half, options_.window);
    all_logits.push_back(network_
                             .logits(ids_of(piece, half - prompt, prompt, vocabulary).unsqueeze(0),
                                     ids_of(piece, half, count, vocabulary).unsqueeze(0),
                                     PathNetwork::Mode::kForecast)
                             .squeeze(0));
    all_labels.push_back(labels_of(piece, half, count));
  }
  if (pieces.empty()) throw UsageError("the routes have no sequence of two tokens");
  Tensor logits = torch::cat(all_logits), labels = torch::cat(all_labels);
  evaluation.tokens = logits.size(0);
  evaluation.loss = path_loss(logits, labels).item<double>();
  std::vector<int64_t> order(static_cast<size_t>(evaluation.tokens));
  std::iota(order.begin(), order.end(), 0);
  Random random(options_.seed, {kGroups});
  std::shuffle(order.begin(), order.end(), random);
  const Tensor shuffled = torch::tensor(order);
  logits = logits.index_select(0, shuffled);
  labels = labels.index_select(0, shuffled);
  for (const int64_t batch : kBatches)
    for (const int64_t picks : {used_, (3 * used_ + 1) / 2, 2 * used_}) {
      if (picks > experts_ || batch > evaluation.tokens) continue;
      const Tensor truth = united(labels, batch);
      const Tensor forecast = united(top_of(logits, picks), batch);
      const auto named = std::llround(forecast.sum(-1).mean().item<double>());
      const auto [recall, precision] = compare(forecast, truth);
      const auto [often, often_precision] = compare(top_of(uses_, named).unsqueeze(0), truth);
      evaluation.scores.push_back({batch, picks, recall, precision, often, often_precision});
    }
  return evaluation;
}

void PathTrainer::save(const std::filesystem::path& file) const {
  const PathNetworkOptions& network = network_.options();
  SafetensorsWriter writer(file, specs_of(network_.weights()),
                           {{"layers", std::to_string(layers_)},
                            {"experts", std::to_string(experts_)},
                            {"used", std::to_string(used_)},
                            {"heads", std::to_string(network.heads)},
                            {"max_distance", std::to_string(network.max_distance)},
                            {"window", std::to_string(options_.window)}});
  for (const auto& [name, weight] : network_.weights()) writer.write(name, bytes_of(weight));
  writer.commit();
}

}  // namespace cadre
