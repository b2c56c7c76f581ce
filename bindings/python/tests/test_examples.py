"""The examples, with the packages that they are for."""

import asyncio
import sys

import pytest
from conftest import ROOT, STORIES, load
from pydantic import BaseModel, Field

sys.path.insert(0, str(ROOT / "bindings/python/examples"))

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
TEXT = "system: Be kind.\nuser: Hello, dog.\nassistant:"
OPTIONS = {"max_tokens": 20, "temperature": 0.0}


class Animal(BaseModel):
    big: bool
    legs: int = Field(ge=0, le=8)


def expected(**more):
    """The reply; what begins a text is for the template to say."""
    return load(STORIES).generate(load(STORIES).tokenize(TEXT, bos=False), **OPTIONS, **more)


def completed():
    return load(STORIES).generate(TEXT, **OPTIONS)


def test_langchain():
    from langchain_core.messages import HumanMessage, SystemMessage
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_models import TernaryChat

    chat = TernaryChat(path=str(STORIES), chat_template=TEMPLATE, **OPTIONS)
    messages = [SystemMessage("Be kind."), HumanMessage("Hello, dog.")]
    answer = chat.invoke(messages)
    assert answer.content == expected() and answer.usage_metadata["output_tokens"] == 20
    assert answer.response_metadata["finish_reason"] == "length"
    pieces = [chunk.content for chunk in chat.stream(messages)]
    assert "".join(pieces) == expected() and len(pieces) > 3
    stop = expected()[6:9]
    assert chat.invoke(messages, stop=[stop]).content == expected(stop=stop)
    # A chain, several at once, and asynchronously.
    chain = ChatPromptTemplate([("system", "Be kind."), ("user", "{what}")]) | chat | StrOutputParser()
    assert chain.invoke({"what": "Hello, dog."}) == expected()
    assert chain.batch([{"what": "Hello, dog."}] * 3) == [expected()] * 3
    assert asyncio.run(chain.ainvoke({"what": "Hello, dog."})) == expected()
    value = chat.with_structured_output(Animal).invoke("A dog.", max_tokens=60)
    assert isinstance(value, Animal)


def test_langchain_embeddings():
    from langchain_core.vectorstores import InMemoryVectorStore
    from langchain_models import TernaryEmbeddings

    embeddings = TernaryEmbeddings(str(STORIES), query="")
    texts = ["The dog ran in the park.", "A red ball is on the bed.", "Mom made a cake."]
    assert embeddings.embed_documents(texts) == load(STORIES).embed(texts).tolist()
    assert embeddings.embed_documents([]) == []
    store = InMemoryVectorStore.from_texts(texts, embeddings)
    assert store.similarity_search(texts[1], k=1)[0].page_content == texts[1]


def test_llama_index():
    from llama_index.core.llms import ChatMessage
    from llama_index_models import TernaryLLM

    llm = TernaryLLM(path=str(STORIES), chat_template=TEMPLATE, **OPTIONS)
    assert llm.metadata.is_chat_model and llm.metadata.num_output == 20
    assert llm.complete(TEXT).text == completed()
    assert "".join(part.delta for part in llm.stream_complete(TEXT)) == completed()
    messages = [ChatMessage(role="system", content="Be kind."), ChatMessage(role="user", content="Hello, dog.")]
    assert llm.chat(messages).message.content == expected()
    parts = list(llm.stream_chat(messages))
    assert parts[-1].message.content == expected() and len(parts) > 3
    assert asyncio.run(llm.acomplete(TEXT)).text == completed()
    assert TernaryLLM(path=str(STORIES), **OPTIONS).chat(messages).message.content


def test_llama_index_embeddings():
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import TextNode
    from llama_index_models import TernaryEmbedding

    embedding = TernaryEmbedding(path=str(STORIES))
    texts = ["The dog ran in the park.", "A red ball is on the bed.", "Mom made a cake."]
    assert embedding.get_text_embedding_batch(texts) == load(STORIES).embed(texts).tolist()
    assert embedding.get_query_embedding(texts[0]) == load(STORIES).embed(texts[0])[0]
    index = VectorStoreIndex([TextNode(text=text) for text in texts], embed_model=embedding)
    found = index.as_retriever(similarity_top_k=1).retrieve(texts[2])
    assert found[0].node.get_content() == texts[2] and found[0].score == pytest.approx(1, abs=1e-5)
