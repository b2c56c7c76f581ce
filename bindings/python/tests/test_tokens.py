"""Tokens, texts, scores, vectors and logits are those of the native program and of the reference vectors."""

import itertools

import pytest
from conftest import JAPANESE, STORIES, TTT, fixtures, load, native, tensors

import ternary_lm

PROMPTS = {
    TTT: ["Once upon a time", "Lily had a red ball. é你好"],
    STORIES: ["Once upon a time", "The dog"],
    JAPANESE: ["吾輩は猫である。", "メロスは"],
}
SAMPLING = [
    {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "seed": 0},
    {"temperature": 0.9, "top_p": 0.95, "top_k": 40, "min_p": 0.02, "seed": 7},
    {"temperature": 1.2, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "seed": 123456789, "presence_penalty": 0.2,
     "frequency_penalty": 0.1},
]
TOKENS = 96


def arguments(sampling):
    return itertools.chain.from_iterable((f"--{name.replace('_', '-')}", str(value)) for name, value in sampling.items())


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("path", PROMPTS, ids=lambda path: path.stem)
def test_tokens_are_those_of_the_program(path, sampling):
    model = load(path)
    for prompt in PROMPTS[path]:
        args = ["run", "-q", "-m", str(path), "--json", "-n", str(TOKENS), *arguments(sampling), "-p", prompt]
        expected = native(*args)
        generation = model.stream(prompt, max_tokens=TOKENS, **sampling)
        pieces = list(generation)
        assert generation.ids == expected["ids"], prompt
        assert "".join(pieces) == generation.text == expected["text"]
        assert generation.finish_reason == expected["finish_reason"]
        assert generation.stats["new_tokens"] == len(expected["ids"])
        assert all(pieces), "no piece is empty"
        assert model.generate(prompt, max_tokens=TOKENS, **sampling) == expected["text"]


def test_the_model_in_the_package_is_the_one_in_the_repository(model):
    sampling = SAMPLING[1]
    assert model.generate("One day", max_tokens=40, **sampling) == load(TTT).generate("One day", max_tokens=40, **sampling)


def test_a_limit_within_a_character_ends_the_text_before_it():
    model, divided = load(JAPANESE), 0
    for tokens in range(1, 13):
        args = ["run", "-q", "-m", str(JAPANESE), "--json", "-n", str(tokens), "--temperature", "1", "--top-p", "1"]
        expected = native(*args, "--seed", "2", "-p", "吾輩は猫である。")
        text = model.generate("吾輩は猫である。", max_tokens=tokens, temperature=1.0, top_p=1.0, seed=2)
        assert text == expected["text"] and "\ufffd" not in text
        divided += "incomplete" in expected
    assert divided > 0, "no text was cut within a character"


def test_constraints(stories):
    regex = r"[A-Z][a-z]{2,8} (saw|had) a (red|blue) (ball|car)\."
    args = ["run", "-q", "-m", str(STORIES), "--json", "--temperature", "0", "--regex", regex, "-p", "Once upon a time."]
    generation = stories.stream("Once upon a time.", temperature=0.0, regex=regex)
    assert generation.finish() == native(*args)["text"] and generation.ids == native(*args)["ids"]
    grammar = 'start: "It is " ("big" | "small") "."'
    assert stories.generate("The dog.", grammar=grammar) in ("It is big.", "It is small.")


def test_tokenize_is_that_of_the_program(stories):
    text = "Once upon a time, Ben's dog \N{SNOWMAN}"
    ids = stories.tokenize(text)
    assert native("tokenize", "-q", "-m", str(STORIES), "--json", text)["ids"] in (ids, stories.tokenize(text, bos=False))
    assert stories.detokenize(ids) == text


def test_tokens_as_a_prompt(stories):
    options = {"max_tokens": 24, "temperature": 0.0}
    assert stories.generate(stories.tokenize("The dog"), **options) == stories.generate("The dog", **options)


def test_scores_and_choices(stories):
    prompt, texts = "The sun is in the", [" sky", " shoe", " sky."]
    scores = stories.score(prompt, texts)
    assert [score.text for score in scores] == texts
    # The definition: the logarithm of the softmax of the logits before each token.
    numpy = pytest.importorskip("numpy")
    for text, score in zip(texts, scores):
        ids = stories.tokenize(prompt + text)
        logits = numpy.asarray(stories.logits(ids), dtype=numpy.float64)
        assert ids[-len(score.ids):] == score.ids
        for token, logprob, row in zip(score.ids, score.logprobs, logits[-len(score.ids) - 1 : -1]):
            # Scores are computed with keys and values of half precision, logits with single precision.
            exact = row[token] - row.max() - numpy.log(numpy.exp(row - row.max()).sum())
            assert abs(exact - logprob) < 0.02
        assert score.total == pytest.approx(sum(score.logprobs))
        assert score.per_byte == pytest.approx(score.total / len(text.encode()))
    choice = stories.choose(prompt, texts[:2])
    assert (choice.index, choice.text, str(choice)) == (0, " sky", " sky")
    assert sum(choice.probabilities) == pytest.approx(1) and choice.probability == choice.probabilities[0]
    session = stories.session()
    session.feed(prompt)
    assert session.choose(texts[:2]).probabilities == choice.probabilities
    assert [s.total for s in session.score(texts[:2])] == [s.total for s in scores[:2]]


def test_vectors_are_those_of_the_program(stories):
    numpy = pytest.importorskip("numpy")
    texts = ["a cat", "a kitten", "a train", "Ben played with a red ball all day long."]
    expected = native("embed", "-q", "-m", str(STORIES), "--json", *texts)
    vectors = stories.embed(texts)
    assert vectors.shape == (4, expected["dimensions"]) and len(vectors) == 4
    # The program writes shortest decimals of f32.
    assert numpy.array_equal(numpy.asarray(vectors), numpy.array(expected["embeddings"], dtype=numpy.float32))
    assert vectors.tolist()[1] == vectors[1] == vectors[-3]
    assert numpy.array_equal(stories.embed("a cat").numpy()[0], vectors.numpy()[0])
    plain = stories.embed(texts, normalize=False, pooling="last").numpy()
    assert not numpy.allclose(numpy.linalg.norm(plain, axis=1), 1)


@pytest.mark.parametrize(
    ("case", "tensor", "tolerance"),
    [
        ("stable_tiny/packed", "logits_packed_f32", 1e-4),
        ("stable_tiny/master", "logits_master_f32", 1e-4),
        ("gqa_tied_768/packed", "logits_packed_f32", 1e-3),
        ("mha_untied_640/packed", "logits_packed_f32", 1e-3),
    ],
)
def test_logits_are_those_of_the_reference(case, tensor, tolerance):
    """Within the tolerances that the fixtures state for any f32 implementation."""
    numpy = pytest.importorskip("numpy")
    folder = fixtures("bitnet")
    expected = tensors(folder / case.split("/")[0] / "expected.safetensors")
    model = ternary_lm.Model(folder / case)
    logits = numpy.asarray(model.logits([int(token) for token in expected["input_ids"].reshape(-1)]))
    reference = expected[tensor].reshape(logits.shape)
    assert numpy.abs(logits - reference).max() <= tolerance


def test_logits_are_not_copied(model):
    numpy = pytest.importorskip("numpy")
    logits = model.logits("Once upon a time")
    array = numpy.asarray(logits)
    address, read_only = logits.__array_interface__["data"]
    assert array.ctypes.data == address and read_only and not array.flags.writeable
    assert array.dtype == numpy.float32 and array.shape == logits.shape == (len(logits), model.info["vocab_size"])
    assert numpy.shares_memory(array, logits.numpy())
    # The array keeps the memory alive.
    first = array[0].tolist()
    assert first == logits[0]
    del logits
    import gc

    gc.collect()
    assert array[0].tolist() == first
