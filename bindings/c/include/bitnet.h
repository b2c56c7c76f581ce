/*
 * bitnet.h: ternary (1.58-bit) language models on ordinary CPUs, from C and from every language that calls C.
 *
 * Made by cbindgen from bindings/c/src; do not edit. A program that compiles with this header and links a library whose
 * bitnet_abi_version() is BITNET_ABI_VERSION works, with that library and with every later one of the same number.
 *
 * Texts are UTF-8 with a length in bytes; they need no NUL at the end. A pointer may be NULL if the length is 0. Texts that
 * the library returns have a NUL after their last byte, which the length does not count.
 *
 * Handles are opaque. A function whose last parameter but one is called `out` gives a handle that the caller owns, and ends
 * with the function of that type whose name ends with _free. Those take NULL, too. A handle is freed once; using it
 * afterwards is undefined, as with free(). The order does not matter: a session keeps what it needs of its model.
 * A handle of another kind than the function wants is refused (BITNET_STATUS_HANDLE).
 *
 * Errors are values. A function that can fail returns a bitnet_status. Its last parameter, `error`, may be NULL; if it is
 * not, it receives NULL, or an error with a message that the caller frees with bitnet_error_free. What `*error` held before
 * is overwritten. After an error all `out` parameters hold NULL or 0, unless the function says something else. No
 * panic of the library crosses the border: it is BITNET_STATUS_PANIC. Memory that the system refuses ends the process.
 *
 * Threads: a model, an extractor and a cancel token may be used by any number of threads at the same time. A session or a
 * stream may be used by any thread, but by one at a time; a second one gets BITNET_STATUS_BUSY at once, and so does a
 * callback that uses the session which calls it. No handle may be freed while another thread uses it.
 *
 * Structures begin with their size, so that they can grow. A library that knows more fields takes the defaults for those
 * that the caller does not have; one that knows fewer refuses what it does not know, unless it is zero.
 */


#ifndef BITNET_H
#define BITNET_H

#include <stddef.h>
#include <stdint.h>

/**
 * No limit, in `max_tokens` of bitnet_generate_options.
 */
#define BITNET_NO_LIMIT SIZE_MAX


/**
 * Version of this interface: what bitnet_abi_version() must return for a program that was compiled with this header. It
 * changes if something that exists changes; new functions, statuses and fields at the end of structures leave it.
 */
#define BITNET_ABI_VERSION 1

/**
 * The text is free.
 */
#define BITNET_CONSTRAINT_NONE 0

/**
 * The text is JSON that `constraint`, a JSON Schema, describes.
 */
#define BITNET_CONSTRAINT_JSON_SCHEMA 1

/**
 * The whole text matches `constraint`, a regular expression without look-around and back references.
 */
#define BITNET_CONSTRAINT_REGEX 2

/**
 * The text follows `constraint`, a grammar in Lark's notation that begins with the rule `start`.
 */
#define BITNET_CONSTRAINT_GRAMMAR 3

/**
 * Continues after a token that ends the text.
 */
#define BITNET_FLAG_IGNORE_EOS 1

/**
 * Special tokens appear in the text.
 */
#define BITNET_FLAG_SHOW_SPECIAL 2

/**
 * At a full context the first `keep` tokens stay and the newest half of the rest; without it the text ends there.
 */
#define BITNET_FLAG_CONTEXT_SHIFT 4

/**
 * Texts are compared by their probability. Of two that begin alike the shorter one wins: end such texts with a line feed or a
 * full stop.
 */
#define BITNET_BY_TOTAL 0

/**
 * Texts are compared by the mean log-probability of their tokens.
 */
#define BITNET_BY_TOKEN 1

/**
 * Texts are compared by their log-probability divided by their bytes.
 */
#define BITNET_BY_BYTE 2

/**
 * The outcome of a function. Later versions may add more, so a program must expect others.
 */
enum bitnet_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It worked.
     */
    BITNET_STATUS_OK = 0,
    /**
     * A stream has no further piece. This is not an error.
     */
    BITNET_STATUS_END = 1,
    /**
     * A pointer that must not be NULL is.
     */
    BITNET_STATUS_NULL = 2,
    /**
     * An argument or an option is out of its range.
     */
    BITNET_STATUS_ARGUMENT = 3,
    /**
     * A text is not UTF-8.
     */
    BITNET_STATUS_UTF8 = 4,
    /**
     * A pointer is not a handle, or it is one of another kind.
     */
    BITNET_STATUS_HANDLE = 5,
    /**
     * A structure has a size that is impossible, or fields that this library does not know.
     */
    BITNET_STATUS_SIZE = 6,
    /**
     * The session or stream is being used: by another thread, by the callback's own call, or by a stream that is open.
     */
    BITNET_STATUS_BUSY = 7,
    /**
     * A model cannot be loaded: no such file, a damaged one, or one that is not supported.
     */
    BITNET_STATUS_LOAD = 8,
    /**
     * A file cannot be read or written.
     */
    BITNET_STATUS_FILE = 9,
    /**
     * The context does not hold that many tokens.
     */
    BITNET_STATUS_CONTEXT_FULL = 10,
    /**
     * A saved session is damaged or of another model.
     */
    BITNET_STATUS_SAVED_SESSION = 11,
    /**
     * There is no tokenizer, or a text that it cannot read.
     */
    BITNET_STATUS_TOKENIZER = 12,
    /**
     * There is no chat template, or it refuses the conversation.
     */
    BITNET_STATUS_CHAT = 13,
    /**
     * A schema, a regular expression or a grammar cannot be used.
     */
    BITNET_STATUS_CONSTRAINT = 14,
    /**
     * A text was cut off before it satisfied its constraint. Its pieces were handed out, and it is not a result.
     */
    BITNET_STATUS_UNFINISHED = 15,
    /**
     * The model cannot do this, or it computed numbers that are not finite.
     */
    BITNET_STATUS_MODEL = 16,
    /**
     * A bug in the library, caught at its border. What the call used may only be freed.
     */
    BITNET_STATUS_PANIC = 17,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bitnet_status bitnet_status;
#else
typedef int32_t bitnet_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How a generation ended.
 */
enum bitnet_finish
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It has not ended.
     */
    BITNET_FINISH_NONE = 0,
    /**
     * The model ended the text, a stop text appeared, or the constraint lets nothing follow.
     */
    BITNET_FINISH_STOP = 1,
    /**
     * The limit of new tokens or the end of the context was reached.
     */
    BITNET_FINISH_LENGTH = 2,
    /**
     * A cancel token or the callback ended it.
     */
    BITNET_FINISH_CANCELLED = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bitnet_finish bitnet_finish;
#else
typedef uint32_t bitnet_finish;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A text, JSON, or a session as bytes.
 */
typedef struct bitnet_bytes bitnet_bytes;

/**
 * Ends generations from any thread. It is set once and never reset.
 */
typedef struct bitnet_cancel bitnet_cancel;

/**
 * An error: a status and a message in English that says what is wrong and, where there is one, the way out.
 */
typedef struct bitnet_error bitnet_error;

/**
 * A small encoder that names intent and slots of an utterance. It does not change, and any number of threads may use it.
 */
typedef struct bitnet_extractor bitnet_extractor;

/**
 * Numbers: a vector.
 */
typedef struct bitnet_floats bitnet_floats;

/**
 * A model: weights that are ready to compute with, tokenizer, chat template. It does not change, and any number of threads
 * may use it.
 */
typedef struct bitnet_model bitnet_model;

/**
 * One text with a model: prompts and what was generated, with the model's state for them.
 */
typedef struct bitnet_session bitnet_session;

/**
 * A generation whose pieces are taken one by one. Its session is busy until the last piece was taken or the stream is freed.
 */
typedef struct bitnet_stream bitnet_stream;

/**
 * Token ids.
 */
typedef struct bitnet_tokens bitnet_tokens;

/**
 * A text of the caller's within a structure or an array: UTF-8, `len` bytes.
 */
typedef struct {
    /**
     * Its first byte; may be NULL if `len` is 0.
     */
    const char *data;
    /**
     * Bytes.
     */
    size_t len;
} bitnet_str;

/**
 * Options of a generation. bitnet_generate_options_init() fills them with what the model's files recommend; then set the
 * fields that are to differ.
 */
typedef struct {
    /**
     * sizeof(bitnet_generate_options).
     */
    size_t size;
    /**
     * Most new tokens; BITNET_NO_LIMIT goes on until the model ends the text or the context is full.
     */
    size_t max_tokens;
    /**
     * Selects the noise: the same seed, model and prompt give the same text, on every machine. 0 at first.
     */
    uint64_t seed;
    /**
     * Texts that end the generation and are not part of it.
     */
    const bitnet_str *stop;
    /**
     * Number of texts in `stop`.
     */
    size_t stop_count;
    /**
     * The source of the constraint, of the kind `constraint_kind`.
     */
    bitnet_str constraint;
    /**
     * One of BITNET_CONSTRAINT_*.
     */
    uint32_t constraint_kind;
    /**
     * Any of BITNET_FLAG_*, added.
     */
    uint32_t flags;
    /**
     * Ends the generation from another thread; may be NULL. It is used during the call, and by a stream until its end.
     */
    const bitnet_cancel *cancel;
    /**
     * Tokens at the beginning that always stay, with BITNET_FLAG_CONTEXT_SHIFT.
     */
    size_t keep;
    /**
     * Divides the logits: below 1 sharpens, above 1 flattens. 0 always takes the most probable token.
     */
    float temperature;
    /**
     * Only the fewest most probable tokens whose probabilities sum to this; 1 is all.
     */
    float top_p;
    /**
     * Only tokens at least this times as probable as the most probable one; 0 is all.
     */
    float min_p;
    /**
     * Divides positive logits of recent tokens and multiplies negative ones; 1 is off.
     */
    float repeat_penalty;
    /**
     * Subtracted from logits of tokens that occur in the new text; 0 is off.
     */
    float presence_penalty;
    /**
     * Subtracted once for each occurrence in the new text; 0 is off.
     */
    float frequency_penalty;
    /**
     * Only that many most probable tokens; 0 is all.
     */
    uint32_t top_k;
    /**
     * Last tokens that `repeat_penalty` applies to; 4294967295 is all.
     */
    uint32_t repeat_last_n;
} bitnet_generate_options;

/**
 * Options of loading. Set every byte to zero, which is the default of every field, and `size`:
 * `bitnet_load_options o = {0}; o.size = sizeof o;`
 */
typedef struct {
    /**
     * sizeof(bitnet_load_options).
     */
    size_t size;
    /**
     * Most tokens of a session; 0 is the model's own limit, which is also the highest.
     */
    size_t context;
    /**
     * How keys and values are kept: "f32", "f16", "bf16", "q8" or "q4"; empty is the default.
     */
    bitnet_str kv;
    /**
     * Path of a tokenizer.json that replaces the one of the model's file; empty for none.
     */
    bitnet_str tokenizer;
    /**
     * A chat template in Jinja, or the name of a built-in one; empty is that of the model's file.
     */
    bitnet_str chat_template;
    /**
     * Threads to compute with, the caller's included, at most 1024; 0 takes the CPUs that the process may use. The text
     * does not depend on it.
     */
    uint32_t threads;
    /**
     * Zero.
     */
    uint32_t reserved;
} bitnet_load_options;

/**
 * A step of a generation, as the library hands it out. Later versions may add fields at its end.
 */
typedef struct {
    /**
     * Text that is certain by now: whole characters, nothing that could still become part of a stop text. Often empty. A NUL
     * follows.
     */
    bitnet_str text;
    /**
     * The token that was chosen; -1 in a last piece that only brings text which had been held back.
     */
    int64_t token;
} bitnet_piece;

/**
 * Receives each piece of a generation as soon as it is there. The piece is valid during the call. Any value other than 0
 * ends the generation (BITNET_FINISH_CANCELLED). It runs on the thread that generates; it must not throw and must not jump
 * out, and the session that generates is busy for it.
 */
typedef int32_t (*bitnet_on_piece)(void *user, const bitnet_piece *piece);

/**
 * Facts about a generation. Set `size` before it is handed over.
 */
typedef struct {
    /**
     * sizeof(bitnet_result).
     */
    size_t size;
    /**
     * Tokens of the prompt that were read.
     */
    size_t prompt_tokens;
    /**
     * Tokens of the prompt that the session held already.
     */
    size_t reused_tokens;
    /**
     * Generated tokens.
     */
    size_t new_tokens;
    /**
     * Generated tokens that the constraint left no alternative to.
     */
    size_t forced_tokens;
    /**
     * Seconds for the prompt.
     */
    double prefill_seconds;
    /**
     * Seconds for the generated tokens.
     */
    double decode_seconds;
    /**
     * How it ended.
     */
    bitnet_finish finish;
    /**
     * How often the context was full and tokens were dropped.
     */
    uint32_t context_shifts;
} bitnet_result;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the interface that the library has; a program compares it with BITNET_ABI_VERSION.
 */
uint32_t bitnet_abi_version(void);

/**
 * The version of the library, "0.1.0" for example; valid forever.
 */
const char *bitnet_version(void);

/**
 * The name of a status, "BITNET_STATUS_BUSY" for example; "BITNET_STATUS_UNKNOWN" for a number that this library does not
 * have. Valid forever.
 */
const char *bitnet_status_name(int32_t status);

/**
 * The status of an error; BITNET_STATUS_OK for NULL.
 */
bitnet_status bitnet_error_status(const bitnet_error *error);

/**
 * The message of an error, with a NUL at its end; an empty text for NULL. `len`, which may be NULL, receives its length in
 * bytes. Valid until the error is freed.
 */
const char *bitnet_error_message(const bitnet_error *error,
                                 size_t *len);

/**
 * Frees an error.
 */
void bitnet_error_free(bitnet_error *error);

/**
 * The bytes, with a NUL after the last one, which `len` does not count. `len` may be NULL. Valid until they are freed;
 * NULL, and 0, for NULL.
 */
const char *bitnet_bytes_data(const bitnet_bytes *bytes,
                              size_t *len);

/**
 * Frees bytes.
 */
void bitnet_bytes_free(bitnet_bytes *bytes);

/**
 * The tokens; `len`, which may be NULL, receives their number. Valid until they are freed; NULL, and 0, for NULL.
 */
const uint32_t *bitnet_tokens_data(const bitnet_tokens *tokens,
                                   size_t *len);

/**
 * Frees tokens.
 */
void bitnet_tokens_free(bitnet_tokens *tokens);

/**
 * The numbers; `len`, which may be NULL, receives how many. Valid until they are freed; NULL, and 0, for NULL.
 */
const float *bitnet_floats_data(const bitnet_floats *floats,
                                size_t *len);

/**
 * Frees numbers.
 */
void bitnet_floats_free(bitnet_floats *floats);

/**
 * Fills options of a generation with what the files of `model` recommend, or with the library's defaults for a NULL model:
 * temperature 0.7 and top_p 0.95. `size` is sizeof(bitnet_generate_options).
 */
bitnet_status bitnet_generate_options_init(const bitnet_model *model,
                                           bitnet_generate_options *options,
                                           size_t size,
                                           bitnet_error **error);

/**
 * Loads a GGUF file or a Hugging Face folder. `options` may be NULL.
 */
bitnet_status bitnet_model_load(const char *path,
                                size_t path_len,
                                const bitnet_load_options *options,
                                bitnet_model **out,
                                bitnet_error **error);

/**
 * Loads a whole GGUF file in memory, which is copied. `options` may be NULL.
 */
bitnet_status bitnet_model_load_bytes(const uint8_t *data,
                                      size_t len,
                                      const bitnet_load_options *options,
                                      bitnet_model **out,
                                      bitnet_error **error);

/**
 * The small model within the library: it tells simple stories in English, without any file. `options` may be NULL.
 */
bitnet_status bitnet_model_builtin(const bitnet_load_options *options,
                                   bitnet_model **out,
                                   bitnet_error **error);

/**
 * Frees a model. Sessions and streams of it go on.
 */
void bitnet_model_free(bitnet_model *model);

/**
 * Facts about a model as JSON: `name` and `context` (null if there is none), `architecture`, `format` of the weights,
 * `parameters`, `vocabulary`, `hidden`, `layers`, `bos` (null if there is none), `eos` (a list), `tokenizer`, `chat`,
 * `predicts` (false for an embedding model), `kv`, `threads`, `isa`, `weight_bytes` in memory, `notes` on what was repaired or
 * assumed.
 */
bitnet_status bitnet_model_info(const bitnet_model *model,
                                bitnet_bytes **out,
                                bitnet_error **error);

/**
 * Tokens of a text; with `add_bos` other than 0, the token that begins a text in front, if the model has one.
 */
bitnet_status bitnet_model_tokenize(const bitnet_model *model,
                                    const char *text,
                                    size_t text_len,
                                    int32_t add_bos,
                                    bitnet_tokens **out,
                                    bitnet_error **error);

/**
 * Text of tokens; special ones are left out, and tokens outside of the vocabulary, too.
 */
bitnet_status bitnet_model_detokenize(const bitnet_model *model,
                                      const uint32_t *tokens,
                                      size_t tokens_len,
                                      bitnet_bytes **out,
                                      bitnet_error **error);

/**
 * The vector of a text: hidden states pooled as the model's files say, of length 1, so that the dot product of two is the
 * cosine of their angle.
 */
bitnet_status bitnet_model_embed(const bitnet_model *model,
                                 const char *text,
                                 size_t text_len,
                                 bitnet_floats **out,
                                 bitnet_error **error);

/**
 * A new, empty session.
 */
bitnet_status bitnet_session_new(const bitnet_model *model,
                                 bitnet_session **out,
                                 bitnet_error **error);

/**
 * Frees a session. A stream of it goes on.
 */
void bitnet_session_free(bitnet_session *session);

/**
 * A copy that continues independently; both share the memory of their common beginning until one of them changes it.
 */
bitnet_status bitnet_session_fork(const bitnet_session *session,
                                  bitnet_session **out,
                                  bitnet_error **error);

/**
 * The number of tokens so far, prompts and generated ones.
 */
bitnet_status bitnet_session_len(const bitnet_session *session, size_t *len, bitnet_error **error);

/**
 * The tokens so far, prompts and generated ones.
 */
bitnet_status bitnet_session_tokens(const bitnet_session *session,
                                    bitnet_tokens **out,
                                    bitnet_error **error);

/**
 * Forgets every token from number `len` on, as if it had never been there; 0 empties the session. Layers whose state cannot
 * go back read the tokens since a kept state again.
 */
bitnet_status bitnet_session_rewind(bitnet_session *session,
                                    size_t len,
                                    bitnet_error **error);

/**
 * Reads tokens without generating. `logits` receives the scores of all tokens of the vocabulary as the next one, `logits_len`
 * how many these are; both may be NULL. The scores are the session's: they are valid until the next call with it.
 */
bitnet_status bitnet_session_feed(bitnet_session *session,
                                  const uint32_t *tokens,
                                  size_t tokens_len,
                                  const float **logits,
                                  size_t *logits_len,
                                  bitnet_error **error);

/**
 * The session as bytes, from which bitnet_session_load() continues it with the same model, in this process or another.
 */
bitnet_status bitnet_session_save(bitnet_session *session,
                                  bitnet_bytes **out,
                                  bitnet_error **error);

/**
 * The session that bitnet_session_save() made these bytes of. Bytes that are damaged, or of another model, are refused
 * (BITNET_STATUS_SAVED_SESSION).
 */
bitnet_status bitnet_session_load(const bitnet_model *model,
                                  const uint8_t *data,
                                  size_t len,
                                  bitnet_session **out,
                                  bitnet_error **error);

/**
 * Continues the session with a prompt and generates. Each piece goes to `on_piece`, which may be NULL, with `user`. In an
 * empty session the token that begins a text is added, if the model's files say so. An empty prompt continues the text.
 * `options` and `result` may be NULL. After an error the session holds what was read and generated before it.
 */
bitnet_status bitnet_generate(bitnet_session *session,
                              const char *prompt,
                              size_t prompt_len,
                              const bitnet_generate_options *options,
                              bitnet_on_piece on_piece,
                              void *user,
                              bitnet_result *result,
                              bitnet_error **error);

/**
 * Like bitnet_generate(), with tokens as they are.
 */
bitnet_status bitnet_generate_tokens(bitnet_session *session,
                                     const uint32_t *tokens,
                                     size_t tokens_len,
                                     const bitnet_generate_options *options,
                                     bitnet_on_piece on_piece,
                                     void *user,
                                     bitnet_result *result,
                                     bitnet_error **error);

/**
 * Generates the answer to a conversation, through the model's chat template. `messages` is JSON: a list of objects with
 * `role` and `content`, or an object with such a list as `messages`, and optionally `tools`, `documents` and variables of the
 * template. It is the whole conversation; what the session holds of its beginning is not read again.
 */
bitnet_status bitnet_chat(bitnet_session *session,
                          const char *messages,
                          size_t messages_len,
                          const bitnet_generate_options *options,
                          bitnet_on_piece on_piece,
                          void *user,
                          bitnet_result *result,
                          bitnet_error **error);

/**
 * Begins to generate after a prompt, as bitnet_generate() does; nothing is computed before the first piece is taken. The text
 * is the same. `options` may be NULL. After an error the session is as it was.
 */
bitnet_status bitnet_stream_new(bitnet_session *session,
                                const char *prompt,
                                size_t prompt_len,
                                const bitnet_generate_options *options,
                                bitnet_stream **out,
                                bitnet_error **error);

/**
 * Begins to answer a conversation, as bitnet_chat() does.
 */
bitnet_status bitnet_stream_chat(bitnet_session *session,
                                 const char *messages,
                                 size_t messages_len,
                                 const bitnet_generate_options *options,
                                 bitnet_stream **out,
                                 bitnet_error **error);

/**
 * Takes the next piece, for which it computes. BITNET_STATUS_END after the last: then the session may be used again. The
 * text of the piece is valid until the next call with the stream. After an error there are no further pieces.
 */
bitnet_status bitnet_stream_next(bitnet_stream *stream,
                                 bitnet_piece *piece,
                                 bitnet_error **error);

/**
 * Facts about the generation, after its last piece; before that only `size` and zeros.
 */
bitnet_status bitnet_stream_result(const bitnet_stream *stream,
                                   bitnet_result *result,
                                   bitnet_error **error);

/**
 * Frees a stream. If it has not come to its end, the session holds what was read and generated until now.
 */
void bitnet_stream_free(bitnet_stream *stream);

/**
 * A cancel token, for the field `cancel` of options. It may be freed before the generation ends.
 */
bitnet_status bitnet_cancel_new(bitnet_cancel **out, bitnet_error **error);

/**
 * Ends every generation that has this token before its next token; its session keeps the text so far.
 */
bitnet_status bitnet_cancel_set(const bitnet_cancel *cancel,
                                bitnet_error **error);

/**
 * Frees a cancel token; generations that have it go on.
 */
void bitnet_cancel_free(bitnet_cancel *cancel);

/**
 * The natural logarithm of the probability of each text after a prompt. `logprobs` has room for `count` numbers, and so has
 * `tokens`, which may be NULL and receives the number of tokens of each text.
 */
bitnet_status bitnet_score(const bitnet_model *model,
                           const char *prompt,
                           size_t prompt_len,
                           const bitnet_str *texts,
                           size_t count,
                           double *logprobs,
                           size_t *tokens,
                           bitnet_error **error);

/**
 * Which of several texts is the most probable one after a prompt, compared by one of BITNET_BY_*. `index` receives its
 * number, counted from 0. `probabilities`, which may be NULL, has room for `count` numbers: the share of each text, which add
 * up to 1.
 */
bitnet_status bitnet_choose(const bitnet_model *model,
                            const char *prompt,
                            size_t prompt_len,
                            const bitnet_str *texts,
                            size_t count,
                            uint32_t by,
                            size_t *index,
                            double *probabilities,
                            bitnet_error **error);

/**
 * Loads an extractor: a GGUF file, or a folder with config.json and model.safetensors.
 */
bitnet_status bitnet_extractor_load(const char *path,
                                    size_t path_len,
                                    bitnet_extractor **out,
                                    bitnet_error **error);

/**
 * Loads an extractor from a whole GGUF file in memory, which is copied.
 */
bitnet_status bitnet_extractor_load_bytes(const uint8_t *data,
                                          size_t len,
                                          bitnet_extractor **out,
                                          bitnet_error **error);

/**
 * Frees an extractor.
 */
void bitnet_extractor_free(bitnet_extractor *extractor);

/**
 * The tasks of an extractor as JSON: a list of objects with `name`, `intents` and `slots`.
 */
bitnet_status bitnet_extractor_info(const bitnet_extractor *extractor,
                                    bitnet_bytes **out,
                                    bitnet_error **error);

/**
 * Intent and slots of a text, by the task called `task`, or by the first one if that is empty. JSON: `intent`, `confidence`
 * (0 to 1), `out_of_scope`, `slots` (a list of objects with `name`, `value`, and `start` and `end` in bytes), `cut` (whether the
 * text is longer than what is read).
 */
bitnet_status bitnet_extractor_extract(const bitnet_extractor *extractor,
                                       const char *task,
                                       size_t task_len,
                                       const char *text,
                                       size_t text_len,
                                       bitnet_bytes **out,
                                       bitnet_error **error);

/**
 * The vector of a text, of length 1.
 */
bitnet_status bitnet_extractor_embed(const bitnet_extractor *extractor,
                                     const char *text,
                                     size_t text_len,
                                     bitnet_floats **out,
                                     bitnet_error **error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* BITNET_H */
