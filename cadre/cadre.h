/* cadre's engine for C and every language that can call C: open a model, make a session, feed
 * tokens, get logits; or generate text in one call. Link with -lcadre.
 *
 * Functions that return a pointer give NULL on failure, those that return int64_t a negative
 * number; cadre_last_error() then says what was wrong, in one line. Strings are UTF-8 and end with
 * a zero byte. No function keeps a pointer that it was given, or throws.
 *
 * A model may be shared between threads; a session belongs to one thread at a time. */
#ifndef CADRE_CADRE_H_
#define CADRE_CADRE_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define CADRE_API __attribute__((visibility("default")))
#else
#define CADRE_API
#endif

/* NOLINTBEGIN(modernize-use-using): C reads this, too. */

typedef struct cadre_model cadre_model;
typedef struct cadre_session cadre_session;

/* Why the last call of this thread failed; valid until its next failing call. Never NULL. */
CADRE_API const char* cadre_last_error(void);

typedef struct {
  int64_t memory;        /* bytes for the whole process; 0 = what is free, less a margin */
  int64_t expert_memory; /* bytes for the expert cache; below 0 = what the budget leaves */
  int64_t context;       /* tokens of a session at most; 0 = the model's, at most 4096 */
  int32_t threads;       /* 0 = one per physical core */
} cadre_model_options;

/* 0, -1, 0, 0. */
CADRE_API cadre_model_options cadre_model_defaults(void);

/* Opens a GGUF file or a checkpoint folder; options may be NULL. */
CADRE_API cadre_model* cadre_model_open(const char* path, const cadre_model_options* options);
/* Sessions stay valid: the model goes with the last of them. NULL is allowed. */
CADRE_API void cadre_model_free(cadre_model* model);
CADRE_API int64_t cadre_model_vocabulary(const cadre_model* model);
CADRE_API int64_t cadre_model_context(const cadre_model* model);

CADRE_API cadre_session* cadre_session_new(cadre_model* model);
CADRE_API void cadre_session_free(cadre_session* session);
/* Adds tokens to the session and computes them; returns its length. */
CADRE_API int64_t cadre_feed(cadre_session* session, const int32_t* tokens, int64_t count);
/* The logits after the last token fed, one per vocabulary entry; valid until the next call with
 * this session. NULL before the first feed. */
CADRE_API const float* cadre_logits(cadre_session* session);
/* Forgets everything after the first `length` tokens; returns the length. */
CADRE_API int64_t cadre_truncate(cadre_session* session, int64_t length);

/* Writes at most `capacity` token ids to `tokens` and returns how many there are (call with
 * capacity 0 to ask). Names of special tokens in the text are read as such when parse_special is
 * not 0. */
CADRE_API int64_t cadre_tokenize(const cadre_model* model, const char* text, int32_t parse_special,
                                 int32_t* tokens, int64_t capacity);
/* Writes at most `capacity` bytes, no zero byte after them, and returns how many there are. A
 * token may end within a character. */
CADRE_API int64_t cadre_detokenize(const cadre_model* model, const int32_t* tokens, int64_t count,
                                   char* text, int64_t capacity);

typedef struct {
  int64_t tokens;        /* at most so many new ones */
  double temperature;    /* 0 = always the likeliest */
  int64_t top_k;         /* 0 = all */
  double top_p;          /* in (0, 1] */
  double min_p;          /* in [0, 1] */
  double repeat_penalty; /* 1 = off */
  uint64_t seed;
  const char* const* stop; /* texts that end the generation, `stops` of them; may be NULL */
  int64_t stops;
} cadre_generate_options;

/* 256, 0.8, 0, 0.95, 0, 1, 1, none. */
CADRE_API cadre_generate_options cadre_generate_defaults(void);

/* Gets each new piece of text, whole characters; returns 0 to go on, anything else to stop. */
typedef int (*cadre_on_text)(const char* text, void* user);

/* Continues the prompt; options may be NULL, as may on_text. Returns the number of new tokens. */
CADRE_API int64_t cadre_generate(cadre_model* model, const char* prompt,
                                 const cadre_generate_options* options, cadre_on_text on_text,
                                 void* user);

/* NOLINTEND(modernize-use-using) */

#ifdef __cplusplus
}
#endif

#endif /* CADRE_CADRE_H_ */
