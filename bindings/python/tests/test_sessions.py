"""Sessions: what follows, what is kept, and who has them."""

import threading

import pytest
from conftest import STORIES, TTT, load

import ternary_lm

GREEDY = {"max_tokens": 24, "temperature": 0.0}


@pytest.fixture(params=[TTT, STORIES], ids=lambda path: path.stem)
def any_model(request):
    return load(request.param)


def test_a_session_goes_on_as_if_it_were_one_text(any_model):
    session = any_model.session()
    session.feed("Once upon a time")
    length = len(session)
    text = session.generate(" there was a", **GREEDY).finish()
    assert text == any_model.generate("Once upon a time there was a", **GREEDY)
    assert length < len(session) == len(session.tokens)
    assert session.text.startswith("Once upon a time there was a")
    assert session.state_bytes > 0 and bool(any_model.session())


def test_a_fork_is_independent(any_model):
    session = any_model.session()
    session.feed("Lily had a red ball.")
    fork = session.fork()
    first = session.generate(" She", **GREEDY).finish()
    assert fork.generate(" She", **GREEDY).finish() == first
    assert fork.generate(" Then", **GREEDY).finish() and len(fork) > len(session)


def test_a_saved_session_goes_on(any_model, tmp_path):
    session = any_model.session()
    session.generate("Ben went to the park", **GREEDY).finish()
    session.save(tmp_path / "a.session")
    state = session.to_bytes()
    expected = session.generate(" and", **GREEDY).finish()
    for again in (any_model.load_session(tmp_path / "a.session"), any_model.restore_session(state)):
        assert again.generate(" and", **GREEDY).finish() == expected
        assert again.tokens == session.tokens
    damaged = bytearray(state)
    damaged[len(damaged) // 2] ^= 1
    with pytest.raises(ternary_lm.SessionError, match="saved sequence"):
        any_model.restore_session(bytes(damaged))
    with pytest.raises(ternary_lm.FileError):
        any_model.load_session(tmp_path / "none.session")


def test_a_session_goes_back(stories):
    session = stories.session()
    session.feed("Once upon a time")
    length = len(session)
    first = session.generate(" there", **GREEDY).finish()
    session.rewind(length)
    assert len(session) == length and session.generate(" there", **GREEDY).finish() == first
    session.clear()
    assert len(session) == 0 and session.tokens == []


def test_who_leaves_the_loop_ends_the_generation(any_model):
    session = any_model.session()
    for _ in session.generate("Once upon a time", max_tokens=200):
        break
    # The generation is gone with its last reference, and the session is free.
    assert len(session) > 0
    with session.generate(" and", max_tokens=200) as generation:
        next(generation)
        with pytest.raises(ternary_lm.Busy, match="being generated"):
            session.feed("more")
        with pytest.raises(ternary_lm.Busy):
            len(session)
        assert "generating" in repr(session)
    assert generation.finish_reason == "cancelled" and list(generation) == []
    session.feed("more")


def test_an_iterator_ends_and_stays_ended(any_model):
    generation = any_model.stream("Once", max_tokens=3)
    assert iter(generation) is generation
    assert "".join(generation) == generation.text and len(generation.ids) == 3
    assert generation.finish_reason == "length" and list(generation) == []
    assert generation.finish() == generation.text
    assert any_model.generate("Once", max_tokens=0) == ""


def test_another_thread_cancels(stories):
    generation = stories.stream("Once upon a time", max_tokens=400, ignore_eos=True)
    assert next(generation)
    thread = threading.Thread(target=generation.cancel)
    thread.start()
    thread.join()
    assert len(list(generation)) <= 1 and generation.finish_reason == "cancelled"


def test_log_probabilities(stories):
    generation = stories.stream("Once upon a", max_tokens=5, temperature=0.0, logprobs=3)
    generation.finish()
    assert [token for token, _, _ in generation.logprobs] == generation.ids
    for token, logprob, top in generation.logprobs:
        assert len(top) == 3 and top[0] == (token, logprob) and top[0][1] >= top[1][1] >= top[2][1]


def test_stop_texts_and_biases(stories):
    text = stories.generate("Once upon a time", max_tokens=100, temperature=0.0)
    stop = text[10:14]
    assert stories.generate("Once upon a time", max_tokens=100, temperature=0.0, stop=stop) == text[: text.index(stop)]
    assert stories.generate("Once upon a time", max_tokens=100, temperature=0.0, stop=["@@", stop]) == text[: text.index(stop)]
    first = stories.stream("Once upon a time", max_tokens=1, temperature=0.0)
    first.finish()
    other = stories.stream("Once upon a time", max_tokens=1, temperature=0.0, logit_bias={first.ids[0]: float("-inf")})
    other.finish()
    assert first.ids != other.ids


def test_chats():
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}Ben:{% endif %}"
    model = ternary_lm.Model(STORIES, chat_template=template)
    assert model.info["chat"]
    messages = [{"role": "Lily", "content": "Do you like cats?"}, ("Tom", "I do.")]
    prompt = "Lily: Do you like cats?\nTom: I do.\nBen:"
    # What begins a text is for the template to say.
    ids = model.tokenize(prompt, bos=False)
    assert model.tokenize_chat(messages) == ids
    reply = model.chat(messages, **GREEDY)
    assert reply == model.generate(ids, **GREEDY) == "".join(model.stream_chat(messages, **GREEDY))
    session = model.session()
    assert session.chat(messages, **GREEDY).finish() == reply
    generation = session.chat([*messages, ("Ben", "Me, too.")], **GREEDY)
    generation.finish()
    # What the session holds of the conversation was not read again.
    assert generation.stats["reused_tokens"] > 10


def test_a_context_that_moves_on():
    model = ternary_lm.Model(STORIES, context=48)
    assert model.info["context"] == 48
    text = "Once upon a time there was a little dog. " * 3
    assert len(model.tokenize(model.generate("Once upon a time", max_tokens=90, ignore_eos=True))) < 50
    generation = model.stream("Once upon a time", max_tokens=90, ignore_eos=True, keep=4)
    generation.finish()
    assert len(generation.ids) == 90
    with pytest.raises(ternary_lm.ContextFull, match="the context holds 48 tokens") as error:
        model.generate(text * 3)
    assert error.value.limit == 48 and error.value.more > 48 and error.value.used == 0
