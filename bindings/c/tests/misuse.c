/* Wrong use of the header that can be seen is an error with a name, never more. */
#include "check.h"

static bitnet_error *error = NULL;

/* Uses the session that generates. */
static int32_t busy(void *user, const bitnet_piece *piece) {
    bitnet_session *session = (bitnet_session *)user;
    size_t len = 7;
    bitnet_error *inner = NULL;
    (void)piece;
    CHECK(bitnet_session_len(session, &len, &inner) == BITNET_STATUS_BUSY && len == 0);
    CHECK(bitnet_error_status(inner) == BITNET_STATUS_BUSY);
    bitnet_error_free(inner);
    CHECK(bitnet_generate(session, "a", 1, NULL, NULL, NULL, NULL, NULL) == BITNET_STATUS_BUSY);
    CHECK(bitnet_session_rewind(session, 0, NULL) == BITNET_STATUS_BUSY);
    return 0;
}

int main(void) {
    bitnet_model *model = builtin(), *none = NULL;
    bitnet_session *session = session_of(model);
    bitnet_generate_options options = options_of(model, 3, 0);
    bitnet_load_options load;
    bitnet_bytes *bytes = NULL;
    bitnet_tokens *tokens = NULL;
    bitnet_stream *stream = NULL;
    bitnet_piece piece;
    bitnet_result result;
    size_t len = 7;

    /* NULL where something must be. */
    FAILS(BITNET_STATUS_NULL, "out", bitnet_model_builtin(NULL, NULL, &error));
    bitnet_session *other = session;
    FAILS(BITNET_STATUS_NULL, "bitnet_model", bitnet_session_new(NULL, &other, &error));
    CHECK(other == NULL);
    FAILS(BITNET_STATUS_NULL, "path", bitnet_model_load(NULL, 4, NULL, &none, &error));
    FAILS(BITNET_STATUS_NULL, "data", bitnet_model_load_bytes(NULL, 1, NULL, &none, &error));
    FAILS(BITNET_STATUS_NULL, "prompt", bitnet_generate(session, NULL, 1, &options, NULL, NULL, NULL, &error));
    FAILS(BITNET_STATUS_NULL, "bitnet_session", bitnet_generate(NULL, "a", 1, &options, NULL, NULL, NULL, &error));
    FAILS(BITNET_STATUS_NULL, "bitnet_stream", bitnet_stream_next(NULL, &piece, &error));
    FAILS(BITNET_STATUS_NULL, "options", bitnet_generate_options_init(model, NULL, sizeof options, &error));
    FAILS(BITNET_STATUS_NULL, "tokens", bitnet_model_detokenize(model, NULL, 3, &bytes, &error));
    FAILS(BITNET_STATUS_NULL, "bitnet_cancel", bitnet_cancel_set(NULL, &error));
    FAILS(BITNET_STATUS_NULL, "texts", bitnet_score(model, "a", 1, NULL, 2, NULL, NULL, &error));
    {
        bitnet_str texts[2] = {{NULL, 3}, {"b", 1}};
        double logprobs[2];
        FAILS(BITNET_STATUS_NULL, "texts[0]", bitnet_score(model, "a", 1, texts, 2, logprobs, NULL, &error));
        texts[0] = str("a");
        FAILS(BITNET_STATUS_NULL, "logprobs", bitnet_score(model, "a", 1, texts, 2, NULL, NULL, &error));
    }
    /* Without a place for the error only the status tells. */
    CHECK(bitnet_session_len(NULL, &len, NULL) == BITNET_STATUS_NULL);
    CHECK(bitnet_bytes_data(NULL, &len) == NULL && len == 0);
    CHECK(bitnet_tokens_data(NULL, NULL) == NULL && bitnet_floats_data(NULL, NULL) == NULL);
    CHECK(bitnet_error_status(NULL) == BITNET_STATUS_OK && bitnet_error_message(NULL, &len)[0] == 0 && len == 0);
    bitnet_model_free(NULL);
    bitnet_session_free(NULL);
    bitnet_stream_free(NULL);
    bitnet_bytes_free(NULL);
    bitnet_tokens_free(NULL);
    bitnet_floats_free(NULL);
    bitnet_cancel_free(NULL);
    bitnet_extractor_free(NULL);
    bitnet_error_free(NULL);

    /* Handles of another kind, and what is not a handle. */
    FAILS(BITNET_STATUS_HANDLE, "it is a bitnet_model",
          bitnet_generate((bitnet_session *)(void *)model, "a", 1, &options, NULL, NULL, NULL, &error));
    FAILS(BITNET_STATUS_HANDLE, "it is a bitnet_session",
          bitnet_model_tokenize((const bitnet_model *)(const void *)session, "a", 1, 0, &tokens, &error));
    uint64_t rubbish[4] = {1, 2, 3, 4};
    FAILS(BITNET_STATUS_HANDLE, "not a handle", bitnet_session_len((const bitnet_session *)(const void *)rubbish, &len, &error));
    FAILS(BITNET_STATUS_HANDLE, "not a handle",
          bitnet_session_len((const bitnet_session *)(const void *)((const char *)rubbish + 1), &len, &error));
    options.cancel = (const bitnet_cancel *)(const void *)model;
    FAILS(BITNET_STATUS_HANDLE, "bitnet_cancel", bitnet_generate(session, "a", 1, &options, NULL, NULL, NULL, &error));
    options.cancel = NULL;
    bitnet_session_free((bitnet_session *)(void *)model);
    bitnet_model_free((bitnet_model *)(void *)session);
    bitnet_tokens_free((bitnet_tokens *)(void *)rubbish);
    CHECK(length(session) == 0);

    /* Texts that are not UTF-8, one of them cut within a character. */
    FAILS(BITNET_STATUS_UTF8, "byte 2", bitnet_generate(session, "ab\xff", 3, &options, NULL, NULL, NULL, &error));
    FAILS(BITNET_STATUS_UTF8, "byte 0", bitnet_model_tokenize(model, "\xe3\x81", 2, 0, &tokens, &error));
    CHECK(tokens == NULL);
    bitnet_str stop = {"\xc0", 1};
    options.stop = &stop;
    options.stop_count = 1;
    FAILS(BITNET_STATUS_UTF8, "stop[0]", bitnet_generate(session, "a", 1, &options, NULL, NULL, NULL, &error));
    options.stop_count = 0;
    /* NUL is a character like any other. */
    WORKS(bitnet_model_tokenize(model, "a\0b", 3, 0, &tokens, &error));
    bitnet_tokens_free(tokens);

    /* Lengths that no memory has. */
    uint32_t id = 1;
    FAILS(BITNET_STATUS_ARGUMENT, "length", bitnet_generate(session, "a", SIZE_MAX, &options, NULL, NULL, NULL, &error));
    FAILS(BITNET_STATUS_ARGUMENT, "length", bitnet_session_feed(session, &id, SIZE_MAX / 4, NULL, NULL, &error));
    FAILS(BITNET_STATUS_ARGUMENT, "length", bitnet_session_load(model, (const uint8_t *)&id, SIZE_MAX, &other, &error));
    CHECK(other == NULL);
    char aligned[16] = {0};
    FAILS(BITNET_STATUS_ARGUMENT, "multiple of 4",
          bitnet_session_feed(session, (const uint32_t *)(const void *)(aligned + 1 + ((size_t)aligned & 1)), 1, NULL, NULL, &error));

    /* Structures of impossible sizes, and fields from the future. */
    memset(&load, 0, sizeof load);
    FAILS(BITNET_STATUS_SIZE, "sizeof(bitnet_load_options)", bitnet_model_builtin(&load, &none, &error));
    load.size = sizeof load;
    load.reserved = 1;
    FAILS(BITNET_STATUS_ARGUMENT, "reserved", bitnet_model_builtin(&load, &none, &error));
    load.reserved = 0;
    load.kv = str("f7");
    FAILS(BITNET_STATUS_ARGUMENT, "f16", bitnet_model_builtin(&load, &none, &error));
    load.kv.len = 0;
    load.threads = 1000000;
    FAILS(BITNET_STATUS_ARGUMENT, "threads", bitnet_model_builtin(&load, &none, &error));
    load.threads = 1;
    load.tokenizer = str("nowhere.json");
    FAILS(BITNET_STATUS_LOAD, "nowhere.json", bitnet_model_builtin(&load, &none, &error));
    CHECK(none == NULL);
    struct {
        bitnet_generate_options now;
        uint64_t later;
    } future;
    memset(&future, 0xff, sizeof future);
    WORKS(bitnet_generate_options_init(model, &future.now, sizeof future, &error));
    CHECK(future.now.size == sizeof future && future.later == 0);
    future.now.max_tokens = 2;
    WORKS(bitnet_generate(session, "Once", 4, &future.now, NULL, NULL, NULL, &error));
    future.later = 1;
    FAILS(BITNET_STATUS_SIZE, "does not know", bitnet_generate(session, "a", 1, &future.now, NULL, NULL, NULL, &error));
    FAILS(BITNET_STATUS_SIZE, "sizeof", bitnet_generate_options_init(model, &options, 8, &error));
    FAILS(BITNET_STATUS_SIZE, "sizeof", bitnet_generate_options_init(model, &options, SIZE_MAX, &error));
    result.size = 3;
    FAILS(BITNET_STATUS_SIZE, "bitnet_result", bitnet_generate(session, "a", 1, &options, NULL, NULL, &result, &error));
    options.flags = 8;
    FAILS(BITNET_STATUS_ARGUMENT, "flags", bitnet_generate(session, "a", 1, &options, NULL, NULL, NULL, &error));
    options.flags = 0;

    /* The session that generates is busy for its callback, and usable afterwards; so it is while a stream is open. */
    WORKS(bitnet_generate(session, "Once upon a time", 16, &options, busy, session, NULL, &error));
    size_t before = length(session);
    WORKS(bitnet_stream_new(session, " and", 4, &options, &stream, &error));
    bitnet_stream *second = stream;
    FAILS(BITNET_STATUS_BUSY, "stream", bitnet_stream_new(session, "a", 1, &options, &second, &error));
    CHECK(second == NULL);
    FAILS(BITNET_STATUS_BUSY, "stream", bitnet_generate(session, "a", 1, &options, NULL, NULL, NULL, &error));
    FAILS(BITNET_STATUS_BUSY, "stream", bitnet_session_save(session, &bytes, &error));
    /* A session that is freed before its stream. */
    bitnet_session *freed = session_of(model);
    bitnet_stream *orphan = NULL;
    WORKS(bitnet_stream_new(freed, "Once", 4, &options, &orphan, &error));
    bitnet_session_free(freed);
    WORKS(bitnet_stream_next(orphan, &piece, &error));
    bitnet_stream_free(orphan);
    bitnet_stream_free(stream);
    CHECK(length(session) == before);

    /* An empty session has nothing to continue. The built-in model has no token that begins a text, or it has one. */
    bitnet_session *empty = session_of(model);
    FAILS(BITNET_STATUS_ARGUMENT, "empty", bitnet_generate_tokens(empty, NULL, 0, &options, NULL, NULL, NULL, &error));
    CHECK(length(empty) == 0);
    bitnet_session_free(empty);
    bitnet_session_free(session);
    bitnet_model_free(model);
    printf("misuse: ok\n");
    return 0;
}
