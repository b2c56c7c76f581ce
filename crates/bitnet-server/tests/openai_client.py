"""The official `openai` client against `bitnet serve`: what it sends is understood, and what it gets it can read.

    python openai_client.py PATH_OF_BITNET

Starts the server itself, on a free port, with the model that comes with the program.
"""

import asyncio
import json
import pathlib
import sys
import time

import openai

from serving import KEY, MODEL, end, metric, refused, start

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = str(HERE / "tools.jinja")
SMALL = str(HERE.parent.parent / "bitnet" / "models" / "tiny-stories-ttt.gguf")
OTHER = str(HERE.parent.parent.parent / "models" / "tinystories-5m.gguf")


def models(client):
    assert [m.id for m in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).object == "model"
    refused(openai.NotFoundError, lambda: client.models.retrieve("gpt-4"), code="model_not_found")


def completions(client):
    ask = dict(model=MODEL, prompt="Once upon a time", max_tokens=30, temperature=0.8, seed=3)
    whole = client.completions.create(**ask)
    assert whole.object == "text_completion" and len(whole.choices[0].text) > 20
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    pieces = [chunk.choices[0].text for chunk in client.completions.create(**ask, stream=True)]
    assert len(pieces) > 5, "it did not come in pieces"
    assert "".join(pieces) == whole.choices[0].text
    assert client.completions.create(**ask).choices[0].text == whole.choices[0].text, "the same seed, another text"
    stop = whole.choices[0].text[8:11]
    cut = client.completions.create(**ask, stop=[stop])
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].text == whole.choices[0].text.split(stop)[0]
    several = client.completions.create(**{**ask, "prompt": ["The cat", "The dog"]}, n=2, logprobs=2)
    assert [c.index for c in several.choices] == [0, 1, 2, 3]
    assert len(several.choices[0].logprobs.top_logprobs[0]) == 2


def chat(client):
    messages = [{"role": "system", "content": "You tell stories."}, {"role": "user", "content": "Of a dog!"}]
    ask = dict(model=MODEL, messages=messages, max_completion_tokens=30, temperature=0.5, seed=1)
    whole = client.chat.completions.create(**ask, logprobs=True, top_logprobs=2)
    message = whole.choices[0].message
    assert message.role == "assistant" and whole.choices[0].finish_reason in ("stop", "length")
    assert b"".join(bytes(t.bytes) for t in whole.choices[0].logprobs.content).decode() == message.content
    text, usage = "", None
    for chunk in client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            text += choice.delta.content or ""
        usage = chunk.usage or usage
    assert text == message.content
    assert usage.completion_tokens == whole.usage.completion_tokens
    # A conversation that goes on with what was answered.
    messages += [message.model_dump(), {"role": "user", "content": [{"type": "text", "text": "And a cat?"}]}]
    client.chat.completions.create(**{**ask, "messages": messages})


def schemas(client):
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["cat", "dog"]}, "name": {"const": "青空 🎈"}, "age": {"type": "integer", "maximum": 99}},
        "required": ["kind", "name", "age"],
        "additionalProperties": False,
    }
    ask = dict(
        model=MODEL,
        messages=[{"role": "user", "content": "An animal?"}],
        response_format={"type": "json_schema", "json_schema": {"name": "animal", "schema": schema, "strict": True}},
    )
    value = json.loads(client.chat.completions.create(**ask).choices[0].message.content)
    assert value["kind"] in ("cat", "dog") and value["name"] == "青空 🎈" and value["age"] <= 99
    pieces = [c.choices[0].delta.content or "" for c in client.chat.completions.create(**ask, stream=True)]
    assert all("\ufffd" not in piece for piece in pieces)
    assert json.loads("".join(pieces))["name"] == "青空 🎈"


def embeddings(client):
    texts = ["a big dog", "a large dog", "they went home"]
    # The client asks for base64 by itself.
    plain = client.embeddings.create(model=MODEL, input=texts)
    numbers = client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
    assert len(plain.data) == 3 and plain.usage.prompt_tokens > 6
    for a, b in zip(plain.data, numbers.data):
        assert len(a.embedding) == 256 and all(abs(x - y) < 1e-6 for x, y in zip(a.embedding, b.embedding))
    assert abs(sum(x * x for x in plain.data[0].embedding) - 1) < 1e-5
    one = client.embeddings.create(model=MODEL, input=texts[0])
    assert one.data[0].embedding == plain.data[0].embedding


def errors(client, url):
    hi = [{"role": "user", "content": "hi"}]
    ask = client.chat.completions.create
    refused(openai.NotFoundError, lambda: ask(model="gpt-4", messages=hi), code="model_not_found")
    refused(openai.BadRequestError, lambda: ask(model=MODEL, messages=hi, temperature=3), param="temperature")
    tools = [{"type": "function", "function": {"name": "f"}}]
    refused(openai.BadRequestError, lambda: ask(model=MODEL, messages=hi, tools=tools), code="unsupported_parameter")
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    refused(openai.BadRequestError, lambda: ask(model=MODEL, messages=image), param="messages[0].content[0].type")
    long = "The cat sat on the mat. " * 300
    refused(openai.BadRequestError, lambda: client.completions.create(model=MODEL, prompt=long), code="context_length_exceeded")
    stranger = openai.OpenAI(base_url=url, api_key="another key", max_retries=0)
    refused(openai.AuthenticationError, lambda: stranger.models.list(), code="invalid_api_key")


def echo(client):
    ask = dict(model=MODEL, prompt="Once upon a time", temperature=0.8, seed=3)
    plain = client.completions.create(**ask, max_tokens=10).choices[0].text
    told = client.completions.create(**ask, max_tokens=10, echo=True, logprobs=2).choices[0]
    assert told.text == ask["prompt"] + plain
    assert "".join(told.logprobs.tokens) == told.text and told.logprobs.text_offset[0] == 0
    # As tools that measure models do: the probabilities of given tokens, the first of which has none.
    scored = client.completions.create(model=MODEL, prompt=[5, 600, 700, 800], max_tokens=0, echo=True, logprobs=1).choices[0]
    assert scored.finish_reason == "length" and len(scored.logprobs.tokens) == 4
    assert scored.logprobs.token_logprobs[0] is None and scored.logprobs.top_logprobs[0] is None
    assert all(p <= max(top.values()) for p, top in zip(scored.logprobs.token_logprobs[1:], scored.logprobs.top_logprobs[1:]))


def responses(client):
    ask = dict(model=MODEL, instructions="You tell stories.", input="Of a dog!", max_output_tokens=25, extra_body={"seed": 1})
    whole = client.responses.create(**ask)
    assert whole.object == "response" and whole.status in ("completed", "incomplete") and len(whole.output_text) > 5
    said = [{"role": "system", "content": "You tell stories."}, {"role": "user", "content": "Of a dog!"}]
    chat = client.chat.completions.create(model=MODEL, messages=said, max_completion_tokens=25, seed=1)
    assert whole.output_text == chat.choices[0].message.content
    assert whole.usage.total_tokens == chat.usage.total_tokens
    events = list(client.responses.create(**ask, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:3]] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == whole.output_text
    assert events[-1].type == f"response.{whole.status}" and events[-1].response.output_text == whole.output_text
    # The helper wants an answer that was not cut off.
    ended = dict(model=MODEL, input="Of a dog!", extra_body={"seed": 1, "regex": r"The dog (ran|sat)\."})
    with client.responses.stream(**ended) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == text == client.responses.create(**ended).output_text
    # A conversation that goes on with what was answered.
    items = [{"role": "user", "content": "Of a dog!"}, *(item.model_dump() for item in whole.output), {"role": "user", "content": "And a cat?"}]
    client.responses.create(**{**ask, "input": items})
    schema = {"type": "object", "properties": {"kind": {"enum": ["cat", "dog"]}}, "required": ["kind"], "additionalProperties": False}
    text = {"format": {"type": "json_schema", "name": "animal", "schema": schema, "strict": True}}
    answer = client.responses.create(model=MODEL, input="An animal?", text=text)
    assert json.loads(answer.output_text)["kind"] in ("cat", "dog")
    kept = lambda: client.responses.create(**ask, previous_response_id=whole.id)
    refused(openai.BadRequestError, kept, param="previous_response_id")


def tools(program):
    """A model whose template has tools: calls that are required, whole and in streams, in both interfaces."""
    city = {"type": "object", "properties": {"city": {"enum": ["Bern", "Rome"]}}, "required": ["city"], "additionalProperties": False}
    function = {"name": "weather", "description": "Tells it.", "parameters": city}
    server, url = start(program, template=TOOLS)
    try:
        client = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=60)
        messages = [{"role": "user", "content": "Is it warm?"}]
        ask = dict(model=MODEL, messages=messages, tools=[{"type": "function", "function": function}], seed=2)
        for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
            whole = client.chat.completions.create(**ask, tool_choice=choice).choices[0]
            [call] = whole.message.tool_calls
            assert whole.finish_reason == "tool_calls" and call.function.name == "weather"
            assert json.loads(call.function.arguments)["city"] in ("Bern", "Rome")
            name, arguments = "", ""
            for chunk in client.chat.completions.create(**ask, tool_choice=choice, stream=True):
                for delta in chunk.choices[0].delta.tool_calls or []:
                    name += delta.function.name or ""
                    arguments += delta.function.arguments or ""
            assert (name, arguments) == (call.function.name, call.function.arguments)
        with client.chat.completions.stream(**ask, tool_choice="required") as stream:
            final = stream.get_final_completion()
        assert final.choices[0].message.tool_calls[0].function.name == "weather"
        result = {"role": "tool", "tool_call_id": call.id, "content": "12 degrees"}
        goes_on = [*messages, whole.message.model_dump(), result]
        client.chat.completions.create(**{**ask, "messages": goes_on}, max_completion_tokens=5)
        unknown = lambda: client.chat.completions.create(**ask, tool_choice={"type": "function", "function": {"name": "time"}})
        refused(openai.BadRequestError, unknown, param="tool_choice")
        # The newer interface.
        ask = dict(model=MODEL, input="Is it warm?", tools=[{"type": "function", **function, "strict": True}], extra_body={"seed": 2})
        answer = client.responses.create(**ask, tool_choice="required")
        [call] = answer.output
        assert call.type == "function_call" and json.loads(call.arguments)["city"] in ("Bern", "Rome")
        done = [e for e in client.responses.create(**ask, tool_choice="required", stream=True) if e.type == "response.function_call_arguments.done"]
        assert [event.arguments for event in done] == [call.arguments]
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "12 degrees"}
        client.responses.create(**{**ask, "input": [{"role": "user", "content": "Is it warm?"}, call.model_dump(), result]}, max_output_tokens=5)
    finally:
        end(server)


def several(program):
    """Models that are loaded when a request names them."""
    server, url = start(program, "-m", SMALL, "-m", OTHER)
    try:
        client = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=60)
        names = [model.id for model in client.models.list()]
        assert names == [MODEL, "tinystories-5m"]
        assert [model.loaded for model in client.models.list()] == [True, False]
        for name in [*reversed(names), *names]:
            answer = client.completions.create(model=name, prompt="Once upon a time", max_tokens=5)
            assert answer.model == name and answer.choices[0].text
        assert [model.loaded for model in client.models.list()] == [True, True]
        refused(openai.NotFoundError, lambda: client.completions.create(model="gpt-4", prompt="x"), code="model_not_found")
    finally:
        end(server)


def going_away(client, url):
    """A client that closes its stream frees its place."""
    stream = client.completions.create(
        model=MODEL, prompt="Once", max_tokens=900, stream=True, logit_bias={"0": -100}
    )
    next(iter(stream))
    assert metric(url, "bitnet_active_sequences") == 1
    stream.close()
    deadline = time.monotonic() + 10
    while metric(url, "bitnet_active_sequences") > 0:
        assert time.monotonic() < deadline, "its text goes on without it"
        time.sleep(0.02)
    assert metric(url, "bitnet_cancelled_total") == 1


async def together(url):
    """Many at once get what each gets alone."""
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY) as client:
        async def one(seed):
            answer = await client.completions.create(
                model=MODEL, prompt="The dog", max_tokens=20, seed=seed, temperature=1
            )
            return answer.choices[0].text

        at_once = await asyncio.gather(*(one(seed) for seed in range(12)))
        assert at_once == [await one(seed) for seed in range(12)]


def too_many(program):
    """Without a place to wait in, the client hears so; with retries it gets its answer."""
    server, url = start(program, "--max-sessions", "1", "--short-sessions", "0", "--queue", "0")
    try:
        client = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0)
        stream = client.completions.create(
            model=MODEL, prompt="Once", max_tokens=4000, stream=True, logit_bias={"0": -100}
        )
        next(iter(stream))
        ask = lambda c: c.completions.create(model=MODEL, prompt="x", max_tokens=1)
        error = refused(openai.RateLimitError, lambda: ask(client), code="rate_limit_exceeded")
        assert error.response.headers["retry-after"] == "1"
        stream.close()
        ask(client.with_options(max_retries=5))
    finally:
        end(server)


def ended_amid(program):
    """A stream that the server's end cuts off is an error for the client, not a short text."""
    server, url = start(program, "--grace", "0")
    client = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0)
    stream = client.completions.create(
        model=MODEL, prompt="Once", max_tokens=4000, stream=True, logit_bias={"0": -100}
    )
    next(iter(stream))
    end(server)
    refused(openai.APIError, lambda: list(stream), code="server_shutdown")


def main(program):
    server, url = start(program, "--context", "1000")
    try:
        client = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=60)
        for check in (models, completions, echo, chat, responses, schemas, embeddings):
            check(client)
            print("ok", check.__name__)
        for check in (errors, going_away):
            check(client, url)
            print("ok", check.__name__)
        asyncio.run(together(url))
        print("ok together")
    finally:
        end(server)
    for check in (tools, several, too_many, ended_amid):
        check(program)
        print("ok", check.__name__)
    print(f"openai {openai.__version__}: all is well")


if __name__ == "__main__":
    main(sys.argv[1])
