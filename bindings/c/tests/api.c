/* Everything that the header offers, once: api FOLDER, which holds tinystories-5m.gguf and intent/extractor.gguf. */
#include "check.h"

#include <math.h>

static bitnet_error *error = NULL;

static bitnet_model *load(const char *folder, const char *name) {
    char path[1024];
    bitnet_model *model = NULL;
    bitnet_load_options options = {0};
    options.size = sizeof options;
    options.threads = 1;
    int len = snprintf(path, sizeof path, "%s/%s", folder, name);
    WORKS(bitnet_model_load(path, (size_t)len, &options, &model, &error));
    return model;
}

static output generate(bitnet_session *session, const char *prompt, const bitnet_generate_options *options,
                       bitnet_result *result) {
    output got = {0};
    if (result) result->size = sizeof *result;
    WORKS(bitnet_generate(session, prompt, strlen(prompt), options, collect, &got, result, &error));
    return got;
}

static output pull(bitnet_stream *stream) {
    output got = {0};
    bitnet_piece piece;
    bitnet_status status;
    while ((status = bitnet_stream_next(stream, &piece, &error)) == BITNET_STATUS_OK) add(&got, &piece);
    CHECK(status == BITNET_STATUS_END && error == NULL);
    CHECK(piece.text.data == NULL && piece.text.len == 0 && piece.token == -1);
    CHECK(bitnet_stream_next(stream, &piece, &error) == BITNET_STATUS_END);
    return got;
}

#define NAMED(status) CHECK(strcmp(bitnet_status_name(status), #status) == 0)

static void versions(void) {
    CHECK(bitnet_abi_version() == BITNET_ABI_VERSION);
    CHECK(strchr(bitnet_version(), '.') != NULL);
    NAMED(BITNET_STATUS_OK);
    NAMED(BITNET_STATUS_END);
    NAMED(BITNET_STATUS_NULL);
    NAMED(BITNET_STATUS_ARGUMENT);
    NAMED(BITNET_STATUS_UTF8);
    NAMED(BITNET_STATUS_HANDLE);
    NAMED(BITNET_STATUS_SIZE);
    NAMED(BITNET_STATUS_BUSY);
    NAMED(BITNET_STATUS_LOAD);
    NAMED(BITNET_STATUS_FILE);
    NAMED(BITNET_STATUS_CONTEXT_FULL);
    NAMED(BITNET_STATUS_SAVED_SESSION);
    NAMED(BITNET_STATUS_TOKENIZER);
    NAMED(BITNET_STATUS_CHAT);
    NAMED(BITNET_STATUS_CONSTRAINT);
    NAMED(BITNET_STATUS_UNFINISHED);
    NAMED(BITNET_STATUS_MODEL);
    NAMED(BITNET_STATUS_PANIC);
    CHECK(strcmp(bitnet_status_name(18), "BITNET_STATUS_UNKNOWN") == 0);
    CHECK(strcmp(bitnet_status_name(-1), "BITNET_STATUS_UNKNOWN") == 0);
}

static void models(const bitnet_model *tiny, const bitnet_model *attention) {
    bitnet_bytes *info = NULL;
    size_t len = 0;
    WORKS(bitnet_model_info(tiny, &info, &error));
    const char *json = bitnet_bytes_data(info, &len);
    CHECK(strlen(json) == len && json[0] == '{' && json[len - 1] == '}');
    CHECK(strstr(json, "\"tokenizer\":true") && strstr(json, "\"threads\":1") && strstr(json, "\"context\":null"));
    bitnet_bytes_free(info);
    WORKS(bitnet_model_info(attention, &info, &error));
    json = bitnet_bytes_data(info, NULL);
    CHECK(strstr(json, "\"context\":null") == NULL);
    bitnet_bytes_free(info);

    bitnet_model *none = NULL;
    FAILS(BITNET_STATUS_LOAD, "nowhere.gguf", bitnet_model_load("nowhere.gguf", 12, NULL, &none, &error));
    FAILS(BITNET_STATUS_LOAD, "", bitnet_model_load_bytes((const uint8_t *)"GGUF damaged", 12, NULL, &none, &error));
    FAILS(BITNET_STATUS_LOAD, "", bitnet_model_load_bytes(NULL, 0, NULL, &none, &error));
    CHECK(none == NULL);

    /* Tokens of a text and the text of the tokens. */
    const char *text = "Once upon a time, a dog.";
    bitnet_tokens *tokens = NULL, *plain = NULL;
    bitnet_bytes *back = NULL;
    size_t with_bos = 0, without = 0;
    WORKS(bitnet_model_tokenize(attention, text, strlen(text), 1, &tokens, &error));
    WORKS(bitnet_model_tokenize(attention, text, strlen(text), 0, &plain, &error));
    const uint32_t *ids = bitnet_tokens_data(tokens, &with_bos);
    const uint32_t *rest = bitnet_tokens_data(plain, &without);
    CHECK(without > 3 && with_bos - without <= 1);
    CHECK(memcmp(ids + (with_bos - without), rest, without * sizeof *rest) == 0);
    WORKS(bitnet_model_detokenize(attention, ids, with_bos, &back, &error));
    CHECK(strcmp(bitnet_bytes_data(back, NULL), text) == 0);
    bitnet_bytes_free(back);
    bitnet_tokens_free(plain);
    bitnet_tokens_free(tokens);

    /* A vector has length 1. */
    bitnet_floats *vector = NULL;
    double square = 0;
    WORKS(bitnet_model_embed(tiny, text, strlen(text), &vector, &error));
    const float *values = bitnet_floats_data(vector, &len);
    for (size_t i = 0; i < len; i++) square += (double)values[i] * values[i];
    /* Rounded once per value: less than 1e-6 for some hundred of them. */
    CHECK(len >= 64 && fabs(square - 1) < 1e-5);
    bitnet_floats_free(vector);
}

static void generation(const bitnet_model *model, const bitnet_model *attention) {
    const char *prompt = "Once upon a time";
    const bitnet_model *both[] = {model, attention};
    for (int i = 0; i < 2; i++) {
        bitnet_generate_options options = options_of(both[i], 12, 0.8f);
        options.seed = 7;
        bitnet_session *first = session_of(both[i]), *second = session_of(both[i]);
        bitnet_stream *stream = NULL;
        bitnet_result result, pulled;
        output pushed = generate(first, prompt, &options, &result);
        CHECK(pushed.tokens_len == 12 && pushed.text_len > 10);
        CHECK(result.finish == BITNET_FINISH_LENGTH && result.new_tokens == 12 && result.prompt_tokens > 2);
        CHECK(result.decode_seconds > 0 && result.prefill_seconds > 0);

        WORKS(bitnet_stream_new(second, prompt, strlen(prompt), &options, &stream, &error));
        pulled.size = sizeof pulled;
        WORKS(bitnet_stream_result(stream, &pulled, &error));
        CHECK(pulled.finish == BITNET_FINISH_NONE && pulled.new_tokens == 0 && pulled.size == sizeof pulled);
        output taken = pull(stream);
        CHECK(same(&pushed, &taken));
        WORKS(bitnet_stream_result(stream, &pulled, &error));
        CHECK(pulled.finish == result.finish && pulled.new_tokens == 12 && pulled.prompt_tokens == result.prompt_tokens);
        /* After its end the session is free, before the stream is. Both go on alike, also without a prompt. */
        CHECK(length(first) == length(second));
        const char *texts[] = {" He said", ""};
        for (int j = 0; j < 2; j++) {
            pushed = generate(first, texts[j], &options, NULL);
            taken = generate(second, texts[j], &options, NULL);
            CHECK(same(&pushed, &taken) && pushed.tokens_len > 0);
        }
        bitnet_stream_free(stream);

        /* A callback and a stream that is freed end a text; the session keeps it. */
        size_t before = length(first);
        output few = {0};
        few.stop_after = 3;
        result.size = sizeof result;
        WORKS(bitnet_generate(first, "", 0, &options, collect, &few, &result, &error));
        CHECK(few.pieces == 3 && result.finish == BITNET_FINISH_CANCELLED && length(first) == before + 3);
        bitnet_piece piece;
        WORKS(bitnet_stream_new(first, "", 0, &options, &stream, &error));
        size_t len = 0;
        FAILS(BITNET_STATUS_BUSY, "stream", bitnet_session_len(first, &len, &error));
        for (int j = 0; j < 2; j++) WORKS(bitnet_stream_next(stream, &piece, &error));
        bitnet_stream_free(stream);
        CHECK(length(first) == before + 5);

        /* Options: none at all, no tokens, a stop text, one that is out of its range. */
        WORKS(bitnet_generate_tokens(first, NULL, 0, &options, NULL, NULL, NULL, &error));
        options.max_tokens = 0;
        output none = generate(first, "", &options, &result);
        CHECK(none.pieces == 0 && result.finish == BITNET_FINISH_LENGTH);
        options.max_tokens = 30;
        bitnet_str stops[] = {{NULL, 0}, str(" ")};
        options.stop = stops + 1;
        options.stop_count = 1;
        output stopped = generate(first, "The", &options, &result);
        CHECK(strchr(stopped.text, ' ') == NULL && result.finish == BITNET_FINISH_STOP);
        options.top_p = 2;
        FAILS(BITNET_STATUS_ARGUMENT, "top_p", bitnet_generate(first, "a", 1, &options, NULL, NULL, NULL, &error));
        bitnet_session_free(second);
        bitnet_session_free(first);
    }
    /* With the defaults of the model, by NULL and written out. */
    bitnet_session *a = session_of(attention), *b = session_of(attention);
    bitnet_generate_options options = options_of(attention, 8, 0);
    bitnet_generate_options defaults;
    WORKS(bitnet_generate_options_init(attention, &defaults, sizeof defaults, &error));
    CHECK(defaults.max_tokens == BITNET_NO_LIMIT && defaults.size == sizeof defaults);
    output x = {0}, y = {0};
    x.stop_after = y.stop_after = 8;
    WORKS(bitnet_generate(a, "The", 3, NULL, collect, &x, NULL, &error));
    WORKS(bitnet_generate(b, "The", 3, &defaults, collect, &y, NULL, &error));
    CHECK(same(&x, &y));
    /* A context that is full ends the text, or is shifted. */
    bitnet_session_free(a);
    bitnet_session_free(b);
    (void)options;
}

static void sessions(const bitnet_model *model, const bitnet_model *other) {
    bitnet_generate_options options = options_of(model, 6, 0);
    bitnet_session *session = session_of(model), *fork = NULL, *restored = NULL;
    bitnet_bytes *saved = NULL;
    generate(session, "Once upon a time there was a little", &options, NULL);
    size_t len = length(session);
    WORKS(bitnet_session_fork(session, &fork, &error));
    WORKS(bitnet_session_save(session, &saved, &error));
    output next = generate(session, " And", &options, NULL);
    output forked = generate(fork, " And", &options, NULL);
    CHECK(same(&next, &forked));
    size_t bytes = 0;
    const char *data = bitnet_bytes_data(saved, &bytes);
    WORKS(bitnet_session_load(model, (const uint8_t *)data, bytes, &restored, &error));
    CHECK(length(restored) == len);
    output again = generate(restored, " And", &options, NULL);
    CHECK(same(&next, &again));
    bitnet_session_free(restored);

    /* Damaged, cut and foreign states. */
    char *copy = (char *)malloc(bytes);
    CHECK(copy != NULL);
    memcpy(copy, data, bytes);
    copy[bytes / 2] ^= 1;
    FAILS(BITNET_STATUS_SAVED_SESSION, "", bitnet_session_load(model, (const uint8_t *)copy, bytes, &restored, &error));
    FAILS(BITNET_STATUS_SAVED_SESSION, "", bitnet_session_load(model, (const uint8_t *)data, bytes - 1, &restored, &error));
    FAILS(BITNET_STATUS_SAVED_SESSION, "", bitnet_session_load(other, (const uint8_t *)data, bytes, &restored, &error));
    CHECK(restored == NULL);
    free(copy);
    bitnet_bytes_free(saved);

    /* A rewound session goes on as before. */
    WORKS(bitnet_session_rewind(session, len, &error));
    CHECK(length(session) == len);
    again = generate(session, " And", &options, NULL);
    CHECK(same(&next, &again));
    bitnet_tokens *tokens = NULL;
    size_t count = 0;
    WORKS(bitnet_session_tokens(session, &tokens, &error));
    const uint32_t *ids = bitnet_tokens_data(tokens, &count);
    CHECK(count == length(session) && ids[count - 1] == again.tokens[again.tokens_len - 1]);

    /* The best logit is the token that is chosen. */
    bitnet_session *fed = session_of(model);
    const float *logits = NULL;
    size_t vocabulary = 0, best = 0;
    WORKS(bitnet_session_feed(fed, ids, count, &logits, &vocabulary, &error));
    CHECK(length(fed) == count && vocabulary > 100);
    for (size_t i = 1; i < vocabulary; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    output one = {0};
    options.max_tokens = 1;
    WORKS(bitnet_generate_tokens(fed, NULL, 0, &options, collect, &one, NULL, &error));
    CHECK(one.tokens_len == 1 && one.tokens[0] == best);
    WORKS(bitnet_session_feed(fed, ids, 1, NULL, NULL, &error));
    uint32_t outside = 0xffffffffu;
    FAILS(BITNET_STATUS_ARGUMENT, "vocabulary", bitnet_session_feed(fed, &outside, 1, &logits, &vocabulary, &error));
    CHECK(logits == NULL && vocabulary == 0);
    WORKS(bitnet_session_rewind(fed, 0, &error));
    CHECK(length(fed) == 0);
    bitnet_session_free(fed);
    bitnet_tokens_free(tokens);
    bitnet_session_free(fork);
    bitnet_session_free(session);
}

static void full_context(const char *folder) {
    char path[1024];
    int path_len = snprintf(path, sizeof path, "%s/tinystories-5m.gguf", folder);
    bitnet_load_options load = {0};
    bitnet_model *model = NULL;
    load.size = sizeof load;
    load.threads = 1;
    load.context = 16;
    WORKS(bitnet_model_load(path, (size_t)path_len, &load, &model, &error));
    bitnet_session *session = session_of(model);
    bitnet_generate_options options = options_of(model, 40, 0);
    options.flags = BITNET_FLAG_IGNORE_EOS;
    bitnet_result result;
    generate(session, "Once upon a time", &options, &result);
    CHECK(result.finish == BITNET_FINISH_LENGTH && length(session) == 16 && result.context_shifts == 0);
    FAILS(BITNET_STATUS_CONTEXT_FULL, "16", bitnet_generate(session, " and", 4, &options, NULL, NULL, NULL, &error));
    WORKS(bitnet_session_rewind(session, 0, &error));
    options.flags |= BITNET_FLAG_CONTEXT_SHIFT;
    options.keep = 2;
    output shifted = generate(session, "Once upon a time", &options, &result);
    CHECK(shifted.tokens_len == 40 && result.context_shifts > 0);
    bitnet_session *pulled = session_of(model);
    bitnet_stream *stream = NULL;
    WORKS(bitnet_stream_new(pulled, "Once upon a time", 16, &options, &stream, &error));
    output taken = pull(stream);
    CHECK(same(&shifted, &taken));
    bitnet_stream_free(stream);
    bitnet_session_free(pulled);
    bitnet_session_free(session);
    bitnet_model_free(model);
}

static void constraints(const bitnet_model *model) {
    bitnet_session *session = session_of(model);
    bitnet_generate_options options = options_of(model, 60, 0);
    bitnet_result result;
    options.constraint_kind = BITNET_CONSTRAINT_JSON_SCHEMA;
    options.constraint = str("{\"type\": \"object\", \"properties\": {\"big\": {\"type\": \"boolean\"}}, \"required\": [\"big\"]}");
    output got = generate(session, "Is it big? ", &options, &result);
    CHECK(strcmp(got.text, "{\"big\": true}") == 0 || strcmp(got.text, "{\"big\": false}") == 0);
    CHECK(result.finish == BITNET_FINISH_STOP && result.forced_tokens > 0);
    options.constraint_kind = BITNET_CONSTRAINT_REGEX;
    options.constraint = str("yes|no");
    got = generate(session, "\nIs it? ", &options, NULL);
    CHECK(strcmp(got.text, "yes") == 0 || strcmp(got.text, "no") == 0);
    options.constraint_kind = BITNET_CONSTRAINT_GRAMMAR;
    options.constraint = str("start: \"red\" | \"blue\"");
    got = generate(session, "\nWhich? ", &options, NULL);
    CHECK(strcmp(got.text, "red") == 0 || strcmp(got.text, "blue") == 0);

    options.max_tokens = 1;
    options.constraint = str("start: \"a long text that is cut\"");
    output cut = {0};
    FAILS(BITNET_STATUS_UNFINISHED, "before it satisfied",
          bitnet_generate(session, "\n", 1, &options, collect, &cut, NULL, &error));
    bitnet_stream *stream = NULL;
    bitnet_piece piece;
    WORKS(bitnet_stream_new(session, "\n", 1, &options, &stream, &error));
    bitnet_status status;
    while ((status = bitnet_stream_next(stream, &piece, &error)) == BITNET_STATUS_OK) continue;
    FAILS(BITNET_STATUS_UNFINISHED, "before it satisfied", status);
    CHECK(bitnet_stream_next(stream, &piece, &error) == BITNET_STATUS_END);
    bitnet_stream_free(stream);

    options.constraint_kind = BITNET_CONSTRAINT_JSON_SCHEMA;
    options.constraint = str("{");
    FAILS(BITNET_STATUS_CONSTRAINT, "not JSON", bitnet_generate(session, "a", 1, &options, NULL, NULL, NULL, &error));
    options.constraint = str("{\"type\": \"nothing\"}");
    size_t before = length(session);
    FAILS(BITNET_STATUS_CONSTRAINT, "", bitnet_generate(session, "a", 1, &options, NULL, NULL, NULL, &error));
    FAILS(BITNET_STATUS_CONSTRAINT, "", bitnet_stream_new(session, "a", 1, &options, &stream, &error));
    CHECK(stream == NULL && length(session) == before);
    options.constraint_kind = BITNET_CONSTRAINT_NONE;
    FAILS(BITNET_STATUS_ARGUMENT, "constraint_kind", bitnet_generate(session, "a", 1, &options, NULL, NULL, NULL, &error));
    options.constraint_kind = 9;
    FAILS(BITNET_STATUS_ARGUMENT, "constraint_kind", bitnet_generate(session, "a", 1, &options, NULL, NULL, NULL, &error));
    bitnet_session_free(session);
}

static void chats(const char *folder) {
    const char *hello = "[{\"role\": \"user\", \"content\": \"Once upon a time\"}]";
    char path[1024];
    int path_len = snprintf(path, sizeof path, "%s/tinystories-5m.gguf", folder);
    bitnet_load_options load = {0};
    bitnet_model *model = NULL;
    load.size = sizeof load;
    load.threads = 1;
    /* A template that refuses the conversation. */
    load.chat_template = str("{% for m in messages %}{{ raise_exception('only in verse') }}{% endfor %}");
    WORKS(bitnet_model_load(path, (size_t)path_len, &load, &model, &error));
    bitnet_session *session = session_of(model);
    FAILS(BITNET_STATUS_CHAT, "only in verse", bitnet_chat(session, hello, strlen(hello), NULL, NULL, NULL, NULL, &error));
    CHECK(length(session) == 0);
    bitnet_session_free(session);
    bitnet_model_free(model);
    load.chat_template = str("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ mood }}");
    WORKS(bitnet_model_load(path, (size_t)path_len, &load, &model, &error));
    session = session_of(model);
    bitnet_generate_options options = options_of(model, 6, 0);
    bitnet_result result;
    result.size = sizeof result;
    output first = {0}, second = {0}, third = {0};
    WORKS(bitnet_chat(session, hello, strlen(hello), &options, collect, &first, &result, &error));
    CHECK(first.tokens_len > 0 && result.reused_tokens == 0);
    /* The same conversation is not read again, and the answer is the same, also by a stream. */
    WORKS(bitnet_chat(session, hello, strlen(hello), &options, collect, &second, &result, &error));
    CHECK(same(&first, &second) && result.reused_tokens > 2);
    bitnet_stream *stream = NULL;
    WORKS(bitnet_stream_chat(session, hello, strlen(hello), &options, &stream, &error));
    third = pull(stream);
    CHECK(same(&first, &third));
    WORKS(bitnet_stream_result(stream, &result, &error));
    CHECK(result.reused_tokens > 2);
    bitnet_stream_free(stream);
    /* As an object with a variable, which changes the prompt. */
    const char *object = "{\"messages\": [{\"role\": \"user\", \"content\": \"Once upon a time\"}], \"mood\": \"happy\"}";
    output moody = {0};
    WORKS(bitnet_chat(session, object, strlen(object), &options, collect, &moody, &result, &error));
    size_t with_mood = result.prompt_tokens + result.reused_tokens;
    WORKS(bitnet_chat(session, hello, strlen(hello), &options, collect, &moody, &result, &error));
    CHECK(with_mood > result.prompt_tokens + result.reused_tokens);
    const char *wrong[] = {"", "[", "7", "{}", "[{\"role\": \"user\"}]"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        FAILS(BITNET_STATUS_ARGUMENT, "messages",
              bitnet_chat(session, wrong[i], strlen(wrong[i]), &options, collect, &moody, &result, &error));
    }
    bitnet_session_free(session);
    bitnet_model_free(model);
}

static void choices(const bitnet_model *model) {
    const char *prompt = "Once upon a time there was a little";
    bitnet_str texts[3] = {str(" girl"), str(" quantum"), str(" boy.")};
    double logprobs[3], shares[3];
    size_t tokens[3], index = 9;
    WORKS(bitnet_score(model, prompt, strlen(prompt), texts, 3, logprobs, tokens, &error));
    size_t best = 0;
    for (size_t i = 0; i < 3; i++) {
        CHECK(logprobs[i] < 0 && tokens[i] > 0);
        if (logprobs[i] > logprobs[best]) best = i;
    }
    CHECK(best != 1);
    WORKS(bitnet_choose(model, prompt, strlen(prompt), texts, 3, BITNET_BY_TOTAL, &index, shares, &error));
    CHECK(index == best && fabs(shares[0] + shares[1] + shares[2] - 1) < 1e-12);
    WORKS(bitnet_choose(model, prompt, strlen(prompt), texts, 3, BITNET_BY_TOKEN, &index, NULL, &error));
    double mean = logprobs[index] / (double)tokens[index];
    for (size_t i = 0; i < 3; i++) CHECK(logprobs[i] / (double)tokens[i] <= mean);
    WORKS(bitnet_choose(model, prompt, strlen(prompt), texts, 3, BITNET_BY_BYTE, &index, shares, &error));
    FAILS(BITNET_STATUS_ARGUMENT, "by is 3", bitnet_choose(model, prompt, 4, texts, 3, 3, &index, NULL, &error));
    FAILS(BITNET_STATUS_ARGUMENT, "no choices", bitnet_choose(model, prompt, 4, NULL, 0, 0, &index, NULL, &error));
    WORKS(bitnet_score(model, prompt, strlen(prompt), NULL, 0, NULL, NULL, &error));
}

static void extractors(const char *folder) {
    char path[1024];
    int path_len = snprintf(path, sizeof path, "%s/intent/extractor.gguf", folder);
    bitnet_extractor *extractor = NULL;
    bitnet_bytes *json = NULL;
    WORKS(bitnet_extractor_load(path, (size_t)path_len, &extractor, &error));
    WORKS(bitnet_extractor_info(extractor, &json, &error));
    CHECK(strstr(bitnet_bytes_data(json, NULL), "PlayMusic") != NULL);
    bitnet_bytes_free(json);
    const char *text = "play some jazz by miles davis";
    WORKS(bitnet_extractor_extract(extractor, NULL, 0, text, strlen(text), &json, &error));
    const char *found = bitnet_bytes_data(json, NULL);
    CHECK(strstr(found, "\"intent\":\"PlayMusic\"") && strstr(found, "\"value\":\"miles davis\",\"start\":18,\"end\":29"));
    bitnet_bytes_free(json);
    FAILS(BITNET_STATUS_ARGUMENT, "no task 'none'",
          bitnet_extractor_extract(extractor, "none", 4, text, strlen(text), &json, &error));
    CHECK(json == NULL);
    bitnet_floats *vector = NULL;
    size_t len = 0;
    WORKS(bitnet_extractor_embed(extractor, text, strlen(text), &vector, &error));
    CHECK(bitnet_floats_data(vector, &len) != NULL && len > 10);
    bitnet_floats_free(vector);
    bitnet_extractor_free(extractor);
    path_len = snprintf(path, sizeof path, "%s/tinystories-5m.gguf", folder);
    FAILS(BITNET_STATUS_LOAD, "", bitnet_extractor_load(path, (size_t)path_len, &extractor, &error));
    FAILS(BITNET_STATUS_LOAD, "", bitnet_extractor_load_bytes((const uint8_t *)"no", 2, &extractor, &error));
}

static void cancelling(const bitnet_model *model) {
    bitnet_cancel *cancel = NULL;
    bitnet_session *session = session_of(model);
    bitnet_generate_options options = options_of(model, 50, 0);
    bitnet_stream *stream = NULL;
    bitnet_result result;
    WORKS(bitnet_cancel_new(&cancel, &error));
    options.cancel = cancel;
    WORKS(bitnet_stream_new(session, "Once upon a time", 16, &options, &stream, &error));
    bitnet_piece piece;
    WORKS(bitnet_stream_next(stream, &piece, &error));
    WORKS(bitnet_cancel_set(cancel, &error));
    output rest = pull(stream);
    CHECK(rest.tokens_len == 0);
    result.size = sizeof result;
    WORKS(bitnet_stream_result(stream, &result, &error));
    CHECK(result.finish == BITNET_FINISH_CANCELLED && result.new_tokens == 1);
    bitnet_stream_free(stream);
    /* It stays set, and nothing is read. */
    output none = generate(session, " and", &options, &result);
    CHECK(none.tokens_len == 0 && result.finish == BITNET_FINISH_CANCELLED);
    bitnet_cancel_free(cancel);
    bitnet_session_free(session);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    versions();
    bitnet_model *tiny = builtin(), *attention = load(argv[1], "tinystories-5m.gguf");
    models(tiny, attention);
    generation(tiny, attention);
    sessions(tiny, attention);
    sessions(attention, tiny);
    full_context(argv[1]);
    constraints(tiny);
    chats(argv[1]);
    choices(attention);
    extractors(argv[1]);
    cancelling(tiny);
    /* A session keeps its model. */
    bitnet_session *last = session_of(tiny);
    bitnet_model_free(tiny);
    bitnet_model_free(attention);
    bitnet_generate_options options = options_of(NULL, 4, 0);
    CHECK(generate(last, "Once", &options, NULL).tokens_len == 4);
    bitnet_session_free(last);
    printf("api: ok\n");
    return 0;
}
