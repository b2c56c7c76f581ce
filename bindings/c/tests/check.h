/* What the tests share: checks that say where they fail, and shorter names. */
#ifndef CHECK_H
#define CHECK_H

#include <bitnet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);   \
            exit(1);                                                                  \
        }                                                                             \
    } while (0)

/* The call works; if not, its message is shown. `error` is the name of the place for errors. */
#define WORKS(call) works((call), &error, #call, __FILE__, __LINE__)
/* The call ends with this status and a message with these words. */
#define FAILS(status, words, call) fails((call), (status), (words), &error, #call, __FILE__, __LINE__)

static inline void works(bitnet_status status, bitnet_error **error, const char *call, const char *file, int line) {
    if (status == BITNET_STATUS_OK && *error == NULL) return;
    fprintf(stderr, "%s:%d: %s: %s: %s\n", file, line, call, bitnet_status_name(status), bitnet_error_message(*error, NULL));
    exit(1);
}

static inline void fails(bitnet_status status, bitnet_status expected, const char *words, bitnet_error **error,
                         const char *call, const char *file, int line) {
    size_t len = 0;
    const char *message = bitnet_error_message(*error, &len);
    int as_expected = status == expected && bitnet_error_status(*error) == expected && strlen(message) == len && len > 0 &&
                      strstr(message, words) != NULL;
    if (!as_expected) {
        fprintf(stderr, "%s:%d: %s: %s instead of %s with \"%s\": %s\n", file, line, call, bitnet_status_name(status),
                bitnet_status_name(expected), words, message);
        exit(1);
    }
    bitnet_error_free(*error);
    *error = NULL;
}

static inline bitnet_str str(const char *text) {
    bitnet_str s;
    s.data = text;
    s.len = strlen(text);
    return s;
}

/* Text and tokens of a generation. */
typedef struct {
    char text[4096];
    size_t text_len;
    uint32_t tokens[256];
    size_t tokens_len;
    size_t stop_after; /* pieces; 0 is never */
    size_t pieces;
} output;

static inline void add(output *to, const bitnet_piece *piece) {
    CHECK(piece->text.data != NULL && piece->text.data[piece->text.len] == 0);
    CHECK(to->text_len + piece->text.len < sizeof to->text && to->tokens_len < 256);
    memcpy(to->text + to->text_len, piece->text.data, piece->text.len);
    to->text_len += piece->text.len;
    to->text[to->text_len] = 0;
    if (piece->token >= 0) to->tokens[to->tokens_len++] = (uint32_t)piece->token;
    to->pieces++;
}

static inline int32_t collect(void *user, const bitnet_piece *piece) {
    output *to = (output *)user;
    add(to, piece);
    return to->pieces == to->stop_after;
}

static inline int same(const output *a, const output *b) {
    return a->tokens_len == b->tokens_len && memcmp(a->tokens, b->tokens, a->tokens_len * sizeof *a->tokens) == 0 &&
           strcmp(a->text, b->text) == 0;
}

/* The model within the library, on one thread. */
static inline bitnet_model *builtin(void) {
    bitnet_error *error = NULL;
    bitnet_model *model = NULL;
    bitnet_load_options options;
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    options.threads = 1;
    WORKS(bitnet_model_builtin(&options, &model, &error));
    return model;
}

static inline bitnet_session *session_of(const bitnet_model *model) {
    bitnet_error *error = NULL;
    bitnet_session *session = NULL;
    WORKS(bitnet_session_new(model, &session, &error));
    return session;
}

static inline bitnet_generate_options options_of(const bitnet_model *model, size_t max_tokens, float temperature) {
    bitnet_error *error = NULL;
    bitnet_generate_options options;
    WORKS(bitnet_generate_options_init(model, &options, sizeof options, &error));
    options.max_tokens = max_tokens;
    options.temperature = temperature;
    return options;
}

static inline size_t length(const bitnet_session *session) {
    bitnet_error *error = NULL;
    size_t len = 0;
    WORKS(bitnet_session_len(session, &len, &error));
    return len;
}

#endif
