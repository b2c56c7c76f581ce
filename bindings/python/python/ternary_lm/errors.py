"""What can go wrong, by kind. All are a `BitnetError`, with the words of the library."""

from __future__ import annotations


class BitnetError(Exception):
    """Any error of this package."""


class LoadError(BitnetError):
    """A model's files: missing, damaged, or of a kind that is not supported."""


class FileError(BitnetError):
    """Another file that cannot be read or written."""


class ModelError(BitnetError):
    """A model and its use: a token that it does not have, an empty prompt, weights that make no numbers."""


class ContextFull(ModelError):
    """More tokens than the context holds."""

    limit: int
    used: int
    more: int

    def __init__(self, message: str, limit: int = 0, used: int = 0, more: int = 0) -> None:
        super().__init__(message)
        self.limit, self.used, self.more = limit, used, more


class SessionError(ModelError):
    """A saved session of another model or damaged, or a session that cannot go back."""


class TokenizerError(BitnetError):
    """A tokenizer that is missing, or a text that it cannot read."""


class ChatTemplateError(BitnetError):
    """A chat template that is missing or fails."""


class OptionError(BitnetError, ValueError):
    """An option out of its range."""


class ConstraintError(BitnetError, ValueError):
    """A schema, a regular expression or a grammar that cannot be used."""


class Unfinished(ConstraintError):
    """A text that ended before it satisfied its constraint; `text` is what there is of it."""

    text: str
    finish_reason: str

    def __init__(self, message: str, text: str = "", finish_reason: str = "") -> None:
        super().__init__(message)
        self.text, self.finish_reason = text, finish_reason


class Busy(BitnetError, RuntimeError):
    """A session in which a text is being generated, or a generation that another thread steps."""


class TrainingError(BitnetError):
    """A run of training."""
