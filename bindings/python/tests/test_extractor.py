"""Extractors answer as the native program does."""

import pytest
from conftest import EXTRACTOR, EXTRACTOR_JA, native

import ternary_lm

CASES = {
    EXTRACTOR: [
        "play some jazz by miles davis", "book a table for four at 7 pm in paris", "what is the weather in tokyo tomorrow",
        "", "zzz",
    ],
    EXTRACTOR_JA: ["青空文庫って知ってる?", "夏目漱石について教えて", "𠮷野家は好き？"],
}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_answers_are_those_of_the_program(path):
    numpy = pytest.importorskip("numpy")
    extractor = ternary_lm.Extractor(path)
    for text, found in zip(CASES[path], extractor.extract_many(CASES[path])):
        expected = native("extract", "-q", "-m", str(path), "--json", text)
        assert (found.text, found.intent, found.out_of_scope, found.cut) == (
            text, expected["intent"], expected["out_of_scope"], expected["cut"])
        # A number of 32 bits, in JSON with more or with fewer decimals.
        assert numpy.float32(found.confidence) == numpy.float32(expected["confidence"])
        assert [(slot.name, slot.value) for slot in found.slots] == [(s["name"], s["value"]) for s in expected["slots"]]
        for slot, other in zip(found.slots, expected["slots"]):
            assert text[slot.start : slot.end] == slot.value
            assert text.encode()[other["start"] : other["end"]].decode() == slot.value
            assert found.slot(slot.name) is not None
        assert repr(extractor.extract(text)) == repr(found)
        same, ranked = extractor.rank(text, most=3)
        assert repr(same) == repr(found) and len(ranked) == min(3, len(extractor.tasks[0]["intents"]))
        assert (ranked[0].intent, ranked[0].confidence) == (found.intent, found.confidence)
        assert ranked == sorted(ranked, key=lambda r: -r.confidence)


def test_tasks_and_vectors():
    numpy = pytest.importorskip("numpy")
    extractor = ternary_lm.Extractor(EXTRACTOR)
    names = [task["name"] for task in extractor.tasks]
    assert len(names) == 2 and all(task["intents"] for task in extractor.tasks)
    assert extractor.extract("what time is it", task=names[1]).intent in extractor.tasks[1]["intents"]
    with pytest.raises(ternary_lm.OptionError, match="no task 'weather'"):
        extractor.extract("a", task="weather")
    vectors = extractor.embed(["play some jazz", "play soem jazz", "what is the weather"]).numpy()
    expected = native("embed", "-q", "-m", str(EXTRACTOR), "--json", "play some jazz")["embeddings"][0]
    assert numpy.array_equal(vectors[0], numpy.array(expected, dtype=numpy.float32))
    # 192 or more squares in f32.
    assert numpy.allclose(numpy.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert extractor.extract("x" * 100_000).cut in (True, False) and extractor.extract("word " * 10_000).cut
