"""LangChain over a model in this process: a chat model and embeddings. Copy it into a program; it needs `langchain-core`.

    chat = TernaryChat(model="model.gguf")
    chat.invoke("What is the capital of France?")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import ConfigDict, PrivateAttr

from ternary_lm import Generation, Model

ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}


def plain(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Messages as the model's chat template reads them."""
    return [{"role": ROLES.get(m.type, m.type), "content": m.text} for m in messages]


class TernaryChat(BaseChatModel):
    """A chat model. `path` is a file or a folder; options of generation are fields or go with a call."""

    path: str | None = None
    chat_template: str | None = None
    threads: int | None = None
    max_tokens: int | None = 256
    temperature: float | None = None
    seed: int | None = None
    _model: Model = PrivateAttr()
    model_config = ConfigDict(arbitrary_types_allowed=True)

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._model = Model(self.path, chat_template=self.chat_template, threads=self.threads)

    @property
    def _llm_type(self) -> str:
        return "ternary-lm"

    def _begin(self, messages: Sequence[BaseMessage], stop: list[str] | None, options: dict[str, Any]) -> Generation:
        own = {"max_tokens": self.max_tokens, "temperature": self.temperature, "seed": self.seed}
        return self._model.stream_chat(plain(messages), **{**own, "stop": stop, **options})

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **options: Any,
    ) -> ChatResult:
        generation = self._begin(messages, stop, options)
        text, stats = generation.finish(), generation.stats
        read, new = stats["prompt_tokens"], stats["new_tokens"]
        usage = {"input_tokens": read, "output_tokens": new, "total_tokens": read + new}
        about = {"finish_reason": generation.finish_reason}
        message = AIMessage(content=text, usage_metadata=usage, response_metadata=about)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **options: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with self._begin(messages, stop, options) as generation:
            for piece in generation:
                chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
                if run_manager:
                    run_manager.on_llm_new_token(piece, chunk=chunk)
                yield chunk

    def with_structured_output(self, schema: Any, **options: Any) -> Runnable[Any, Any]:
        """Values of a JSON Schema, or of a pydantic class; the text cannot be anything else."""

        def validated(message: AIMessage) -> Any:
            import json

            as_class = getattr(schema, "model_validate_json", None)
            return as_class(message.text) if as_class else json.loads(message.text)

        return self.bind(json_schema=schema) | RunnableLambda(validated)


class TernaryEmbeddings(Embeddings):
    """Vectors of length 1. `query` goes before a query, where the model's card asks for an instruction."""

    def __init__(self, path: str | None = None, *, query: str = "", threads: int | None = None) -> None:
        self.model, self.query = Model(path, threads=threads), query

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.model.embed(texts).tolist() if texts else []

    def embed_query(self, text: str) -> list[float]:
        return self.model.embed(self.query + text)[0]
