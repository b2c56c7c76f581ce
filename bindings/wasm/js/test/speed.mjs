// node test/speed.mjs MODEL... : tokens per second of the module here, and of the native program with one AVX2 thread.

import { execFileSync } from "node:child_process";

import { engine as start, native, path, source } from "./common.mjs";

const TOKENS = 256;
const ROUNDS = 5;
const kernels = (process.env.KERNELS ?? "").split(",").filter(Boolean);
const engine = await start();

const median = (all) => all.sort((a, b) => a - b)[all.length >> 1];

for (const model of process.argv.slice(2)) {
  for (const kernel of kernels.length > 0 ? kernels : [undefined]) {
    await engine.load(source(model), undefined, undefined, kernel ? { kernel } : {});
    const [decode, prefill] = [[], []];
    for (let round = 0; round < ROUNDS; round++) {
      const session = await engine.open();
      const prompt = { kind: "text", text: "Once upon a time there was a little dog. He saw a red ball. ".repeat(8) };
      const sampling = { temperature: 0, topP: 1, topK: 0, minP: 0 };
      const result = await engine.generate({ id: "x", session, prompt, sampling, maxTokens: TOKENS }, () => {});
      decode.push(result.decodePerSecond);
      prefill.push(result.prefillPerSecond);
      await engine.close(session);
    }
    console.log(`${model} ${kernel ?? "default"}: ${median(decode).toFixed(0)} tokens/s, prompt ${median(prefill).toFixed(0)}`);
  }
  if (!native) continue;
  const rates = [];
  for (let round = 0; round < ROUNDS; round++) {
    const args = ["run", "-q", "-m", path(model), "--json", "-t", "1", "--isa", "avx2", "--draft", "0", "--temperature", "0"];
    args.push("-n", String(TOKENS), "-p", "Once upon a time there was a little dog. He saw a red ball. ".repeat(8));
    rates.push(JSON.parse(execFileSync(native, args, { encoding: "utf8" })).stats.decode_tok_s);
  }
  console.log(`${model} native, avx2, 1 thread: ${median(rates).toFixed(0)} tokens/s`);
}
