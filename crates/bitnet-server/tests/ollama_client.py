"""The official `ollama` client and LangChain's ChatOllama against `bitnet serve`: what they send is understood, and what
they get they can read.

    python ollama_client.py PATH_OF_BITNET

Starts the server itself, on a free port, with the model that comes with the program.
"""

import asyncio
import datetime
import json
import sys
import time

import langchain_ollama
import ollama
import openai

from serving import KEY, MODEL, end, metric, refused, start

HEADERS = {"Authorization": f"Bearer {KEY}"}
SCHEMA = {
    "title": "animal",
    "description": "An animal.",
    "type": "object",
    "properties": {"kind": {"enum": ["cat", "dog"]}, "name": {"const": "青空 🎈"}, "age": {"type": "integer", "maximum": 99}},
    "required": ["kind", "name", "age"],
    "additionalProperties": False,
}


def is_animal(value):
    return value["kind"] in ("cat", "dog") and value["name"] == "青空 🎈" and value["age"] <= 99


def models(client, _):
    [entry] = client.list().models
    assert entry.model == MODEL + ":latest" and entry.size > 1_000_000 and len(entry.digest) == 64
    assert entry.details.format == "gguf" and entry.details.parameter_size.endswith("M")
    now = datetime.datetime.now(datetime.timezone.utc)
    assert abs(now - entry.modified_at) < datetime.timedelta(minutes=5), entry.modified_at
    [running] = client.ps().models
    assert running.model == entry.model and running.digest == entry.digest
    assert running.expires_at > now + datetime.timedelta(days=36_500) and running.size_vram == 0
    for name in (MODEL, entry.model):
        shown = client.show(name)
        assert shown.capabilities == ["completion"] and "<|im_start|>" in shown.template
        assert shown.modelinfo["general.architecture"] == shown.details.family
    assert client.pull(MODEL).status == "success"
    assert [step.status for step in client.pull(MODEL, stream=True)] == ["success"]


def generate(client, url):
    ask = dict(model=MODEL, prompt="Once upon a time", raw=True, options={"num_predict": 30, "temperature": 0.8, "seed": 3})
    whole = client.generate(**ask)
    assert whole.done and whole.done_reason == "length" and whole.eval_count == 30 and len(whole.response) > 20
    assert whole.total_duration >= whole.eval_duration > 0 and whole.prompt_eval_count > 2
    pieces = list(client.generate(**ask, stream=True))
    assert len(pieces) > 5, "it did not come in pieces"
    assert "".join(piece.response for piece in pieces) == whole.response
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[-1].eval_count == 30 and pieces[-1].done_reason == "length"
    # The other interface tells the same.
    other = openai.OpenAI(base_url=url + "/v1", api_key=KEY)
    told = other.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=30, temperature=0.8, seed=3)
    assert told.choices[0].text == whole.response
    # A conversation that goes on by its tokens.
    first = client.generate(MODEL, "Of a dog!", system="You tell stories.", options={"num_predict": 8, "seed": 1})
    second = client.generate(MODEL, "And a cat?", context=first.context, options={"num_predict": 8, "seed": 1})
    assert second.prompt_eval_count > len(first.context) > 8
    assert list(second.context[: len(first.context)]) == list(first.context)
    assert client.generate(MODEL).done_reason == "load"


def chat(client, _):
    messages = [ollama.Message(role="system", content="You tell stories."), {"role": "user", "content": "Of a dog!"}]
    ask = dict(model=MODEL, messages=messages, options=ollama.Options(num_predict=30, temperature=0.5, seed=1, num_ctx=2048))
    whole = client.chat(**ask, logprobs=True, top_logprobs=2, keep_alive="10m", think=False)
    assert whole.message.role == "assistant" and whole.done_reason in ("stop", "length")
    assert "".join(entry.token for entry in whole.logprobs) == whole.message.content
    assert all(len(entry.top_logprobs) == 2 for entry in whole.logprobs)
    pieces = list(client.chat(**ask, stream=True))
    assert "".join(piece.message.content for piece in pieces) == whole.message.content
    assert pieces[-1].done and pieces[-1].prompt_eval_count == whole.prompt_eval_count
    client.chat(**{**ask, "messages": [*messages, whole.message, {"role": "user", "content": "And a cat?"}]})


def schemas(client, _):
    ask = dict(model=MODEL, messages=[{"role": "user", "content": "An animal?"}], format=SCHEMA)
    assert is_animal(json.loads(client.chat(**ask).message.content))
    assert is_animal(json.loads("".join(piece.message.content for piece in client.chat(**ask, stream=True))))
    some = client.generate(MODEL, "JSON: ", raw=True, format="json", options={"num_predict": 500, "seed": 2})
    assert some.response.startswith("{")


def embeddings(client, _):
    texts = ["a big dog", "a large dog", "they went home"]
    answer = client.embed(MODEL, texts)
    assert len(answer.embeddings) == 3 and answer.prompt_eval_count > 6 and answer.total_duration > 0
    for text, vector in zip(texts, answer.embeddings):
        assert len(vector) == 256 and abs(sum(x * x for x in vector) - 1) < 1e-5
        assert client.embed(MODEL, text).embeddings == [vector] and client.embeddings(MODEL, text).embedding == vector


def errors(client, url):
    hi = [{"role": "user", "content": "hi"}]
    tool = {"type": "function", "function": {"name": "f", "description": "Does it.", "parameters": {"type": "object"}}}

    def wrong(call, status, words):
        message = refused(ollama.ResponseError, call, status_code=status).error
        assert words in message, (words, message)

    wrong(lambda: client.chat("llama3", hi), 404, "not found")
    wrong(lambda: list(client.chat("llama3", hi, stream=True)), 404, "not found")
    wrong(lambda: client.show("llama3"), 404, "not found")
    wrong(lambda: client.chat(MODEL, hi, options={"temperature": "hot"}), 400, "options.temperature")
    wrong(lambda: client.chat(MODEL, hi, think=True), 400, "think")
    wrong(lambda: client.chat(MODEL, hi, tools=[tool]), 400, "does not support tools")
    wrong(lambda: client.generate(MODEL, "x", images=[b"x"]), 400, "images")
    wrong(lambda: client.generate(MODEL, "x", suffix="y"), 400, "suffix")
    wrong(lambda: client.chat(MODEL, hi, format={"type": "strange"}), 400, "format")
    wrong(lambda: client.generate(MODEL, "The cat sat on the mat. " * 300), 400, "tokens")
    wrong(lambda: client.pull("llama3"), 501, "bitnet pull")
    wrong(lambda: client.create("mine", from_=MODEL), 501, "bitnet convert")
    wrong(lambda: client.copy(MODEL, "mine"), 501, "--name")
    wrong(lambda: client.delete(MODEL), 501, "bitnet rm")
    wrong(lambda: client.push(MODEL), 501, "uploads no models")
    stranger = ollama.Client(host=url, headers={"Authorization": "Bearer another key"})
    wrong(stranger.list, 401, "API key")


def going_away(client, url):
    """A client that closes its stream frees its place."""
    before = metric(url + "/v1", "bitnet_cancelled_total")
    # The longest text that it can have: a list that may not end soon.
    numbers = {"type": "array", "items": {"type": "integer"}, "minItems": 300}
    stream = client.chat(MODEL, [{"role": "user", "content": "Count!"}], stream=True, format=numbers)
    next(iter(stream))
    stream.close()
    deadline = time.monotonic() + 10
    while metric(url + "/v1", "bitnet_active_sequences") > 0:
        assert time.monotonic() < deadline, "its text goes on without it"
        time.sleep(0.02)
    assert metric(url + "/v1", "bitnet_cancelled_total") == before + 1


async def together(url):
    """Many at once get what each gets alone."""
    async with ollama.AsyncClient(host=url, headers=HEADERS) as client:
        async def one(seed):
            ask = dict(model=MODEL, prompt="The dog", raw=True, options={"num_predict": 20, "seed": seed, "temperature": 1})
            return "".join([piece.response async for piece in await client.generate(**ask, stream=True)])

        at_once = await asyncio.gather(*(one(seed) for seed in range(12)))
        assert at_once == [await one(seed) for seed in range(12)]


def langchain(_, url):
    options = dict(model=MODEL, base_url=url, client_kwargs={"headers": HEADERS})
    model = langchain_ollama.ChatOllama(**options, num_predict=30, temperature=0.5, seed=1, top_k=40, validate_model_on_init=True)
    messages = [("system", "You tell stories."), ("human", "Of a dog!")]
    answer = model.invoke(messages)
    assert len(answer.content) > 5 and answer.response_metadata["done_reason"] in ("stop", "length")
    assert answer.usage_metadata["output_tokens"] == answer.response_metadata["eval_count"] <= 30
    assert "".join(piece.content for piece in model.stream(messages)) == answer.content
    assert asyncio.run(model.ainvoke(messages)).content == answer.content
    assert is_animal(langchain_ollama.ChatOllama(**options).with_structured_output(SCHEMA).invoke("An animal?"))
    assert len(langchain_ollama.OllamaLLM(**options, num_predict=10).invoke("Once upon a time")) > 5
    assert [len(v) for v in langchain_ollama.OllamaEmbeddings(**options).embed_documents(["a dog", "a cat"])] == [256, 256]


def main(program):
    server, url = start(program, "--context", "1000")
    url = url.removesuffix("/v1")
    try:
        client = ollama.Client(host=url, headers=HEADERS, timeout=60)
        for check in (models, generate, chat, schemas, embeddings, errors, going_away, langchain):
            check(client, url)
            print("ok", check.__name__)
        asyncio.run(together(url))
        print("ok together")
    finally:
        end(server)
    print("ollama and langchain-ollama: all is well")


if __name__ == "__main__":
    main(sys.argv[1])
