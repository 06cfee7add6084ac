/* Compiled as C: the header must be C, and what it promises must hold there. */

#include "cadre/cadre.h"

#include <stdio.h>
#include <string.h>

#define REQUIRE(condition)                                                         \
  do {                                                                             \
    if (!(condition)) {                                                            \
      snprintf(failure, sizeof(failure), "line %d: %s (%s)", __LINE__, #condition, \
               cadre_last_error());                                                \
      return failure;                                                              \
    }                                                                              \
  } while (0)

static char failure[1024];

static const char* check_tokens(cadre_model* model) {
  int32_t tokens[16];
  char text[16];
  REQUIRE(cadre_tokenize(model, "hello", 0, NULL, 0) == 5);
  REQUIRE(cadre_tokenize(model, "hello", 0, tokens, 16) == 5);
  REQUIRE(cadre_detokenize(model, tokens, 5, text, 16) == 5);
  REQUIRE(memcmp(text, "hello", 5) == 0);
  REQUIRE(cadre_tokenize(model, "<|im_end|>", 1, tokens, 16) == 1);
  REQUIRE(cadre_tokenize(model, "<|im_end|>", 0, tokens, 16) == 10);
  REQUIRE(cadre_tokenize(model, NULL, 0, tokens, 16) < 0);
  tokens[0] = 100000;
  REQUIRE(cadre_detokenize(model, tokens, 1, text, 16) < 0);
  return NULL;
}

static const char* check_session(cadre_model* model) {
  const int32_t tokens[3] = {5, 6, 7};
  cadre_session* session = cadre_session_new(model);
  REQUIRE(session != NULL);
  REQUIRE(cadre_logits(session) == NULL);
  REQUIRE(strlen(cadre_last_error()) > 0);
  REQUIRE(cadre_feed(session, tokens, 3) == 3);
  const float* logits = cadre_logits(session);
  REQUIRE(logits != NULL);
  const float first = logits[10];
  REQUIRE(cadre_truncate(session, 2) == 2);
  REQUIRE(cadre_feed(session, tokens + 2, 1) == 3);
  REQUIRE(cadre_logits(session)[10] == first);
  REQUIRE(cadre_feed(session, tokens, -1) < 0);
  REQUIRE(cadre_feed(session, NULL, 1) < 0);
  REQUIRE(cadre_truncate(session, 99) < 0);
  cadre_session_free(session);
  return NULL;
}

struct sink {
  size_t bytes;
  int calls, stop_after;
};

static int take(const char* text, void* user) {
  struct sink* sink = user;
  sink->bytes += strlen(text);
  sink->calls += 1;
  return sink->calls == sink->stop_after;
}

static const char* check_generation(cadre_model* model) {
  cadre_generate_options options = cadre_generate_defaults();
  options.tokens = 12;
  options.temperature = 0;
  struct sink all = {0, 0, 0}, few = {0, 0, 1};
  REQUIRE(cadre_generate(model, "Once", &options, take, &all) == 12);
  REQUIRE(all.bytes > 0);
  REQUIRE(cadre_generate(model, "Once", &options, NULL, NULL) == 12);
  REQUIRE(cadre_generate(model, "Once", &options, take, &few) < 12);
  REQUIRE(few.calls == 1);
  REQUIRE(cadre_generate(model, "", &options, NULL, NULL) < 0);
  options.top_p = 2;
  REQUIRE(cadre_generate(model, "Once", &options, NULL, NULL) < 0);
  REQUIRE(strstr(cadre_last_error(), "top-p") != NULL);
  return NULL;
}

/* NULL, or what went wrong. */
const char* check_c_api(const char* model_path) {
  REQUIRE(cadre_model_open("/no/such.gguf", NULL) == NULL);
  REQUIRE(strstr(cadre_last_error(), "/no/such.gguf") != NULL);
  REQUIRE(cadre_model_open(NULL, NULL) == NULL);
  cadre_model_options options = cadre_model_defaults();
  options.threads = 1;
  cadre_model* model = cadre_model_open(model_path, &options);
  REQUIRE(model != NULL);
  REQUIRE(cadre_model_vocabulary(model) == 259);
  REQUIRE(cadre_model_context(model) == 128);
  const char* wrong = check_tokens(model);
  if (wrong == NULL) wrong = check_session(model);
  if (wrong == NULL) wrong = check_generation(model);
  cadre_model_free(model);
  cadre_model_free(NULL);
  return wrong;
}
