/** The worker: an engine that answers messages. */

import type { GenerateRequest, SavedSession } from "./backend.js";
import { Engine } from "./engine.js";
import type { LoadOptions } from "./engine.js";
import { asFailure, unknown } from "./failure.js";
import { hasFusedSimd } from "./features.js";
import type { FromWorker, Method, ToWorker } from "./protocol.js";
import { kindOf } from "./source.js";
import type { Source } from "./source.js";
import { cachedModule, clearStored, removeStored, storedModels } from "./storage.js";

const scope = globalThis as unknown as {
  postMessage(message: FromWorker, transfer?: Transferable[]): void;
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
};

let engine: Promise<Engine> | null = null;
let wasmUrl: string | undefined;
const loading = new Map<number, AbortController>();

/** The engine, started at the first call. */
function started(): Promise<Engine> {
  // Written out, so that bundlers see which files belong to the package.
  const plain = new URL("./bitnet_bg.wasm", import.meta.url);
  const relaxed = new URL("./bitnet_relaxed_bg.wasm", import.meta.url);
  const wasm = wasmUrl ?? (hasFusedSimd() ? relaxed : plain);
  const builtin = new URL("./tiny-stories-ttt.gguf", import.meta.url);
  return (engine ??= Engine.start(cachedModule(String(wasm)), builtin).catch((thrown: unknown) => {
    engine = null;
    throw thrown;
  }));
}

async function call(id: number, method: Method, args: unknown[]): Promise<unknown> {
  const on = (event: unknown) => scope.postMessage({ kind: "event", id, event });
  // These need no module.
  switch (method) {
    case "storedModels":
      return storedModels();
    case "removeStored":
      return removeStored(args[0] as string);
    case "clearStored":
      return clearStored();
    case "kindOf":
      return kindOf(args[0] as Source);
    default:
  }
  if (method === "load" || method === "loadExtractor") {
    // Made before anything is waited for: the call may be ended at once.
    const abort = new AbortController();
    loading.set(id, abort);
    try {
      const of = await started();
      if (method === "loadExtractor") return await of.loadExtractor(args[0] as Source, on, abort.signal);
      return await of.load(args[0] as Source, on, abort.signal, args[1] as LoadOptions | undefined);
    } finally {
      loading.delete(id);
    }
  }
  const of = await started();
  switch (method) {
    case "info":
      return of.info();
    case "open":
      return of.open();
    case "generate":
      return of.generate(args[0] as GenerateRequest, on);
    case "cancel":
      return of.cancel(args[0] as string);
    case "fork":
      return of.fork(args[0] as string);
    case "save":
      return of.save(args[0] as string);
    case "restore":
      return of.restore(args[0] as SavedSession);
    case "close":
      return of.close(args[0] as string);
    case "extract":
      return of.extract(args[0] as string, args[1] as string, args[2] as string | undefined);
    case "timeExtraction":
      return of.timeExtraction(args[0] as string, args[1] as string, args[2] as string | undefined);
    case "embed":
      return of.embed(args[0] as string, args[1] as string);
    case "closeExtractor":
      return of.closeExtractor(args[0] as string);
    default:
      throw unknown("the method", method);
  }
}

scope.onmessage = ({ data }) => {
  switch (data.kind) {
    case "start":
      wasmUrl = data.wasmUrl;
      return;
    case "abort":
      loading.get(data.id)?.abort();
      return;
    case "call": {
      const { id } = data;
      call(id, data.method, data.args).then(
        (value) => scope.postMessage({ kind: "done", id, value }),
        async (thrown: unknown) => {
          scope.postMessage({ kind: "failed", id, error: asFailure(thrown) });
          const dead = (await engine?.catch(() => null))?.dead;
          if (dead) scope.postMessage({ kind: "dead", error: dead });
        },
      );
    }
  }
};
