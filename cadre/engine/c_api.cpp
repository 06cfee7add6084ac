#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cadre/base/error.h"
#include "cadre/cadre.h"
#include "cadre/engine/scheduler.h"
#include "cadre/engine/session.h"
#include "cadre/engine/text_frame.h"

using cadre::TokenId;
using cadre::UsageError;
namespace engine = cadre::engine;

struct cadre_model {
  std::shared_ptr<engine::Model> model;
  engine::TextFrame frame;
  int64_t context;
};

struct cadre_session {
  engine::Session session;
  std::vector<float> logits;
};

namespace {

thread_local std::string last_error;

/// body(), or `otherwise` when it throws: no exception leaves the library.
template <class Body, class Result>
Result guarded(Result otherwise, const Body& body) {
  try {
    return body();
  } catch (const std::exception& error) {
    last_error = error.what();
  } catch (...) {
    last_error = "an unknown exception";
  }
  return otherwise;
}

template <class T>
T& required(T* pointer, const char* name) {
  if (pointer == nullptr) throw UsageError("{} is NULL", name);
  return *pointer;
}

std::span<const TokenId> tokens_of(const int32_t* tokens, int64_t count) {
  if (count < 0) throw UsageError("count is {}, must not be negative", count);
  if (count > 0) required(tokens, "tokens");
  return {tokens, static_cast<size_t>(count)};
}

/// Copies what fits and returns the whole size.
template <class Source, class T>
int64_t hand_out(const Source& source, T* target, int64_t capacity) {
  if (capacity < 0) throw UsageError("capacity is {}, must not be negative", capacity);
  if (capacity > 0) required(target, "the buffer");
  std::copy_n(source.begin(), std::min(capacity, std::ssize(source)), target);
  return std::ssize(source);
}

engine::GenerationRequest request_of(const cadre_generate_options& options) {
  if (options.stops < 0) throw UsageError("stops is {}, must not be negative", options.stops);
  if (options.stops > 0) required(options.stop, "stop");
  engine::GenerationRequest request{.tokens = options.tokens,
                                    .sampling = {.repeat_penalty = options.repeat_penalty,
                                                 .temperature = options.temperature,
                                                 .top_k = options.top_k,
                                                 .top_p = options.top_p,
                                                 .min_p = options.min_p,
                                                 .seed = options.seed}};
  for (int64_t i = 0; i < options.stops; ++i) {
    request.stop.emplace_back(&required(options.stop[i], "a stop text"));
  }
  return request;
}

}  // namespace

const char* cadre_last_error(void) { return last_error.c_str(); }

cadre_model_options cadre_model_defaults(void) {
  return {.memory = 0, .expert_memory = -1, .context = 0, .threads = 0};
}

cadre_model* cadre_model_open(const char* path, const cadre_model_options* options) {
  return guarded(static_cast<cadre_model*>(nullptr), [&] {
    const cadre_model_options given = options != nullptr ? *options : cadre_model_defaults();
    engine::ModelOptions asked{
        .memory = given.memory, .threads = given.threads, .context = given.context};
    if (given.expert_memory >= 0) asked.expert_memory = given.expert_memory;
    auto model = engine::Model::open(&required(path, "path"), asked);
    const int64_t context =
        given.context > 0 ? given.context : std::min<int64_t>(model->spec().context, 4096);
    engine::TextFrame frame = engine::read_text_frame(path, model->tokenizer());
    return new cadre_model{std::move(model), std::move(frame), context};
  });
}

void cadre_model_free(cadre_model* model) { delete model; }

int64_t cadre_model_vocabulary(const cadre_model* model) {
  return guarded(int64_t{-1}, [&] { return required(model, "model").model->spec().vocabulary; });
}

int64_t cadre_model_context(const cadre_model* model) {
  return guarded(int64_t{-1}, [&] { return required(model, "model").context; });
}

cadre_session* cadre_session_new(cadre_model* model) {
  return guarded(static_cast<cadre_session*>(nullptr), [&] {
    return new cadre_session{engine::Session(required(model, "model").model), {}};
  });
}

void cadre_session_free(cadre_session* session) { delete session; }

int64_t cadre_feed(cadre_session* session, const int32_t* tokens, int64_t count) {
  return guarded(int64_t{-1}, [&] {
    cadre_session& it = required(session, "session");
    it.logits = it.session.feed(tokens_of(tokens, count));
    return std::ssize(it.session.tokens());
  });
}

const float* cadre_logits(cadre_session* session) {
  return guarded(static_cast<const float*>(nullptr), [&]() -> const float* {
    const cadre_session& it = required(session, "session");
    if (it.logits.empty()) throw UsageError("there are no logits: feed the session first");
    return it.logits.data();
  });
}

int64_t cadre_truncate(cadre_session* session, int64_t length) {
  return guarded(int64_t{-1}, [&] {
    cadre_session& it = required(session, "session");
    it.session.truncate(length);
    it.logits.clear();
    return std::ssize(it.session.tokens());
  });
}

int64_t cadre_tokenize(const cadre_model* model, const char* text, int32_t parse_special,
                       int32_t* tokens, int64_t capacity) {
  return guarded(int64_t{-1}, [&] {
    using Special = cadre::Tokenizer::SpecialTokens;
    const auto ids = required(model, "model")
                         .model->tokenizer()
                         .encode(&required(text, "text"),
                                 parse_special != 0 ? Special::kParse : Special::kAsText);
    return hand_out(ids, tokens, capacity);
  });
}

int64_t cadre_detokenize(const cadre_model* model, const int32_t* tokens, int64_t count, char* text,
                         int64_t capacity) {
  return guarded(int64_t{-1}, [&] {
    const auto bytes = required(model, "model").model->tokenizer().decode(tokens_of(tokens, count));
    return hand_out(bytes, text, capacity);
  });
}

cadre_generate_options cadre_generate_defaults(void) {
  const engine::SamplerOptions sampling;
  return {.tokens = 256,
          .temperature = sampling.temperature,
          .top_k = sampling.top_k,
          .top_p = sampling.top_p,
          .min_p = sampling.min_p,
          .repeat_penalty = sampling.repeat_penalty,
          .seed = sampling.seed,
          .stop = nullptr,
          .stops = 0};
}

int64_t cadre_generate(cadre_model* model, const char* prompt,
                       const cadre_generate_options* options, cadre_on_text on_text, void* user) {
  return guarded(int64_t{-1}, [&] {
    const cadre_model& it = required(model, "model");
    engine::GenerationRequest request =
        request_of(options != nullptr ? *options : cadre_generate_defaults());
    request.prompt = it.frame.encode(it.model->tokenizer(), &required(prompt, "prompt"));
    request.end_tokens = it.frame.ends;
    bool stopped = false;
    if (on_text != nullptr) {
      request.on_text = [&](std::string_view text) {
        stopped = stopped || on_text(std::string(text).c_str(), user) != 0;
      };
    }
    engine::GenerationResult kept;
    request.on_done = [&](const engine::GenerationResult& result) { kept = result; };
    engine::EngineSequences sequences(it.model);
    engine::Scheduler scheduler(sequences, it.model->tokenizer(), {.context = it.context});
    const engine::RequestId id = scheduler.submit(std::move(request));
    while (scheduler.step()) {
      if (stopped) scheduler.cancel(id);
    }
    if (kept.failure) std::rethrow_exception(kept.failure);
    return std::ssize(kept.tokens);
  });
}
