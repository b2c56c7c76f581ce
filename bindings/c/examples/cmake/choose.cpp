// Which of several texts follows a prompt most probably: choose PROMPT TEXT TEXT...
#include <bitnet.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

int main(int argc, char **argv) {
    if (argc < 4) {
        std::fputs("usage: choose PROMPT TEXT TEXT...\n", stderr);
        return 2;
    }
    bitnet_error *error = nullptr;
    bitnet_model *loaded = nullptr;
    bitnet_model_builtin(nullptr, &loaded, &error);
    std::unique_ptr<bitnet_model, decltype(&bitnet_model_free)> model(loaded, bitnet_model_free);

    std::vector<bitnet_str> texts;
    for (int i = 2; i < argc; i++) texts.push_back({argv[i], std::strlen(argv[i])});
    std::vector<double> shares(texts.size());
    size_t index = 0;
    if (error == nullptr) {
        bitnet_choose(model.get(), argv[1], std::strlen(argv[1]), texts.data(), texts.size(), BITNET_BY_TOTAL, &index,
                      shares.data(), &error);
    }
    if (error != nullptr) {
        std::fprintf(stderr, "error: %s\n", bitnet_error_message(error, nullptr));
        bitnet_error_free(error);
        return 1;
    }
    for (size_t i = 0; i < texts.size(); i++) {
        std::printf("%c %5.1f %%  %s\n", i == index ? '*' : ' ', 100 * shares[i], texts[i].data);
    }
    return 0;
}
