"""Uses the package as a program with types does; checked by mypy in its strict mode, not run."""

from pathlib import Path
from typing import assert_type

import ternary_lm
from ternary_lm import Extractor, Generation, Matrix, Model, Session

model = Model(Path("a.gguf"), threads=2, kv="q8")
assert_type(model.generate("a", max_tokens=3, stop=["b"]), str)
assert_type(model.stream([1, 2, 3], seed=1), Generation)
assert_type(model.chat([{"role": "user", "content": "a"}, ("user", "b")], temperature=0.0), str)
assert_type(model.embed(["a"]), Matrix)
assert_type(model.score("a", ["b"])[0].total, float)
assert_type(model.choose("a", ["b"], by="per_byte").text, str)
assert_type(model.info["context"], int | None)
session: Session = model.session()
pieces: list[str] = [piece for piece in session.generate("a", max_tokens=None)]
with session.chat([("user", "a")]) as generation:
    assert_type(next(generation), str)
assert_type(Extractor("a").extract("a").slots[0].start, int)
assert_type(ternary_lm.train(["a"], "b", vocabulary=300)["steps"], int)
try:
    model.generate("a")
except ternary_lm.ContextFull as error:
    assert_type(error.limit, int)
except ternary_lm.Unfinished as error:
    assert_type(error.text, str)

# What a checker has to refuse; an unused comment is an error in strict mode.
model.generate("a", max_token=3)  # type: ignore[call-arg]
model.choose("a", ["b"], by="luck")  # type: ignore[arg-type]
