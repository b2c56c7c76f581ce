// Tokens, texts and extractions are those of the native program, bit for bit.

import assert from "node:assert/strict";
import { before, test } from "node:test";

import { kindOf } from "../dist/source.js";
import { bytes, engine as start, module, path, runNative, source } from "./common.mjs";

const MODELS = [
  ["crates/bitnet/models/tiny-stories-ttt.gguf", ["Once upon a time", "Lily had a red ball. \u00e9\u4f60\u597d"]],
  ["models/tinystories-5m.gguf", ["Once upon a time", "The dog"]],
  ["models/tiny-ja-ttt.gguf", ["吾輩は猫である。", "メロスは"]],
];
const SAMPLING = [
  { temperature: 0, topP: 1, topK: 0, minP: 0, seed: 0 },
  { temperature: 0.9, topP: 0.95, topK: 40, minP: 0.02, seed: 7 },
  { temperature: 1.2, topP: 1, topK: 0, minP: 0, seed: 123456789, presencePenalty: 0.2, frequencyPenalty: 0.1 },
];
const TOKENS = 120;

let engine;
before(async () => {
  engine = await start();
});

function nativeTokens(model, prompt, s) {
  const args = ["run", "-q", "-m", path(model), "--json", "-n", String(TOKENS), "--seed", String(s.seed)];
  args.push("--temperature", String(s.temperature), "--top-p", String(s.topP), "--top-k", String(s.topK), "--min-p", String(s.minP));
  args.push("--presence-penalty", String(s.presencePenalty ?? 0), "--frequency-penalty", String(s.frequencyPenalty ?? 0));
  args.push("-p", prompt);
  return JSON.parse(runNative(args));
}

test("the relaxed module is taken where it is asked for", () => {
  const asked = process.execArgv.includes("--experimental-wasm-relaxed-simd");
  assert.equal(module, asked ? "bitnet_relaxed_bg.wasm" : "bitnet_bg.wasm");
});

for (const [model, prompts] of MODELS) {
  test(`the tokens of ${model}`, async () => {
    const info = await engine.load(source(model));
    assert.ok(info.parameters > 1e6 && info.memory.weights > 0 && info.mixers.length > 0, JSON.stringify(info));
    assert.match(info.device, /^wasm simd128, 1 thread$/);
    for (const prompt of prompts) {
      for (const sampling of SAMPLING) {
        const expected = nativeTokens(model, prompt, sampling);
        const session = await engine.open();
        let text = "";
        const on = (event) => event.kind === "text" && (text += event.text);
        const request = { id: "g", session, prompt: { kind: "text", text: prompt }, sampling, maxTokens: TOKENS };
        const { result, ids } = await engine.generateTokens(request, on);
        const where = `${prompt} ${JSON.stringify(sampling)}`;
        assert.deepEqual([...ids], expected.ids, where);
        assert.equal(text, expected.text, where);
        assert.equal(result.reason, expected.finish_reason, where);
        assert.equal(result.newTokens, expected.ids.length);
        await engine.close(session);
      }
    }
  });
}

test("a limit within a character ends the text before it", async () => {
  const model = "models/tiny-ja-ttt.gguf";
  const prompt = "吾輩は猫である。";
  await engine.load(source(model));
  let divided = 0;
  for (let tokens = 1; tokens <= 12; tokens++) {
    const args = ["run", "-q", "-m", path(model), "--json", "-n", String(tokens), "--temperature", "1", "--top-p", "1", "--seed", "2"];
    const expected = JSON.parse(runNative([...args, "-p", prompt]));
    const session = await engine.open();
    let text = "";
    const sampling = { temperature: 1, topP: 1, topK: 0, minP: 0, seed: 2 };
    const request = { id: "g", session, prompt: { kind: "text", text: prompt }, sampling, maxTokens: tokens };
    const { ids } = await engine.generateTokens(request, (event) => event.kind === "text" && (text += event.text));
    assert.deepEqual([[...ids], text], [expected.ids, expected.text]);
    assert.ok(!text.includes("\ufffd"), text);
    divided += expected.incomplete !== undefined;
    await engine.close(session);
  }
  assert.ok(divided > 0, "no text was cut within a character");
});

test("inner losses of test-time-training layers", async () => {
  const info = await engine.load(source("crates/bitnet/models/tiny-stories-ttt.gguf"));
  assert.ok(info.innerLoss);
  const session = await engine.open();
  const points = [];
  const on = (event) => event.kind === "loss" && points.push(...event.points);
  const request = { id: "g", session, prompt: { kind: "text", text: "Once upon a time" }, sampling: SAMPLING[0], maxTokens: 90, innerLoss: true };
  const { memory } = await engine.generate(request, on);
  const layers = info.mixers.filter((mixer) => mixer.startsWith("ttt")).length;
  assert.ok(points.every((p) => p.layers.length === layers && p.layers.every((loss) => loss > 0 && loss < 1e3)));
  assert.equal(points[0].at, 0);
  assert.ok(points.length > 2 && points.at(-1).at < memory.tokens);
});

test("the text under a constraint", async () => {
  const model = "models/tinystories-5m.gguf";
  await engine.load(source(model));
  const regex = "[A-Z][a-z]{2,8} (saw|had) a (red|blue) (ball|car)\\.";
  const expected = JSON.parse(
    runNative(["run", "-q", "-m", path(model), "--json", "--temperature", "0", "--regex", regex, "-p", "Once upon a time."]),
  );
  const session = await engine.open();
  const sampling = { temperature: 0, topP: 1, topK: 0, minP: 0 };
  const prompt = { kind: "text", text: "Once upon a time." };
  const request = { id: "g", session, prompt, sampling, constraint: { kind: "regex", regex } };
  const { ids } = await engine.generateTokens(request, () => {});
  assert.deepEqual([...ids], expected.ids);
});

test("intents and slots", async () => {
  const files = [
    ["models/intent/extractor.gguf", ["play some jazz by miles davis", "book a table for four at 7 pm in paris", "what is the weather in tokyo tomorrow", "", "zzz"]],
    ["models/intent/extractor-ja.gguf", ["青空文庫って知ってる?", "夏目漱石について教えて", "𠮷野家は好き？"]],
  ];
  for (const [file, texts] of files) {
    const { id, tasks } = await engine.loadExtractor(source(file));
    assert.ok(tasks[0].intents.length > 0);
    for (const text of texts) {
      const expected = JSON.parse(runNative(["extract", "-q", "-m", path(file), "--json", text]));
      const found = await engine.extract(id, text);
      // A number of 32 bits, in JSON with more or with fewer decimals.
      expected.confidence = Math.fround(expected.confidence);
      assert.deepEqual(
        [found.intent, found.confidence, found.outOfScope, found.cut, found.slots.map((s) => [s.name, s.value])],
        [expected.intent, expected.confidence, expected.out_of_scope, expected.cut, expected.slots.map((s) => [s.name, s.value])],
      );
      assert.deepEqual(found.alternatives[0], { intent: found.intent, confidence: found.confidence });
      assert.equal(found.alternatives.length, Math.min(5, tasks[0].intents.length));
      assert.ok(found.alternatives.every((a, i, all) => i === 0 || a.confidence <= all[i - 1].confidence));
      // Positions count as strings do here.
      for (const slot of found.slots) assert.equal(text.slice(slot.start, slot.end), slot.value);
    }
    assert.ok((await engine.timeExtraction(id, texts[0])) > 0);
    const vector = await engine.embed(id, texts[0]);
    assert.ok(Math.abs(Math.hypot(...vector) - 1) < 1e-5);
    await engine.closeExtractor(id);
  }
});

test("extractors and models are told apart by their first bytes", async () => {
  const kinds = { extractor: ["models/intent/extractor.gguf", "models/intent/extractor-ja.gguf"], model: MODELS.map(([name]) => name) };
  for (const [kind, names] of Object.entries(kinds)) {
    for (const name of names) {
      assert.equal(await kindOf(source(name)), kind, name);
      assert.equal(await kindOf({ kind: "file", file: new Blob([bytes(name)]), name }), kind, name);
    }
  }
  // What is cut off or no such file at all is for the loader to refuse.
  const head = bytes("models/intent/extractor.gguf");
  for (let cut = 0; cut < 100; cut++) assert.ok(["model", "extractor"].includes(await kindOf({ kind: "bytes", bytes: head.slice(0, cut), name: "cut" })));
  const long = new TextEncoder().encode("general.architecture\x08\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff");
  for (const other of [new Uint8Array(0), new Uint8Array(100), long]) {
    assert.equal(await kindOf({ kind: "bytes", bytes: other, name: "other" }), "model");
  }
});
