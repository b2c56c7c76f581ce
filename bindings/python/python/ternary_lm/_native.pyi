"""The types of the extension module."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Literal, TypeAlias, TypedDict

from typing_extensions import NotRequired, Unpack

__version__: str

_Path: TypeAlias = str | PathLike[str]
_Prompt: TypeAlias = str | Sequence[int]
_Message: TypeAlias = Mapping[str, Any] | tuple[str, str]
_By: TypeAlias = Literal["total", "per_token", "per_byte"]

class _Options(TypedDict, total=False):
    max_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repeat_penalty: float | None
    repeat_last_n: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    seed: int | None
    stop: str | Sequence[str] | None
    logit_bias: Mapping[int, float] | None
    logprobs: int | None
    json_schema: Any
    regex: str | None
    grammar: str | None
    ignore_eos: bool | None
    show_special: bool | None
    keep: int | None

class _Stats(TypedDict):
    prompt_tokens: int
    reused_tokens: int
    new_tokens: int
    forced_tokens: int
    prefill_s: float
    decode_s: float
    prefill_tok_s: float
    decode_tok_s: float

class _Info(TypedDict):
    name: str | None
    architecture: str
    format: str
    parameters: int
    layers: int
    hidden_size: int
    vocab_size: int
    context: int | None
    mixers: list[str]
    kv: str
    threads: int
    isa: str
    kernel: str
    weight_bytes: int
    bos_token: int | None
    eos_tokens: list[int]
    tokenizer: int | None
    chat: bool
    notes: list[str]

class _Task(TypedDict):
    name: str
    intents: list[str]
    slots: list[str]

class Matrix:
    """Rows of float32. `numpy.asarray(matrix)` is an array over the same memory, read-only, without a copy."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def __array_interface__(self) -> dict[str, Any]: ...
    def numpy(self) -> Any: ...
    def tolist(self) -> list[list[float]]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, row: int, /) -> list[float]: ...

class Score:
    """How likely a text is as a continuation: natural logarithms of probabilities."""

    @property
    def text(self) -> str: ...
    @property
    def ids(self) -> list[int]: ...
    @property
    def logprobs(self) -> list[float]: ...
    @property
    def total(self) -> float: ...
    @property
    def per_token(self) -> float: ...
    @property
    def per_byte(self) -> float: ...

class Choice:
    """The likeliest of several texts, with the shares of all."""

    @property
    def index(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def probability(self) -> float: ...
    @property
    def probabilities(self) -> list[float]: ...
    @property
    def scores(self) -> list[Score]: ...

class Generation(Iterator[str]):
    """A text that is being generated: iterate over its pieces. Its session is busy until it ends or is closed."""

    def __iter__(self) -> Generation: ...
    def __next__(self) -> str: ...
    def finish(self) -> str:
        """Generates to the end; the whole text."""
    def cancel(self) -> None:
        """Has the next step be the last; from any thread."""
    def close(self) -> None:
        """Ends it here. The session keeps what was generated."""
    def __enter__(self) -> Generation: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    @property
    def text(self) -> str: ...
    @property
    def ids(self) -> list[int]: ...
    @property
    def finish_reason(self) -> Literal["stop", "length", "cancelled"] | None: ...
    @property
    def logprobs(self) -> list[tuple[int, float | None, list[tuple[int, float]]]]: ...
    @property
    def stats(self) -> _Stats: ...

class Session:
    """One text with a model: prompts and what was generated, with the model's state for them. One thread at a time."""

    def generate(self, prompt: _Prompt, **options: Unpack[_Options]) -> Generation:
        """Goes on with a text, or with tokens, and generates."""
    def chat(self, messages: Iterable[_Message], **options: Unpack[_Options]) -> Generation:
        """Generates the reply to a conversation. What the session holds of it is not read again."""
    def json(self, prompt: _Prompt, schema: Any, **options: Unpack[_Options]) -> Any:
        """A value of a JSON Schema: a dict, a text of JSON, or a pydantic class, which makes the value."""
    def choose(self, choices: Sequence[str], *, by: _By = "total") -> Choice:
        """The likeliest of several texts to follow. The session stays as it is."""
    def score(self, continuations: Sequence[str]) -> list[Score]:
        """How likely each text is to follow. The session stays as it is."""
    def feed(self, prompt: _Prompt) -> None:
        """Reads a text, or tokens, without generating."""
    def fork(self) -> Session:
        """A session that goes on independently with the same text."""
    def rewind(self, length: int) -> None:
        """Forgets everything from token `length` on."""
    def clear(self) -> None: ...
    def save(self, path: _Path) -> None:
        """Writes the session to a file, whole or not at all; `Model.load_session` goes on from it."""
    def to_bytes(self) -> bytes: ...
    @property
    def tokens(self) -> list[int]: ...
    @property
    def text(self) -> str: ...
    @property
    def remaining(self) -> int | None: ...
    @property
    def state_bytes(self) -> int: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...

class Model:
    """A model: immutable, and used from any number of threads at the same time."""

    def __new__(
        cls,
        path: _Path | None = None,
        *,
        threads: int | None = None,
        context: int | None = None,
        kv: Literal["f32", "f16", "bf16", "q8", "q4"] | None = None,
        tokenizer: _Path | None = None,
        chat_template: str | None = None,
    ) -> Model:
        """A GGUF file or a folder; without a path the small model of stories in the package."""
    def generate(self, prompt: _Prompt, **options: Unpack[_Options]) -> str: ...
    def stream(self, prompt: _Prompt, **options: Unpack[_Options]) -> Generation: ...
    def chat(self, messages: Iterable[_Message], **options: Unpack[_Options]) -> str: ...
    def stream_chat(self, messages: Iterable[_Message], **options: Unpack[_Options]) -> Generation: ...
    def json(self, prompt: _Prompt, schema: Any, **options: Unpack[_Options]) -> Any:
        """A value of a JSON Schema: a dict, a text of JSON, or a pydantic class, which makes the value."""
    def choose(self, prompt: str, choices: Sequence[str], *, by: _By = "total") -> Choice: ...
    def score(self, prompt: str, continuations: Sequence[str]) -> list[Score]: ...
    def embed(
        self,
        texts: str | Iterable[str],
        *,
        normalize: bool = True,
        pooling: Literal["mean", "first", "last"] | None = None,
    ) -> Matrix:
        """The vectors of texts, a row for each."""
    def logits(self, prompt: _Prompt) -> Matrix:
        """The logits after each token: a row of the whole vocabulary for each. Keys and values are f32."""
    def tokenize(self, text: str, *, bos: bool | None = None) -> list[int]: ...
    def detokenize(self, ids: Sequence[int]) -> str: ...
    def tokenize_chat(self, messages: Iterable[_Message]) -> list[int]: ...
    def session(self) -> Session: ...
    def load_session(self, path: _Path) -> Session: ...
    def restore_session(self, state: bytes) -> Session: ...
    @property
    def info(self) -> _Info: ...

class Slot:
    """A part of an utterance that fills a slot: `text[slot.start:slot.end] == slot.value`."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...

class RankedIntent:
    @property
    def intent(self) -> str: ...
    @property
    def confidence(self) -> float: ...

class Extraction:
    """Intent and slots of an utterance."""

    @property
    def text(self) -> str: ...
    @property
    def intent(self) -> str: ...
    @property
    def confidence(self) -> float: ...
    @property
    def out_of_scope(self) -> bool: ...
    @property
    def slots(self) -> list[Slot]: ...
    @property
    def cut(self) -> bool: ...
    def slot(self, name: str) -> str | None:
        """The value of the first slot of this name."""

class Extractor:
    """A small encoder that names intent and slots of utterances; used from any number of threads."""

    def __new__(cls, path: _Path) -> Extractor: ...
    def extract(self, text: str, *, task: str | None = None) -> Extraction: ...
    def rank(
        self, text: str, *, most: int = 5, task: str | None = None
    ) -> tuple[Extraction, list[RankedIntent]]: ...
    def extract_many(self, texts: Iterable[str], *, task: str | None = None) -> list[Extraction]: ...
    def embed(self, texts: str | Iterable[str]) -> Matrix: ...
    @property
    def tasks(self) -> list[_Task]: ...

class _Trained(TypedDict):
    finish: Literal["completed", "early_stop", "interrupted"]
    steps: int
    export: str
    best_nats_per_token: NotRequired[float | None]
    notes: NotRequired[list[str]]
    best_step: NotRequired[int]
    tasks: NotRequired[dict[str, Any]]

def train(
    data: Sequence[_Path],
    out: _Path,
    *,
    tokenizer: _Path | None = None,
    vocabulary: int | None = None,
    model: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    validation: float = 0.02,
    resume: bool = False,
    on_event: Callable[[dict[str, Any]], object] | None = None,
) -> _Trained:
    """Trains a language model on text files. `model` has keys of a `config.json`, `options` those of a checkpoint's
    configuration (`steps`, `batch`, `context`, `schedule` ...). Ctrl-C writes a checkpoint; `resume=True` goes on."""

def train_extractor(
    data: dict[str, Sequence[_Path]],
    out: _Path,
    *,
    options: dict[str, Any] | None = None,
    validation: float = 0.1,
    resume: bool = False,
    on_event: Callable[[dict[str, Any]], object] | None = None,
) -> _Trained:
    """Trains an extractor on utterances (JSON lines), a task for each name in `data`."""
