/* Prints the tokens of a generation, for a comparison with the command line program:
 * tokens MODEL PROMPT SEED TEMPERATURE COUNT callback|stream
 * MODEL is a path, or "builtin". */
#include "check.h"

int main(int argc, char **argv) {
    bitnet_error *error = NULL;
    bitnet_model *model = NULL;
    output got = {0};
    CHECK(argc == 7);
    CHECK(bitnet_abi_version() == BITNET_ABI_VERSION);

    bitnet_load_options load = {0};
    load.size = sizeof load;
    load.threads = 1;
    load.kv = str("f16");
    if (strcmp(argv[1], "builtin") == 0) {
        WORKS(bitnet_model_builtin(&load, &model, &error));
    } else {
        WORKS(bitnet_model_load(argv[1], strlen(argv[1]), &load, &model, &error));
    }
    bitnet_session *session = session_of(model);
    bitnet_generate_options options = options_of(model, strtoul(argv[5], NULL, 10), strtof(argv[4], NULL));
    options.seed = strtoull(argv[3], NULL, 10);
    if (strcmp(argv[6], "callback") == 0) {
        WORKS(bitnet_generate(session, argv[2], strlen(argv[2]), &options, collect, &got, NULL, &error));
    } else {
        bitnet_stream *stream = NULL;
        bitnet_piece piece;
        bitnet_status status;
        WORKS(bitnet_stream_new(session, argv[2], strlen(argv[2]), &options, &stream, &error));
        while ((status = bitnet_stream_next(stream, &piece, &error)) == BITNET_STATUS_OK) add(&got, &piece);
        CHECK(status == BITNET_STATUS_END && error == NULL);
        bitnet_stream_free(stream);
    }
    for (size_t i = 0; i < got.tokens_len; i++) printf(i == 0 ? "%u" : ",%u", (unsigned)got.tokens[i]);
    printf("\n");
    bitnet_session_free(session);
    bitnet_model_free(model);
    return 0;
}
