// The header in C++: owners, exceptions made of errors, a model that threads share, a cancel token of another thread.
#include "check.h"

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

template <auto Free>
struct Deleter {
    template <typename T>
    void operator()(T *handle) const { Free(handle); }
};
using Model = std::unique_ptr<bitnet_model, Deleter<bitnet_model_free>>;
using Session = std::unique_ptr<bitnet_session, Deleter<bitnet_session_free>>;
using Cancel = std::unique_ptr<bitnet_cancel, Deleter<bitnet_cancel_free>>;
using Error = std::unique_ptr<bitnet_error, Deleter<bitnet_error_free>>;

struct Failed : std::runtime_error {
    bitnet_status status;
    Failed(bitnet_status status, const char *message) : std::runtime_error(message), status(status) {}
};

// Calls a function of the library with a place for its error.
template <typename Function, typename... Arguments>
void call(Function function, Arguments... arguments) {
    bitnet_error *error = nullptr;
    bitnet_status status = function(arguments..., &error);
    Error owned(error);
    if (status != BITNET_STATUS_OK) throw Failed(status, bitnet_error_message(owned.get(), nullptr));
}

Model load(uint32_t threads) {
    bitnet_load_options options{};
    options.size = sizeof options;
    options.threads = threads;
    bitnet_model *model = nullptr;
    call(bitnet_model_builtin, static_cast<const bitnet_load_options *>(&options), &model);
    return Model(model);
}

Session begin(const Model &model) {
    bitnet_session *session = nullptr;
    call(bitnet_session_new, static_cast<const bitnet_model *>(model.get()), &session);
    return Session(session);
}

std::string story(const Model &model, const std::string &prompt, uint64_t seed) {
    bitnet_generate_options options = options_of(model.get(), 16, 0.8f);
    options.seed = seed;
    std::string text;
    auto append = [](void *user, const bitnet_piece *piece) -> int32_t {
        static_cast<std::string *>(user)->append(piece->text.data, piece->text.len);
        return 0;
    };
    Session session = begin(model);
    call(bitnet_generate, session.get(), prompt.data(), prompt.size(),
         static_cast<const bitnet_generate_options *>(&options), static_cast<bitnet_on_piece>(append),
         static_cast<void *>(&text), static_cast<bitnet_result *>(nullptr));
    return text;
}

}  // namespace

int main() {
    Model model = load(2);
    // Threads that share a model have the texts that one thread has.
    std::vector<std::string> alone, together(4);
    for (uint64_t seed = 0; seed < 4; seed++) alone.push_back(story(model, "Once upon a time", seed));
    CHECK(alone[0] != alone[1] && !alone[0].empty());
    std::vector<std::thread> threads;
    for (uint64_t seed = 0; seed < 4; seed++) {
        threads.emplace_back([&, seed] { together[seed] = story(model, "Once upon a time", seed); });
    }
    for (auto &thread : threads) thread.join();
    CHECK(alone == together);
    CHECK(story(load(1), "Once upon a time", 2) == alone[2]);

    // An error is thrown on this side of the border.
    try {
        story(model, "\xff", 0);
        CHECK(false);
    } catch (const Failed &failed) {
        CHECK(failed.status == BITNET_STATUS_UTF8 && std::string(failed.what()).find("UTF-8") != std::string::npos);
    }

    // Another thread ends a text that would go on for long. Until then it finds the session busy.
    bitnet_cancel *token = nullptr;
    call(bitnet_cancel_new, &token);
    Cancel cancel(token);
    bitnet_generate_options options = options_of(model.get(), BITNET_NO_LIMIT, 0.8f);
    options.flags = BITNET_FLAG_IGNORE_EOS;
    options.cancel = cancel.get();
    Session session = begin(model);
    struct Meeting {
        std::atomic<size_t> pieces{0};
        std::atomic<bool> over{false};
    } meeting;
    auto count = [](void *user, const bitnet_piece *) -> int32_t {
        auto *meeting = static_cast<Meeting *>(user);
        if (meeting->pieces.fetch_add(1) + 1 == 3) {
            while (!meeting->over.load()) std::this_thread::yield();
        }
        return 0;
    };
    bitnet_result result{};
    result.size = sizeof result;
    std::thread generator([&] {
        call(bitnet_generate, session.get(), "Once", size_t{4}, static_cast<const bitnet_generate_options *>(&options),
             static_cast<bitnet_on_piece>(count), static_cast<void *>(&meeting), &result);
    });
    while (meeting.pieces.load() < 3) std::this_thread::yield();
    size_t len = 0;
    CHECK(bitnet_session_len(session.get(), &len, nullptr) == BITNET_STATUS_BUSY);
    call(bitnet_cancel_set, static_cast<const bitnet_cancel *>(cancel.get()));
    meeting.over.store(true);
    generator.join();
    CHECK(result.finish == BITNET_FINISH_CANCELLED && result.new_tokens == 3);
    std::puts("wrapper: ok");
    return 0;
}
