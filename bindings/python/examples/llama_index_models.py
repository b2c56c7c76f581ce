"""LlamaIndex over a model in this process: a language model and embeddings. Copy it into a program; it needs
`llama-index-core`.

    Settings.llm = TernaryLLM(path="model.gguf")
    Settings.embed_model = TernaryEmbedding(path="embedding.gguf")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.custom import CustomLLM

from ternary_lm import Model


class TernaryLLM(CustomLLM):
    """A language model. Without a chat template, a chat is the text of its messages."""

    path: str | None = None
    chat_template: str | None = None
    threads: int | None = None
    max_tokens: int = 256
    temperature: float | None = None
    seed: int | None = None
    _model: Model = PrivateAttr()

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self._model = Model(self.path, chat_template=self.chat_template, threads=self.threads)

    @property
    def metadata(self) -> LLMMetadata:
        info = self._model.info
        return LLMMetadata(
            context_window=info["context"] or 1 << 20,
            num_output=self.max_tokens,
            model_name=info["name"] or info["architecture"],
            is_chat_model=info["chat"],
        )

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        # LlamaIndex says with it whether a prompt is formatted already; a text is taken as it is.
        options.pop("formatted", None)
        return {"max_tokens": self.max_tokens, "temperature": self.temperature, "seed": self.seed, **options}

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **options: Any) -> CompletionResponse:
        return CompletionResponse(text=self._model.generate(prompt, **self._options(options)))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **options: Any) -> CompletionResponseGen:
        def pieces() -> CompletionResponseGen:
            text = ""
            with self._model.stream(prompt, **self._options(options)) as generation:
                for piece in generation:
                    text += piece
                    yield CompletionResponse(text=text, delta=piece)

        return pieces()

    def _plain(self, messages: Sequence[ChatMessage]) -> list[tuple[str, str]]:
        return [(message.role.value, message.content or "") for message in messages]

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **options: Any) -> ChatResponse:
        if not self.metadata.is_chat_model:
            return super().chat(messages, **options)
        text = self._model.chat(self._plain(messages), **self._options(options))
        return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=text))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **options: Any) -> ChatResponseGen:
        if not self.metadata.is_chat_model:
            return super().stream_chat(messages, **options)

        def pieces() -> ChatResponseGen:
            text = ""
            with self._model.stream_chat(self._plain(messages), **self._options(options)) as generation:
                for piece in generation:
                    text += piece
                    yield ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=text), delta=piece)

        return pieces()


class TernaryEmbedding(BaseEmbedding):
    """Vectors of length 1. `query` goes before a query, where the model's card asks for an instruction."""

    path: str | None = None
    query: str = ""
    _model: Model = PrivateAttr()

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self._model = Model(self.path)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._model.embed(self.query + query)[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._model.embed(text)[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._model.embed(texts).tolist()
