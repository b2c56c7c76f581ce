// Tokens, texts and extractions are those of the native program, bit for bit.

import assert from "node:assert/strict";
import { before, test } from "node:test";

import { engine as start, module, path, runNative, source } from "./common.mjs";

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
      assert.deepEqual(
        [found.intent, found.confidence, found.outOfScope, found.cut, found.slots.map((s) => [s.name, s.value])],
        [expected.intent, expected.confidence, expected.out_of_scope, expected.cut, expected.slots.map((s) => [s.name, s.value])],
      );
      // Positions count as strings do here.
      for (const slot of found.slots) assert.equal(text.slice(slot.start, slot.end), slot.value);
    }
    const vector = await engine.embed(id, texts[0]);
    assert.ok(Math.abs(Math.hypot(...vector) - 1) < 1e-5);
    await engine.closeExtractor(id);
  }
});
