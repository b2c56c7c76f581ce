// The package in a browser: worker, stream, cancel, storage, policy. Needs Chromium (CHROMIUM names another one).

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { bytes, engine, native, path, runNative, source } from "./common.mjs";
import { serve } from "./serve.mjs";

const chromium = process.env.CHROMIUM ?? "/usr/bin/chromium";
const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const missing = existsSync(chromium) || process.env.CI === "true" ? false : `no ${chromium}: install Debian's package chromium`;
const greedy = { temperature: 0, topP: 1, topK: 0, minP: 0 };

let server, browser, page;
const complaints = [];

before(async () => {
  if (missing) return;
  const playwright = await import("playwright-core");
  server = await serve(here("page"), here("../dist"), path("models"));
  browser = await playwright.chromium.launch({
    executablePath: chromium,
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
  });
  page = await (await browser.newContext()).newPage();
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(server.url);
  await page.waitForFunction(() => globalThis.bitnet);
});
after(async () => {
  await browser?.close();
  await server?.close();
});

test("a story in a worker, piece by piece, with the tokens of the native program", { skip: missing }, async () => {
  const found = await page.evaluate(async (sampling) => {
    const progress = [];
    const model = await bitnet.Model.load(undefined, { onProgress: (p) => progress.push(p) });
    const pieces = [];
    const story = model.generate("Once upon a time", { ...sampling, seed: 0, maxTokens: 100 });
    for await (const piece of story) pieces.push(piece);
    const result = await story.result;
    model.dispose();
    return { pieces, result, info: model.info, progress };
  }, greedy);
  const args = ["run", "-q", "-m", path("crates/bitnet/models/tiny-stories-ttt.gguf"), "--json", "-n", "100", "--temperature", "0", "-p", "Once upon a time"];
  assert.ok(native, "the native program");
  assert.equal(found.pieces.join(""), JSON.parse(runNative(args)).text);
  assert.equal(found.result.newTokens, 100);
  assert.ok(found.progress.some((p) => p.phase === "fetch") && found.progress.some((p) => p.phase === "prepare"));
  console.log(`chromium: ${found.result.decodePerSecond?.toFixed(0)} tokens/s, ${found.info.device}`);
});

test("a file that was dropped, in Japanese, with keeping and without a second download", { skip: missing }, async () => {
  const found = await page.evaluate(async (sampling) => {
    const backend = bitnet.createBackend();
    const blob = await (await fetch("tiny-ja-ttt.gguf")).blob();
    const file = new File([blob], "日本語.gguf");
    await backend.load({ kind: "file", file, name: file.name, keep: true });
    const stored = await backend.storedModels();
    const info = await backend.load({ kind: "stored", name: file.name });
    const session = await backend.open();
    const texts = [];
    const request = { id: "a", session, prompt: { kind: "text", text: "吾輩は猫である。" }, sampling, maxTokens: 60 };
    const result = await backend.generate(request, (e) => e.kind === "text" && texts.push(e.text));
    await backend.clearStored();
    const gone = await backend.load({ kind: "stored", name: file.name }).catch((error) => error);
    backend.terminate();
    return { text: texts.join(""), result, info, stored, gone };
  }, greedy);
  const model = path("models/tiny-ja-ttt.gguf");
  const expected = JSON.parse(runNative(["run", "-q", "-m", model, "--json", "-n", "60", "--temperature", "0", "-p", "吾輩は猫である。"]));
  assert.equal(found.text, expected.text);
  assert.deepEqual(found.stored, [{ name: "日本語.gguf", bytes: bytes("models/tiny-ja-ttt.gguf").length }]);
  assert.equal(found.gone.code, "model");
});

test("a generation ends at once when it is cancelled, and when the loop is left", { skip: missing }, async () => {
  const found = await page.evaluate(async (sampling) => {
    const model = await bitnet.Model.load("tinystories-5m.gguf");
    const abort = new AbortController();
    let pieces = 0;
    const story = model.generate("Once upon a time", { ...sampling, signal: abort.signal });
    for await (const _ of story) if ((pieces += 1) === 2) abort.abort();
    const result = await story.result;
    const left = model.generate("Once upon a time", sampling);
    for await (const _ of left) break;
    const after = await left.result;
    model.dispose();
    return { reasons: [result.reason, after.reason], tokens: result.newTokens };
  }, greedy);
  assert.deepEqual(found.reasons, ["cancelled", "cancelled"]);
});

test("what an address gave is kept: no network the second time", { skip: missing }, async () => {
  const load = () =>
    page.evaluate(async () => {
      const model = await bitnet.Model.load("tinystories-5m.gguf");
      model.dispose();
    });
  await load();
  const count = () => server.requests.filter((name) => name === "/tinystories-5m.gguf").length;
  const before = count();
  await load();
  assert.equal(count(), before);
});

test("errors cross the worker, and it works again after them", { skip: missing }, async () => {
  const found = await page.evaluate(async () => {
    const backend = bitnet.createBackend();
    const codes = [];
    const code = (error) => codes.push(error.code);
    await backend.load({ kind: "url", url: new URL("nowhere.gguf", location.href).href }).catch(code);
    await backend.load({ kind: "url", url: new URL("index.html", location.href).href }).catch(code);
    await backend.load({ kind: "url", url: new URL("tinystories-5m.gguf", location.href).href, sha256: "00".repeat(32) }).catch(code);
    await backend.load({ kind: "bytes", bytes: new Uint8Array(100), name: "zeros" }).catch(code);
    const abort = new AbortController();
    abort.abort();
    await backend.load({ kind: "builtin" }, undefined, abort.signal).catch(code);
    await backend.info().catch(code);
    const info = await backend.load({ kind: "builtin" });
    backend.terminate();
    return { codes, name: info.name };
  });
  assert.deepEqual(found.codes, ["download", "model", "download", "model", "interrupted", "request"]);
});

test("an extractor", { skip: missing }, async () => {
  const found = await page.evaluate(async () => {
    const extractor = await bitnet.Extractor.load("intent/extractor.gguf");
    const answer = await extractor.extract("play some jazz by miles davis");
    extractor.dispose();
    return answer;
  });
  assert.equal(found.intent, "PlayMusic");
  assert.deepEqual(found.slots.map((s) => s.value), ["jazz", "miles davis"]);
});

test("the same module in Node", { skip: missing }, async () => {
  const here = await engine();
  const info = await here.load(source("models/tinystories-5m.gguf"));
  const version = await page.evaluate(async () => (await bitnet.Model.load("tinystories-5m.gguf")).info.version);
  assert.equal(info.version, version);
});

test("nobody complained about the policy or anything else", { skip: missing }, () => {
  // The address that is not there is one that the test asked for.
  assert.deepEqual(complaints.filter((text) => !text.includes("404")), []);
});
