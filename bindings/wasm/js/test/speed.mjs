// node test/speed.mjs [MODEL...]: tokens per second in Chromium and in Node, beside the native program with one AVX2 thread. Rounds
// of all three take turns, so that what else the machine does meets them alike.

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

import { engine as start, module, native, path, source } from "./common.mjs";
import { serve } from "./serve.mjs";

const TOKENS = 256;
const ROUNDS = Number(process.env.ROUNDS ?? 5);
const PROMPT = "Once upon a time there was a little dog. He saw a red ball. ".repeat(8);
const SAMPLING = { temperature: 0, topP: 1, topK: 0, minP: 0, seed: 0 };
const kernel = process.env.KERNEL;
const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const models = process.argv.slice(2);
if (models.length === 0) models.push("crates/bitnet/models/tiny-stories-ttt.gguf", "models/tinystories-5m.gguf");

const engine = await start();
const { chromium } = await import("playwright-core");
const server = await serve(here("page"), here("../dist"), path("models"), path("crates/bitnet/models"));
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
const page = await browser.newPage();
await page.goto(server.url);
await page.waitForFunction(() => globalThis.bitnet);

const median = (all) => all.sort((a, b) => a - b)[all.length >> 1];

for (const model of models) {
  const rates = { chromium: [[], []], node: [[], []], native: [[], []] };
  const options = kernel ? { kernel } : {};
  await engine.load(source(model), undefined, undefined, options);
  await page.evaluate(
    async ([name, options]) => {
      globalThis.backend?.terminate();
      globalThis.backend = bitnet.createBackend();
      await backend.load({ kind: "url", url: new URL(name, location.href).href }, undefined, undefined, options);
    },
    [model.split("/").pop(), options],
  );
  for (let round = 0; round < ROUNDS; round++) {
    const request = { id: "x", prompt: { kind: "text", text: PROMPT }, sampling: SAMPLING, maxTokens: TOKENS };
    const session = await engine.open();
    const node = await engine.generate({ ...request, session }, () => {});
    await engine.close(session);
    const web = await page.evaluate(async (request) => {
      const session = await backend.open();
      const result = await backend.generate({ ...request, session }, () => {});
      await backend.close(session);
      return result;
    }, request);
    const args = ["run", "-q", "-m", path(model), "--json", "-t", "1", "--isa", "avx2", "--draft", "0", "--temperature", "0", "-n", String(TOKENS), "-p", PROMPT];
    const { stats } = JSON.parse(execFileSync(native, args, { encoding: "utf8" }));
    for (const [name, decode, prefill] of [
      ["chromium", web.decodePerSecond, web.prefillPerSecond],
      ["node", node.decodePerSecond, node.prefillPerSecond],
      ["native", stats.decode_tok_s, stats.prefill_tok_s],
    ]) {
      rates[name][0].push(decode);
      rates[name][1].push(prefill);
    }
  }
  const [decode, prefill] = [0, 1].map((i) => Object.fromEntries(Object.entries(rates).map(([name, all]) => [name, median(all[i])])));
  const show = (rate) => `${rate.chromium.toFixed(0)} in Chromium, ${rate.node.toFixed(0)} in Node (${module}), ${rate.native.toFixed(0)} native; Chromium to native ${(rate.chromium / rate.native).toFixed(2)}`;
  console.log(`${model}${kernel ? ` ${kernel}` : ""}\n  decode ${show(decode)}\n  prompt ${show(prefill)}`);
}
await browser.close();
await server.close();
