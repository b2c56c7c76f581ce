/** Messages between the page and its worker. */

import type { Failure } from "./failure.js";

/** The methods of the engine that a page calls. */
export type Method =
  | "load"
  | "info"
  | "open"
  | "generate"
  | "cancel"
  | "fork"
  | "save"
  | "restore"
  | "close"
  | "loadExtractor"
  | "extract"
  | "timeExtraction"
  | "embed"
  | "closeExtractor"
  | "kindOf"
  | "storedModels"
  | "removeStored"
  | "clearStored";

/** To the worker: where its files are, first of all; a call; the end of a call that can be ended. */
export type ToWorker =
  | { kind: "start"; wasmUrl?: string }
  | { kind: "call"; id: number; method: Method; args: unknown[] }
  | { kind: "abort"; id: number };

/** From the worker: news of a call, its outcome, and the end of the engine. */
export type FromWorker =
  | { kind: "event"; id: number; event: unknown }
  | { kind: "done"; id: number; value: unknown }
  | { kind: "failed"; id: number; error: Failure }
  | { kind: "dead"; error: Failure };
