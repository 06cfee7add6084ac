#include "cadre/engine/session.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/engine/cores.h"
#include "cadre/engine/forward.h"
#include "cadre/engine/open_experts.h"
#include "cadre/engine/tensor_source.h"

namespace cadre::engine {

namespace {

int32_t next_session() {
  static std::atomic<int32_t> last{0};
  return last++;
}

}  // namespace

struct Session::State {
  std::shared_ptr<Model> model;
  std::vector<TokenId> tokens;
  KvCache cache;
  int64_t cached = 0;  ///< tokens whose keys and values are there
  int32_t id = next_session();
};

struct Model::State {
  std::unique_ptr<TensorSource> source;
  Team team;
  PanelMemory memory;
  ModelWeights weights;
  std::unique_ptr<ExpertProvider> provider;
  std::unique_ptr<Forward> forward;
  int64_t context = 0, prefill = 0;
  KvType kv_type = KvType::kBf16;
  std::mutex running;
  std::once_flag tokenizer_read;
  std::optional<Tokenizer> tokenizer;

  explicit State(int threads) : team(threads) {}
};

namespace {

/// Rows of one pass: parts of slices.
struct Part {
  Session* session;
  KvCache* cache;
  std::span<const TokenId> tokens;
  int64_t first_position;
  Model::Slice::Want want;
  bool ends_slice;
};

struct Pass {
  Batch batch;
  std::vector<TokenId> tokens;
  std::vector<int64_t> wanted;
  std::vector<const Session*> sessions;  ///< of each row
};

void add_part(const Part& part, Pass& pass) {
  Batch& batch = pass.batch;
  const auto count = static_cast<int64_t>(part.tokens.size());
  batch.slices.push_back({part.cache, part.first_position, count, batch.tokens});
  pass.tokens.insert(pass.tokens.end(), part.tokens.begin(), part.tokens.end());
  pass.sessions.insert(pass.sessions.end(), part.tokens.size(), part.session);
  for (int64_t i = 0; i < count; ++i) {
    const bool last = part.ends_slice && i + 1 == count;
    const bool wanted =
        part.want == Model::Slice::Want::kAll || (part.want == Model::Slice::Want::kLast && last);
    if (wanted) pass.wanted.push_back(batch.tokens + i);
  }
  batch.tokens += count;
}

/// Cuts parts into passes of at most `most` tokens.
std::vector<Pass> passes_of(std::span<const Part> parts, int64_t most) {
  std::vector<Pass> passes;
  for (const Part& part : parts) {
    const auto count = static_cast<int64_t>(part.tokens.size());
    for (int64_t done = 0; done < count;) {
      if (passes.empty() || passes.back().batch.tokens == most) passes.emplace_back();
      const int64_t here = std::min(count - done, most - passes.back().batch.tokens);
      Part piece = part;
      piece.tokens = part.tokens.subspan(static_cast<size_t>(done), static_cast<size_t>(here));
      piece.first_position += done;
      piece.ends_slice = part.ends_slice && done + here == count;
      add_part(piece, passes.back());
      done += here;
    }
  }
  for (Pass& pass : passes) {
    for (const BatchSlice& slice : pass.batch.slices) {
      pass.batch.slice_of.insert(pass.batch.slice_of.end(), static_cast<size_t>(slice.tokens),
                                 &slice);
    }
  }
  return passes;
}

/// All tokens of the sessions that read more than one, to show predictors.
using Texts = std::map<const Session*, std::vector<TokenId>>;

std::vector<PassSlice> hints_of(const Pass& pass, const Texts& texts) {
  std::vector<PassSlice> hints;
  for (const BatchSlice& slice : pass.batch.slices) {
    const auto row = static_cast<size_t>(slice.first_row);
    const Session* session = pass.sessions[row];
    PassSlice hint = {.sequence = session->id(), .token = pass.tokens[row]};
    if (slice.tokens > 1) {
      hint.text = std::span(texts.at(session))
                      .first(static_cast<size_t>(slice.first_position + slice.tokens));
    }
    hints.push_back(hint);
  }
  return hints;
}

std::vector<Model::PassToken> tokens_of(const Pass& pass) {
  std::vector<Model::PassToken> tokens;
  for (int64_t row = 0; row < pass.batch.tokens; ++row) {
    const auto at = static_cast<size_t>(row);
    tokens.push_back({pass.sessions[at], pass.batch.position(row), pass.tokens[at]});
  }
  return tokens;
}

}  // namespace

Model::Model(std::unique_ptr<State> state) : state_(std::move(state)) {}
Model::~Model() = default;

std::shared_ptr<Model> Model::open(const std::filesystem::path& path, const ModelOptions& options) {
  if (options.threads < 0) throw UsageError("threads is {}, must not be negative", options.threads);
  if (options.prefill < 1) throw UsageError("prefill is {}, must be at least 1", options.prefill);
  check_expert_options(options);
  auto source = open_source(path);
  auto state = std::make_unique<State>(options.threads > 0 ? options.threads : physical_cores());
  state->source = std::move(source);
  const ModelSpec& spec = state->source->spec();
  state->context = options.context > 0 ? options.context : std::min<int64_t>(spec.context, 4096);
  if (state->context > spec.context) {
    throw UsageError("{}: a context of {} tokens is more than the model's {}", path.string(),
                     state->context, spec.context);
  }
  state->prefill = options.prefill;
  state->kv_type = options.kv_type;
  Packer packer(state->memory, state->team, kept_as(*state->source, options));
  const ExpertPlacement placement = place_experts(*state->source, options, state->context);
  state->weights = load_weights(*state->source, packer, state->context);
  state->provider = open_experts(*state->source, packer, state->weights, options, placement);
  state->source->drop_pages();
  state->forward = std::make_unique<Forward>(state->team, spec, state->weights, *state->provider);
  return std::shared_ptr<Model>(new Model(std::move(state)));
}

const ModelSpec& Model::spec() const { return state_->source->spec(); }

const Tokenizer& Model::tokenizer() const {
  std::call_once(state_->tokenizer_read,
                 [this] { state_->tokenizer = state_->source->tokenizer(); });
  return *state_->tokenizer;
}

ExpertCounters Model::expert_counters() const { return state_->provider->counters(); }

std::vector<float> Model::forward(std::span<const Slice> slices) {
  const std::lock_guard lock(state_->running);
  std::vector<Part> parts;
  Texts texts;
  int64_t wanted = 0;
  check_sessions(slices);
  for (const Slice& slice : slices) {
    Session::State& session = *slice.session->state_;
    check_slice(slice);
    const auto known = static_cast<int64_t>(session.tokens.size());
    const auto fresh = static_cast<int64_t>(slice.tokens.size());
    session.cache.reserve(session.cached, known + fresh);
    if (known + fresh - session.cached > 1) {
      std::vector<TokenId>& text = texts[slice.session] = session.tokens;
      text.insert(text.end(), slice.tokens.begin(), slice.tokens.end());
    }
    if (session.cached < known) {
      const auto again =
          std::span<const TokenId>(session.tokens).subspan(static_cast<size_t>(session.cached));
      parts.push_back(
          {slice.session, &session.cache, again, session.cached, Slice::Want::kNone, false});
    }
    parts.push_back({slice.session, &session.cache, slice.tokens, known, slice.want, true});
    if (slice.want == Slice::Want::kAll) wanted += fresh;
    if (slice.want == Slice::Want::kLast && fresh > 0) ++wanted;
  }

  std::vector<float> logits(static_cast<size_t>(wanted * spec().vocabulary));
  float* next = logits.data();
  for (Pass& pass : passes_of(parts, state_->prefill)) {
    state_->provider->begin_pass(hints_of(pass, texts));
    if (on_pass) on_pass(tokens_of(pass));
    state_->forward->on_hidden = on_hidden;
    Forward::LayerListener listener;
    if (on_route) {
      listener = [&](int64_t layer, int64_t row, std::span<const int32_t> experts,
                     std::span<const float> weights) {
        on_route(layer, pass.batch.position(row), pass.sessions[static_cast<size_t>(row)], experts,
                 weights);
      };
    }
    state_->forward->run(pass.batch, pass.tokens, pass.wanted, routing, listener, next);
    next += static_cast<int64_t>(pass.wanted.size()) * spec().vocabulary;
  }
  for (const Slice& slice : slices) commit(slice);
  return logits;
}

void Model::check_sessions(std::span<const Slice> slices) {
  std::set<const Session*> sessions;
  for (const Slice& slice : slices) {
    if (!sessions.insert(slice.session).second) {
      throw UsageError("forward: a session may have one slice only");
    }
  }
}

void Model::check_slice(const Slice& slice) const {
  const Session::State& session = *slice.session->state_;
  if (session.model.get() != this) throw UsageError("forward: a session of another model");
  const size_t length = session.tokens.size() + slice.tokens.size();
  if (length > static_cast<size_t>(state_->context)) {
    throw UsageError("the context is full: {} tokens, but it holds {}; ask for a longer one",
                     length, state_->context);
  }
  for (const TokenId token : slice.tokens) {
    if (token >= 0 && token < spec().vocabulary) continue;
    throw UsageError("token {} is outside the vocabulary of {}", token, spec().vocabulary);
  }
}

void Model::commit(const Slice& slice) {
  Session::State& session = *slice.session->state_;
  session.tokens.insert(session.tokens.end(), slice.tokens.begin(), slice.tokens.end());
  session.cached = static_cast<int64_t>(session.tokens.size());
  if (spec().sliding_window > 0) session.cache.forget_before_window(session.cached);
}

Session::Session(std::shared_ptr<Model> model) {
  KvCache cache(model->spec(), model->state_->kv_type);
  state_ = std::make_unique<State>(State{std::move(model), {}, std::move(cache)});
}
Session::Session(std::unique_ptr<State> state) : state_(std::move(state)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

std::vector<float> Session::feed(std::span<const TokenId> tokens) {
  if (tokens.empty()) throw UsageError("feed: there must be at least one token");
  const Model::Slice slice = {this, tokens, Model::Slice::Want::kLast};
  return state_->model->forward({&slice, 1});
}

int32_t Session::id() const { return state_->id; }

const std::vector<TokenId>& Session::tokens() const { return state_->tokens; }

void Session::truncate(int64_t length) {
  const auto known = static_cast<int64_t>(state_->tokens.size());
  if (length < 0 || length > known) {
    throw UsageError("truncate: length {} is outside the session's {} tokens", length, known);
  }
  state_->tokens.resize(static_cast<size_t>(length));
  state_->cached = std::min(state_->cached, length);
  if (state_->cache.covers(length)) {
    state_->cache.truncate(length);
  } else {
    // What lay before the window is gone: the next feed computes all of it again.
    state_->cache.truncate(0);
    state_->cached = 0;
  }
}

Session Session::fork(int64_t length) const {
  const auto known = static_cast<int64_t>(state_->tokens.size());
  if (length < 0 || length > known) {
    throw UsageError("fork: length {} is outside the session's {} tokens", length, known);
  }
  const bool covered = length <= state_->cached && state_->cache.covers(length);
  auto state =
      std::make_unique<State>(State{state_->model,
                                    {state_->tokens.begin(), state_->tokens.begin() + length},
                                    state_->cache.fork(covered ? length : 0)});
  state->cached = covered ? length : 0;
  return Session(std::move(state));
}

}  // namespace cadre::engine
