/** The page's side: a `Backend` whose work is done by a worker. */

import type {
  Backend,
  GenerateEvent,
  GenerateRequest,
  GenerateResult,
  GenerationId,
  LoadProgress,
  ModelInfo,
  SavedSession,
  SessionId,
} from "./backend.js";
import type { Extraction, ExtractorTask, LoadOptions } from "./engine.js";
import { failure } from "./failure.js";
import type { Failure } from "./failure.js";
import type { FromWorker, Method, ToWorker } from "./protocol.js";
import type { Source } from "./source.js";

/** Options of `createBackend`. */
export interface BackendOptions {
  /** A worker that runs `bitnet-wasm/worker`, instead of one that is started here. */
  worker?: Worker;
  /** The address of `bitnet_bg.wasm`, if it is not next to the worker. */
  wasmUrl?: string | URL;
  /** Threads to compute with. One is used. */
  threads?: number;
}

interface Pending {
  resolve(value: unknown): void;
  reject(error: Failure): void;
  on: ((event: never) => void) | undefined;
}

/** The backend of a worker, with what the interface of the page does not ask for: extractors and the storage. */
export class WorkerBackend implements Backend {
  readonly kind = "wasm";
  readonly #options: BackendOptions;
  #worker: Worker | null = null;
  #pending = new Map<number, Pending>();
  #next = 0;

  constructor(options: BackendOptions = {}) {
    this.#options = options;
  }

  /** The worker: started at the first call, and again after its module has ended. */
  #started(): Worker {
    if (this.#worker) return this.#worker;
    const worker = this.#options.worker ?? new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    const { wasmUrl } = this.#options;
    worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.#heard(data);
    worker.onerror = (event) => {
      event.preventDefault?.();
      this.#ended(failure("internal", `the worker ended: ${event.message || "its files could not be loaded"}`));
    };
    this.#worker = worker;
    this.#post(wasmUrl === undefined ? { kind: "start" } : { kind: "start", wasmUrl: String(wasmUrl) });
    return worker;
  }

  #post(message: ToWorker): void {
    this.#worker?.postMessage(message);
  }

  #heard(message: FromWorker): void {
    if (message.kind === "dead") return this.#ended(message.error);
    const pending = this.#pending.get(message.id);
    if (!pending) return;
    if (message.kind === "event") return pending.on?.(message.event as never);
    this.#pending.delete(message.id);
    if (message.kind === "done") pending.resolve(message.value);
    else pending.reject(message.error);
  }

  /** Everything that waits fails, and the next call starts another worker. */
  #ended(error: Failure): void {
    this.#worker?.terminate();
    this.#worker = null;
    const all = [...this.#pending.values()];
    this.#pending.clear();
    for (const pending of all) pending.reject(error);
  }

  #call<T>(method: Method, args: unknown[], on?: (event: never) => void, signal?: AbortSignal): Promise<T> {
    this.#started();
    const id = (this.#next += 1);
    return new Promise<T>((resolve, reject) => {
      const abort = () => this.#post({ kind: "abort", id });
      const settle =
        <A>(then: (value: A) => void) =>
        (value: A) => {
          signal?.removeEventListener("abort", abort);
          then(value);
        };
      this.#pending.set(id, { resolve: settle(resolve as (value: unknown) => void), reject: settle(reject), on });
      try {
        this.#post({ kind: "call", id, method, args });
      } catch (thrown) {
        this.#pending.delete(id);
        reject(failure("request", `the request cannot be sent to the worker: ${String(thrown)}`));
        return;
      }
      if (signal?.aborted) abort();
      signal?.addEventListener("abort", abort, { once: true });
    });
  }

  load(source: Source, on?: (progress: LoadProgress) => void, signal?: AbortSignal, options?: LoadOptions): Promise<ModelInfo> {
    return this.#call("load", [source, options], on, signal);
  }

  info(): Promise<ModelInfo> {
    return this.#call("info", []);
  }

  open(): Promise<SessionId> {
    return this.#call("open", []);
  }

  generate(request: GenerateRequest, on: (event: GenerateEvent) => void): Promise<GenerateResult> {
    return this.#call("generate", [request], on);
  }

  cancel(id: GenerationId): Promise<void> {
    return this.#call("cancel", [id]);
  }

  fork(session: SessionId): Promise<SessionId> {
    return this.#call("fork", [session]);
  }

  save(session: SessionId): Promise<SavedSession> {
    return this.#call("save", [session]);
  }

  restore(saved: SavedSession): Promise<SessionId> {
    return this.#call("restore", [saved]);
  }

  close(session: SessionId): Promise<void> {
    return this.#call("close", [session]);
  }

  /** Loads an extractor. */
  loadExtractor(source: Source, on?: (progress: LoadProgress) => void, signal?: AbortSignal): Promise<{ id: string; tasks: ExtractorTask[] }> {
    return this.#call("loadExtractor", [source], on, signal);
  }

  /** Intent and slots of a text. */
  extract(id: string, text: string, task?: string): Promise<Extraction> {
    return this.#call("extract", [id, text, task]);
  }

  /** Milliseconds of one extraction of this text, without the way to the worker and back. */
  timeExtraction(id: string, text: string, task?: string): Promise<number> {
    return this.#call("timeExtraction", [id, text, task]);
  }

  /** The vector of a text, of length 1. */
  embed(id: string, text: string): Promise<Float32Array> {
    return this.#call("embed", [id, text]);
  }

  /** Frees an extractor. */
  closeExtractor(id: string): Promise<void> {
    return this.#call("closeExtractor", [id]);
  }

  /** Whether a file is an extractor, by its first bytes; a file that is neither counts as a model, and loading it says why. */
  kindOf(source: Source): Promise<"model" | "extractor"> {
    return this.#call("kindOf", [source]);
  }

  /** Models that `keep` has stored in this browser. */
  storedModels(): Promise<{ name: string; bytes: number }[]> {
    return this.#call("storedModels", []);
  }

  /** Removes a stored model. */
  removeStored(name: string): Promise<void> {
    return this.#call("removeStored", [name]);
  }

  /** Removes everything that was stored. */
  clearStored(): Promise<void> {
    return this.#call("clearStored", []);
  }

  /** Ends the worker; what waits fails. */
  terminate(): void {
    this.#ended(failure("interrupted", "the worker was ended"));
  }
}

/** A backend that computes in a worker of this page. */
export function createBackend(options: BackendOptions = {}): WorkerBackend {
  return new WorkerBackend(options);
}
