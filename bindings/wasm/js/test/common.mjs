// What the tests share: files of the repository, the module, the native program.

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { Engine } from "../dist/engine.js";
import { hasFusedSimd } from "../dist/features.js";

/** A file of the repository. */
export const path = (name) => fileURLToPath(new URL(`../../../../${name}`, import.meta.url));

export const bytes = (name) => new Uint8Array(readFileSync(path(name)));

/** The native program that everything is compared with. */
export const native = [process.env.BITNET, path("target/debug/bitnet"), path("target/release/bitnet")].find(
  (program) => program && existsSync(program),
);

export function runNative(args) {
  if (!native) throw new Error("build the native program first (cargo build --bin bitnet), or name it in BITNET");
  return execFileSync(native, args, { encoding: "utf8", maxBuffer: 64 << 20, stdio: ["ignore", "pipe", "ignore"] });
}

/** The module that a page here would take. */
export const module = hasFusedSimd() ? "bitnet_relaxed_bg.wasm" : "bitnet_bg.wasm";

/** The engine. A process has one module, so all tests of a file share it. */
export const engine = () => Engine.start(readFileSync(new URL(`../dist/${module}`, import.meta.url)));

export const source = (name) => ({ kind: "bytes", bytes: bytes(name), name });

/** An error of the engine, as it must be: plain data with a known code. */
export function isFailure(...codes) {
  return (error) => {
    if (!codes.includes(error?.code) || typeof error.message !== "string" || error.message.length < 10) {
      throw new Error(`expected ${codes.join(" or ")}, got ${JSON.stringify(error)} ${error?.stack ?? ""}`);
    }
    return true;
  };
}
