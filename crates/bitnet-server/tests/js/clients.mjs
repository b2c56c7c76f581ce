// The official `openai` and `ollama` packages against `bitnet serve`: what they send is understood, and what they get
// they can read. BITNET is the path of the program; the script starts the server itself, on a free port.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

import { Ollama } from "ollama";
import OpenAI from "openai";

const KEY = "a key for this test";
const MODEL = "tiny-stories-ttt";
const TEMPLATE = fileURLToPath(new URL("../tools.jinja", import.meta.url));
const CITY = {
  type: "object",
  properties: { city: { enum: ["Bern", "Rome"] } },
  required: ["city"],
  additionalProperties: false,
};
const FUNCTION = { name: "weather", description: "Tells it.", parameters: CITY };

/** Starts a server; its process and its address. */
async function start(...more) {
  const args = ["serve", "--port", "0", "--template", TEMPLATE, "--quiet", ...more];
  const env = { ...process.env, BITNET_API_KEY: KEY };
  const server = spawn(process.env.BITNET, args, { env, stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  for await (const piece of server.stdout) {
    said += piece;
    const found = said.match(/http:\/\/\S+?(?=\/v1)/);
    if (found) return { server, url: found[0] };
  }
  throw new Error(`no address in ${JSON.stringify(said)}`);
}

async function end(server) {
  const gone = new Promise((resolve) => server.on("exit", resolve));
  server.kill("SIGTERM");
  assert.equal(await gone, 0, "it did not end well");
}

async function completions(client) {
  const ask = { model: MODEL, prompt: "Once upon a time", max_tokens: 20, temperature: 0.8, seed: 3 };
  const whole = await client.completions.create(ask);
  let text = "";
  for await (const chunk of await client.completions.create({ ...ask, stream: true })) text += chunk.choices[0].text;
  assert.equal(text, whole.choices[0].text);
  const echo = await client.completions.create({ ...ask, echo: true, logprobs: 1, max_tokens: 0 });
  assert.equal(echo.choices[0].text, ask.prompt);
  assert.equal(echo.choices[0].logprobs.tokens.join(""), ask.prompt);
  assert.equal(echo.usage.completion_tokens, 0);
}

async function chat(client) {
  const messages = [{ role: "user", content: "Of a dog!" }];
  const ask = { model: MODEL, messages, max_completion_tokens: 20, seed: 1 };
  const whole = await client.chat.completions.create(ask);
  const stream = client.chat.completions.stream(ask);
  assert.equal(await stream.finalContent(), whole.choices[0].message.content);
}

async function tools(client) {
  const ask = {
    model: MODEL,
    messages: [{ role: "user", content: "Is it warm?" }],
    tools: [{ type: "function", function: FUNCTION }],
    tool_choice: { type: "function", function: { name: "weather" } },
    seed: 2,
  };
  const whole = await client.chat.completions.create(ask);
  assert.equal(whole.choices[0].finish_reason, "tool_calls");
  const [call] = whole.choices[0].message.tool_calls;
  assert.ok(["Bern", "Rome"].includes(JSON.parse(call.function.arguments).city));
  const streamed = await client.chat.completions.stream(ask).finalChatCompletion();
  assert.deepEqual(streamed.choices[0].message.tool_calls[0].function.name, call.function.name);
  assert.equal(streamed.choices[0].message.tool_calls[0].function.arguments, call.function.arguments);
  // The result goes back.
  const messages = [...ask.messages, whole.choices[0].message, { role: "tool", tool_call_id: call.id, content: "12 degrees" }];
  const next = await client.chat.completions.create({ ...ask, messages, tool_choice: "auto", max_completion_tokens: 5 });
  assert.ok(next.usage.prompt_tokens > whole.usage.prompt_tokens);
}

async function responses(client) {
  const ask = { model: MODEL, instructions: "You tell stories.", input: "Of a dog!", max_output_tokens: 20, seed: 1 };
  const whole = await client.responses.create(ask);
  assert.ok(whole.output_text.length > 5 && ["completed", "incomplete"].includes(whole.status));
  let text = "";
  let number = 0;
  let last;
  for await (const event of await client.responses.create({ ...ask, stream: true })) {
    assert.equal(event.sequence_number, number++);
    if (event.type === "response.output_text.delta") text += event.delta;
    last = event;
  }
  assert.equal(text, whole.output_text);
  assert.deepEqual(last.response.usage.output_tokens, whole.usage.output_tokens);
  // The helper that builds the answer from its events.
  const ended = { model: MODEL, input: "Of a dog!", seed: 1, regex: "The dog (ran|sat)\\." };
  const built = await client.responses.stream(ended).finalResponse();
  assert.equal(built.output_text, (await client.responses.create(ended)).output_text);
  const called = await client.responses.create({
    model: MODEL,
    input: "Is it warm?",
    tools: [{ type: "function", strict: true, ...FUNCTION }],
    tool_choice: "required",
    seed: 2,
  });
  const [call] = called.output;
  assert.equal(call.type, "function_call");
  const output = { type: "function_call_output", call_id: call.call_id, output: "12 degrees" };
  const items = [{ role: "user", content: "Is it warm?" }, call, output];
  await client.responses.create({ model: MODEL, input: items, max_output_tokens: 5 });
  await assert.rejects(client.responses.create({ ...ask, previous_response_id: whole.id }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "previous_response_id");
    return true;
  });
}

async function errors(client) {
  assert.deepEqual((await client.models.list()).data.map((model) => model.id), [MODEL]);
  const unknown = client.chat.completions.create({ model: "gpt-4", messages: [{ role: "user", content: "hi" }] });
  await assert.rejects(unknown, OpenAI.NotFoundError);
  const vectors = await client.embeddings.create({ model: MODEL, input: ["a dog", "a cat"] });
  assert.deepEqual(vectors.data.map((entry) => entry.embedding.length), [256, 256]);
}

async function ollama(url) {
  const client = new Ollama({ host: url, headers: { Authorization: `Bearer ${KEY}` } });
  const options = { num_predict: 20, seed: 1, temperature: 0.5 };
  const messages = [{ role: "user", content: "Of a dog!" }];
  const whole = await client.chat({ model: MODEL, messages, options });
  let text = "";
  for await (const part of await client.chat({ model: MODEL, messages, options, stream: true })) text += part.message.content;
  assert.equal(text, whole.message.content);
  assert.ok(whole.done && whole.eval_count > 0);
  const raw = await client.generate({ model: MODEL, prompt: "Once upon a time", raw: true, options });
  assert.ok(raw.response.length > 5);
  const names = (list) => list.models.map((model) => model.name);
  assert.deepEqual(names(await client.list()), [`${MODEL}:latest`]);
  assert.deepEqual(names(await client.ps()), [`${MODEL}:latest`]);
  assert.ok((await client.show({ model: MODEL })).capabilities.includes("tools"));
  const { embeddings } = await client.embed({ model: MODEL, input: ["a dog", "a cat"] });
  assert.deepEqual(embeddings.map((vector) => vector.length), [256, 256]);
  // The arguments of a call are an object.
  const said = [...messages, { role: "assistant", content: "", tool_calls: [{ function: { name: "weather", arguments: { city: "Bern" } } }] }];
  const tools = [{ type: "function", function: FUNCTION }];
  const next = await client.chat({ model: MODEL, messages: [...said, { role: "tool", content: "12 degrees", tool_name: "weather" }], tools, options });
  assert.ok(next.prompt_eval_count > whole.prompt_eval_count);
  await assert.rejects(client.chat({ model: "llama3", messages }), /not found/);
}

/** A page of a named origin may ask, one of another origin may not. */
async function pages() {
  const { server, url } = await start("--cors", "http://localhost:3000");
  try {
    const ask = async (origin) => {
      const headers = { Origin: origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type" };
      const answer = await fetch(`${url}/v1/chat/completions`, { method: "OPTIONS", headers });
      return [answer.status, answer.headers.get("access-control-allow-origin")];
    };
    assert.deepEqual(await ask("http://localhost:3000"), [204, "http://localhost:3000"]);
    assert.deepEqual(await ask("http://localhost:3001"), [401, null]);
  } finally {
    await end(server);
  }
}

const { server, url } = await start("--context", "1000");
try {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: KEY, maxRetries: 0 });
  for (const check of [completions, chat, tools, responses, errors]) {
    await check(client);
    console.log("ok", check.name);
  }
  await ollama(url);
  console.log("ok ollama");
} finally {
  await end(server);
}
await pages();
console.log("openai and ollama for JavaScript: all is well");
