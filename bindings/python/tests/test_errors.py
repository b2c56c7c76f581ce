"""Errors by kind, with the words of the library."""

import pickle

import pytest
from conftest import EXTRACTOR, STORIES, TTT

import ternary_lm


def test_files_that_are_no_models(tmp_path):
    with pytest.raises(ternary_lm.LoadError, match="none.gguf"):
        ternary_lm.Model(tmp_path / "none.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"not a model at all")
    with pytest.raises(ternary_lm.LoadError, match="bad.gguf"):
        ternary_lm.Model(str(tmp_path / "bad.gguf"))
    (tmp_path / "cut.gguf").write_bytes(TTT.read_bytes()[:100_000])
    with pytest.raises(ternary_lm.BitnetError):
        ternary_lm.Model(tmp_path / "cut.gguf")
    with pytest.raises(ternary_lm.LoadError):
        ternary_lm.Model(EXTRACTOR)
    with pytest.raises(ternary_lm.LoadError):
        ternary_lm.Extractor(STORIES)
    with pytest.raises(ternary_lm.OptionError, match="kv is \"f64\"; it must be one of f32, f16, bf16, q8, q4"):
        ternary_lm.Model(kv="f64")
    with pytest.raises(TypeError):
        ternary_lm.Model(3)


def test_kinds(model, stories):
    with pytest.raises(ternary_lm.ModelError, match="outside the vocabulary"):
        stories.generate([1, 2**31])
    with pytest.raises(ternary_lm.ChatTemplateError, match="no chat template"):
        model.chat([("user", "hello")])
    with pytest.raises(ternary_lm.OptionError, match="no choices given"):
        stories.choose("Once", [])
    with pytest.raises(ternary_lm.OptionError, match="by is"):
        stories.choose("Once", [" a"], by="luck")
    with pytest.raises(ternary_lm.OptionError, match="pooling is"):
        stories.embed("Once", pooling="max")
    with pytest.raises(IndexError):
        model.logits("Once")[99]
    for prompt in (3, None, ["Once"], {"a": 1}):
        with pytest.raises(TypeError, match="a prompt is"):
            stories.generate(prompt)
    for messages in ("hello", {"role": "user", "content": "hello"}, [3], [{"role": "user"}]):
        with pytest.raises(TypeError, match="message"):
            stories.chat(messages)


def test_errors_survive_a_pool_of_processes():
    full = ternary_lm.ContextFull("full", 4, 3, 2)
    again = pickle.loads(pickle.dumps(full))
    assert (str(again), again.limit, again.used, again.more) == ("full", 4, 3, 2)
    unfinished = pickle.loads(pickle.dumps(ternary_lm.Unfinished("cut", "{", "length")))
    assert (str(unfinished), unfinished.text, unfinished.finish_reason) == ("cut", "{", "length")


def test_every_kind_is_an_error_of_the_package():
    kinds = [getattr(ternary_lm, name) for name in ternary_lm.__all__]
    errors = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(errors) == 13 and all(issubclass(kind, ternary_lm.BitnetError) and kind.__doc__ for kind in errors)


def test_the_words_are_those_of_the_program(tmp_path):
    from conftest import native

    path = tmp_path / "bad.gguf"
    path.write_bytes(b"not a model at all")
    with pytest.raises(AssertionError) as program:
        native("run", "-q", "-m", str(path), "--json", "-p", "a")
    with pytest.raises(ternary_lm.LoadError) as package:
        ternary_lm.Model(path)
    assert str(package.value) in str(program.value)
