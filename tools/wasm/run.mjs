// Runs a WebAssembly program that imports nothing: node run.mjs FILE
import { readFileSync } from "node:fs";

const { instance } = await WebAssembly.instantiate(readFileSync(process.argv[2]), {});
if (instance.exports.main(0, 0) !== 0) {
  throw new Error("the program reported a failure");
}
