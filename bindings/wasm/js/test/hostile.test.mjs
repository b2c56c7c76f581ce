// Whatever comes, the engine answers with a typed error and goes on.

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { after, before, test } from "node:test";

import { bytes, engine as start, isFailure, path, source } from "./common.mjs";

const MODEL = "models/tinystories-5m.gguf";

let engine;
before(async () => {
  engine = await start();
});
after(() => assert.equal(engine.dead, null));

const load = (data, name = "x.gguf") => engine.load({ kind: "bytes", bytes: data, name });
const text = (of) => ({ kind: "text", text: of });
const greedy = { temperature: 0, topP: 1, topK: 0, minP: 0 };

/** A model that is loaded, and a short text of it. */
async function works() {
  await engine.load(source(MODEL));
  const session = await engine.open();
  const result = await engine.generate({ id: "w", session, prompt: text("Once"), sampling: greedy, maxTokens: 3 }, () => {});
  assert.equal(result.newTokens, 3);
  return session;
}

test("files that are no model", async () => {
  const none = [new Uint8Array(0), new Uint8Array([71, 71, 85, 70]), new TextEncoder().encode("<html>".repeat(100)), new Uint8Array(1000).fill(255)];
  for (const data of none) await assert.rejects(load(data), isFailure("model"));
  const folder = path("testdata/refusals");
  for (const file of readdirSync(folder).filter((f) => f.endsWith(".gguf"))) {
    await assert.rejects(load(bytes(`testdata/refusals/${file}`), file), isFailure("model"), file);
  }
  await assert.rejects(engine.load(source("models/intent/extractor.gguf")), isFailure("model"));
  await assert.rejects(engine.loadExtractor(source(MODEL)), isFailure("model"));
  await works();
});

test("a model cut off anywhere, and with any byte changed", async () => {
  const whole = bytes("testdata/gguf/llama_tiny.I2_S.gguf");
  for (let n = 0; n < 40; n++) {
    const len = Math.floor((whole.length * n) / 40);
    await assert.rejects(load(whole.slice(0, len)), isFailure("model"), `${len} bytes`);
  }
  // A fixed sequence, so that a failure can be repeated.
  let state = 12345;
  const random = (n) => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) % n;
  let refused = 0;
  for (let n = 0; n < 200; n++) {
    const damaged = whole.slice();
    const header = n % 2 === 0 ? 4000 : damaged.length;
    for (let i = 0; i < 1 + (n % 3); i++) damaged[random(Math.min(header, damaged.length))] ^= 1 << random(8);
    try {
      await load(damaged);
      const session = await engine.open();
      await engine.generate({ id: "d", session, prompt: text("a"), sampling: greedy, maxTokens: 2 }, () => {});
    } catch (error) {
      isFailure("model", "request", "out-of-memory", "context-full")(error);
      refused += 1;
    }
  }
  assert.ok(refused > 20, `${refused}`);
  await works();
});

test("a file of another length than announced", async () => {
  const whole = bytes(MODEL);
  const of = (data, size) => ({ kind: "file", name: "f", file: Object.assign(new Blob([data]), {}), size });
  await engine.load(of(whole));
  const lying = (data, size) => ({ kind: "file", name: "f", file: { size, stream: () => new Blob([data]).stream() } });
  await assert.rejects(engine.load(lying(whole, whole.length + 5)), isFailure("model"));
  await assert.rejects(engine.load(lying(whole, whole.length - 5)), isFailure("model"));
  for (const size of [3e9, 5e9, 1e15]) {
    await assert.rejects(engine.load(lying(whole, size)), (error) => {
      isFailure("out-of-memory")(error);
      return error.needed >= size && error.available > 0 && error.available <= 2 ** 32;
    });
  }
  for (const size of [-1, 0.5, NaN, Infinity]) await assert.rejects(engine.load(lying(whole, size)), isFailure("request"));
  await works();
});

test("requests", async () => {
  const session = await works();
  const ask = (more) => engine.generate({ id: "r", session, prompt: text("Once"), sampling: greedy, maxTokens: 2, ...more }, () => {});
  await assert.rejects(ask({ prompt: { kind: "poem" } }), isFailure("request"));
  await assert.rejects(ask({ prompt: undefined }), isFailure("request"));
  await assert.rejects(ask({ nonsense: 1 }), isFailure("request"));
  await assert.rejects(ask({ sampling: { ...greedy, temperature: -1 } }), isFailure("request"));
  await assert.rejects(ask({ sampling: { ...greedy, topP: 7 } }), isFailure("request"));
  await assert.rejects(ask({ sampling: { ...greedy, seed: 0.5 } }), isFailure("request"));
  await assert.rejects(ask({ maxTokens: -1 }), isFailure("request"));
  await assert.rejects(ask({ prompt: text("word ".repeat(100_000)) }), isFailure("context-full"));
  await assert.rejects(ask({ session: "s999" }), isFailure("request"));
  await assert.rejects(ask({ constraint: { kind: "schema", schema: "{" } }), isFailure("constraint"));
  await assert.rejects(ask({ constraint: { kind: "regex", regex: "(" } }), isFailure("constraint"));
  await assert.rejects(ask({ constraint: { kind: "grammar", grammar: "start: start start" } }), isFailure("constraint", "constraint-slow"));
  await assert.rejects(ask({ constraint: { kind: "regex", regex: "(a{1000}){1000}" } }), isFailure("constraint-slow"));
  const deep = "[".repeat(500) + "]".repeat(500);
  await assert.rejects(ask({ constraint: { kind: "schema", schema: deep } }), isFailure("constraint", "constraint-slow"));
  const info = await engine.load(source("crates/bitnet/models/tiny-stories-ttt.gguf"));
  assert.equal(info.chat, false);
  const chat = { kind: "chat", messages: [{ role: "user", content: "hi" }] };
  const other = await engine.open();
  await assert.rejects(ask({ session: other, prompt: chat }), isFailure("no-chat-template"));
  await assert.rejects(engine.load({ kind: "path", path: "/etc/passwd" }), isFailure("unsupported"));
  await assert.rejects(engine.load({ kind: "carrier pigeon" }), isFailure("request"));
  await works();
});

test("saved sessions", async () => {
  const session = await works();
  const saved = await engine.save(session);
  const again = await engine.restore(saved);
  const prompt = text("Once upon a time there was");
  const ids = [];
  for (const s of [session, again]) {
    ids.push([...(await engine.generateTokens({ id: "s", session: s, prompt, sampling: greedy, maxTokens: 8 }, () => {})).ids]);
  }
  assert.deepEqual(ids[0], ids[1]);
  for (const damaged of [new Uint8Array(0), saved.bytes.slice(0, -1), saved.bytes.map((b, i) => (i === 20 ? b ^ 1 : b)), new Uint8Array(100)]) {
    await assert.rejects(engine.restore({ bytes: damaged, tokens: 0 }), isFailure("session"));
  }
  await works();
});

test("a generation is cancelled between two tokens", async () => {
  const session = await works();
  let texts = 0;
  const request = { id: "c", session, prompt: text("Once upon a time"), sampling: greedy };
  const result = await engine.generate(request, (event) => {
    if (event.kind === "text" && (texts += 1) === 2) void engine.cancel("c");
  });
  assert.equal(result.reason, "cancelled");
  // The session goes on.
  const more = await engine.generate({ ...request, maxTokens: 4 }, () => {});
  assert.equal(more.newTokens, 4);
  assert.ok(more.cachedTokens > 0 && more.memory.tokens > 4);
});
