/* A story from the model within the library, or a text from a GGUF file: hello [PROMPT [MODEL]]. */
#include <bitnet.h>
#include <stdio.h>
#include <string.h>

static int32_t show(void *user, const bitnet_piece *piece) {
    (void)user;
    fwrite(piece->text.data, 1, piece->text.len, stdout);
    fflush(stdout);
    return 0; /* anything else ends the text */
}

static int failed(bitnet_error *error) {
    fprintf(stderr, "error: %s\n", bitnet_error_message(error, NULL));
    bitnet_error_free(error);
    return 1;
}

int main(int argc, char **argv) {
    const char *prompt = argc > 1 ? argv[1] : "Once upon a time";
    bitnet_error *error = NULL;
    bitnet_model *model = NULL;
    bitnet_session *session = NULL;
    bitnet_generate_options options;

    if (bitnet_abi_version() != BITNET_ABI_VERSION) {
        fprintf(stderr, "error: the library %s is not of this header's version\n", bitnet_version());
        return 1;
    }
    if (argc > 2) {
        bitnet_model_load(argv[2], strlen(argv[2]), NULL, &model, &error);
    } else {
        bitnet_model_builtin(NULL, &model, &error);
    }
    if (error != NULL) return failed(error);

    /* What the model's files recommend, and then our own. */
    bitnet_generate_options_init(model, &options, sizeof options, NULL);
    options.max_tokens = 100;
    options.seed = 7;

    fputs(prompt, stdout);
    if (bitnet_session_new(model, &session, &error) == BITNET_STATUS_OK) {
        bitnet_generate(session, prompt, strlen(prompt), &options, show, NULL, NULL, &error);
    }
    putchar('\n');
    bitnet_session_free(session);
    bitnet_model_free(model);
    return error != NULL ? failed(error) : 0;
}
