"""Ternary (1.58-bit, BitNet b1.58) language models in process, on ordinary CPUs.

>>> from ternary_lm import Model
>>> model = Model()  # the small model of stories in the package; or Model("model.gguf")
>>> story = model.generate("Once upon a time", max_tokens=12, temperature=0.0)
>>> len(model.tokenize(story, bos=False)) > 0
True

Pieces as they come:

>>> pieces = model.stream("Once upon a time", max_tokens=12, temperature=0.0)
>>> "".join(pieces) == story and pieces.finish_reason
'length'

A value of a JSON Schema, whatever the model would rather say:

>>> animal = model.json("Ben has a pet. ", {
...     "type": "object",
...     "properties": {"kind": {"enum": ["cat", "dog"]}, "age": {"type": "integer", "minimum": 0, "maximum": 30}},
...     "required": ["kind", "age"],
... }, temperature=0.0, max_tokens=60)
>>> animal["kind"] in ("cat", "dog") and 0 <= animal["age"] <= 30
True

The likeliest of several texts:

>>> model.choose("The sun is in the", [" sky", " shoe"]).text
' sky'

A text that goes on, and one that branches off:

>>> session = model.session()
>>> session.feed("Lily had a red ball.")
>>> other = session.fork()
>>> session.generate(" She", max_tokens=4).finish() != ""
True
>>> len(session) > len(other)
True
"""

from ._native import (
    Choice,
    Extraction,
    Extractor,
    Generation,
    Matrix,
    Model,
    RankedIntent,
    Score,
    Session,
    Slot,
    __version__,
    train,
    train_extractor,
)
from .errors import (
    BitnetError,
    Busy,
    ChatTemplateError,
    ConstraintError,
    ContextFull,
    FileError,
    LoadError,
    ModelError,
    OptionError,
    SessionError,
    TokenizerError,
    TrainingError,
    Unfinished,
)

__all__ = [
    "BitnetError",
    "Busy",
    "ChatTemplateError",
    "Choice",
    "ConstraintError",
    "ContextFull",
    "Extraction",
    "Extractor",
    "FileError",
    "Generation",
    "LoadError",
    "Matrix",
    "Model",
    "ModelError",
    "OptionError",
    "RankedIntent",
    "Score",
    "Session",
    "SessionError",
    "Slot",
    "TokenizerError",
    "TrainingError",
    "Unfinished",
    "__version__",
    "train",
    "train_extractor",
]
