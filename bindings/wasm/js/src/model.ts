/** The short way: `Model.load`, `for await (const piece of model.generate(prompt))`. */

import type { Constraint, GenerateResult, LoadProgress, Message, ModelInfo, Prompt, Sampling } from "./backend.js";
import { createBackend } from "./client.js";
import type { BackendOptions, WorkerBackend } from "./client.js";
import type { Extraction, ExtractorTask, LoadOptions } from "./engine.js";
import type { Source } from "./source.js";

/** Something with weights in it: bytes of a GGUF file, a file, an address, or a source of the page. Nothing is the model of the package. */
export type Weights = Uint8Array | ArrayBuffer | Blob | URL | string | Source;

/** Options of `load`. */
export interface ModelOptions extends LoadOptions, BackendOptions {
  onProgress?: (progress: LoadProgress) => void;
  signal?: AbortSignal;
}

/** Options of `generate`; what is left out is as the model's files recommend. */
export interface GenerateOptions extends Partial<Sampling> {
  maxTokens?: number;
  stop?: string[];
  constraint?: Constraint;
  signal?: AbortSignal;
}

function sourceOf(weights: Weights | undefined): Source {
  if (weights === undefined) return { kind: "builtin" };
  if (weights instanceof Uint8Array) return { kind: "bytes", bytes: weights, name: "model" };
  if (weights instanceof ArrayBuffer) return { kind: "bytes", bytes: new Uint8Array(weights), name: "model" };
  if (weights instanceof Blob) return { kind: "file", file: weights, name: weights instanceof File ? weights.name : "model" };
  if (typeof weights === "string" || weights instanceof URL) return { kind: "url", url: new URL(weights, document.baseURI).href };
  return weights;
}

/** A generation: pieces of text as they come, and the outcome at the end. */
export interface Generation extends AsyncIterable<string> {
  /** The outcome, once the text has ended. */
  readonly result: Promise<GenerateResult>;
}

/** A language model in a worker. */
export class Model {
  readonly backend: WorkerBackend;
  readonly info: ModelInfo;
  #next = 0;

  private constructor(backend: WorkerBackend, info: ModelInfo) {
    this.backend = backend;
    this.info = info;
  }

  static async load(weights?: Weights, options: ModelOptions = {}): Promise<Model> {
    const { onProgress, signal, worker, wasmUrl, threads, ...asked } = options;
    const backend = createBackend({
      ...(worker === undefined ? {} : { worker }),
      ...(wasmUrl === undefined ? {} : { wasmUrl }),
      ...(threads === undefined ? {} : { threads }),
    });
    try {
      return new Model(backend, await backend.load(sourceOf(weights), onProgress, signal, asked));
    } catch (thrown) {
      backend.terminate();
      throw thrown;
    }
  }

  /**
   * Generates, from a text or from the messages of a conversation. Ends early when the loop is left or the signal aborts.
   */
  generate(prompt: string | Message[], options: GenerateOptions = {}): Generation {
    const of: Prompt = typeof prompt === "string" ? { kind: "text", text: prompt } : { kind: "chat", messages: prompt };
    const id = `m${(this.#next += 1)}`;
    const waiting: string[] = [];
    let wake: () => void = () => {};
    let over = false;
    const tell = (piece: string) => {
      waiting.push(piece);
      wake();
    };
    const result = this.#run(id, of, options, tell).finally(() => {
      over = true;
      wake();
    });
    // Whoever iterates sees the error; nobody has to look at the outcome.
    result.catch(() => {});
    const { backend } = this;
    const pieces = async function* () {
      try {
        for (;;) {
          while (waiting.length > 0) yield waiting.shift() as string;
          if (over) break;
          await new Promise<void>((done) => (wake = done));
        }
        await result;
      } finally {
        if (!over) await backend.cancel(id);
      }
    };
    return { result, [Symbol.asyncIterator]: pieces };
  }

  async #run(id: string, prompt: Prompt, options: GenerateOptions, tell: (piece: string) => void): Promise<GenerateResult> {
    const { maxTokens, stop, constraint, signal, ...asked } = options;
    signal?.throwIfAborted();
    const { backend } = this;
    const session = await backend.open();
    const cancel = () => void backend.cancel(id);
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      const request = {
        id,
        session,
        prompt,
        sampling: { ...this.info.sampling, ...asked },
        ...(maxTokens === undefined ? {} : { maxTokens }),
        ...(stop === undefined ? {} : { stop }),
        ...(constraint === undefined ? {} : { constraint }),
      };
      return await backend.generate(request, (event) => {
        if (event.kind === "text") tell(event.text);
      });
    } finally {
      signal?.removeEventListener("abort", cancel);
      await backend.close(session).catch(() => {});
    }
  }

  /** Ends the worker and frees everything. */
  dispose(): void {
    this.backend.terminate();
  }
}

/** An extractor of utterances in a worker: intent, slots, out of scope. */
export class Extractor {
  readonly backend: WorkerBackend;
  readonly tasks: ExtractorTask[];
  readonly #id: string;

  private constructor(backend: WorkerBackend, id: string, tasks: ExtractorTask[]) {
    this.backend = backend;
    this.#id = id;
    this.tasks = tasks;
  }

  static async load(weights: Weights, options: Omit<ModelOptions, keyof LoadOptions> = {}): Promise<Extractor> {
    const { onProgress, signal, ...rest } = options;
    const backend = createBackend(rest);
    try {
      const { id, tasks } = await backend.loadExtractor(sourceOf(weights), onProgress, signal);
      return new Extractor(backend, id, tasks);
    } catch (thrown) {
      backend.terminate();
      throw thrown;
    }
  }

  /** Intent and slots of a text, of the first task or of the one that is named. */
  extract(text: string, task?: string): Promise<Extraction> {
    return this.backend.extract(this.#id, text, task);
  }

  /** Milliseconds of one extraction of this text, without the way to the worker and back. */
  time(text: string, task?: string): Promise<number> {
    return this.backend.timeExtraction(this.#id, text, task);
  }

  /** The vector of a text, of length 1. */
  embed(text: string): Promise<Float32Array> {
    return this.backend.embed(this.#id, text);
  }

  /** Ends the worker and frees everything. */
  dispose(): void {
    this.backend.terminate();
  }
}
