/**
 * The WebAssembly module on this thread, as a `Backend`. A page uses it in a worker (`createBackend`); a program in Node may use it
 * directly.
 */

import type {
  Backend,
  GenerateEvent,
  GenerateRequest,
  GenerateResult,
  GenerationId,
  LoadProgress,
  LossPoint,
  MemoryPoint,
  ModelInfo,
  SavedSession,
  SessionId,
} from "./backend.js";
import init, { Extractor, Failure as WasmFailure, Model, Session, Upload, last_panic, memory_bytes } from "./bitnet.js";
import { asFailure, failure } from "./failure.js";
import type { Failure } from "./failure.js";
import { hasSimd } from "./features.js";
import { each, open } from "./source.js";
import type { Opened, Source } from "./source.js";

/**
 * Options of loading: most tokens of a session (4,096 by default), type of keys and values (`f16` by default); how the head is
 * computed and with which kernel the products, neither of which changes the text.
 */
export interface LoadOptions {
  context?: number;
  kv?: "f32" | "f16" | "bf16" | "q8" | "q4";
  head?: "auto" | "plain" | "coarse";
  kernel?: string;
}

/** The task of an extractor. */
export interface ExtractorTask {
  name: string;
  intents: string[];
  slots: string[];
}

/** What an extractor found; positions count UTF-16 units, as strings do. */
export interface Extraction {
  intent: string;
  confidence: number;
  outOfScope: boolean;
  slots: { name: string; value: string; start: number; end: number }[];
  /** Whether the text has more words than are read. */
  cut: boolean;
  /** The likeliest intents with their probabilities, `intent` first; five at most. */
  alternatives: { intent: string; confidence: number }[];
}

/** Milliseconds after which messages of others are looked at. */
const TURN = 8;
/** Milliseconds between two `text` events. */
const BETWEEN_TEXTS = 16;
/** Milliseconds that timing an extraction takes, twice, and its most calls. */
const TIMED = 5;
const MOST_TIMED = 200;
/** Tokens between two `memory` events. */
const BETWEEN_MEMORY = 16;

interface News {
  read: number;
  total: number;
  cached: number;
  text: string;
  tokens: number;
  done: boolean;
}

/** Lets messages and timers have their turn. */
const turn: () => Promise<void> = (() => {
  const immediate = (globalThis as { setImmediate?: (run: () => void) => void }).setImmediate;
  if (immediate) return () => new Promise<void>((done) => immediate(done));
  const { port1, port2 } = new MessageChannel();
  let waiting: (() => void)[] = [];
  port1.onmessage = () => {
    const all = waiting;
    waiting = [];
    for (const done of all) done();
  };
  return () =>
    new Promise<void>((done) => {
      waiting.push(done);
      port2.postMessage(0);
    });
})();

/** The engine: a model or an extractor, and sessions. */
export class Engine implements Backend {
  readonly kind = "wasm";
  readonly #builtin: string;
  #model: Model | null = null;
  #info: ModelInfo | null = null;
  #sessions = new Map<SessionId, Session>();
  #extractors = new Map<string, Extractor>();
  #running = new Map<GenerationId, { session: Session; cancelled: boolean }>();
  #next = 0;
  /** Why the instance has ended, if it has. */
  #dead: Failure | null = null;

  private constructor(builtin: string) {
    this.#builtin = builtin;
  }

  /** Starts the module: from its address, its bytes, or compiled. `builtin` is the address of the model of the package. */
  static async start(wasm: URL | string | BufferSource | WebAssembly.Module | Promise<Response>, builtin: string | URL = ""): Promise<Engine> {
    if (!hasSimd()) {
      throw failure("unsupported", "this browser has no WebAssembly SIMD (Chrome 91, Firefox 89, Safari 16.4 have)");
    }
    await init({ module_or_path: wasm }).catch((thrown: unknown) => {
      throw asFailure(thrown, "download");
    });
    return new Engine(String(builtin));
  }

  /** Bytes of memory that the module has taken. */
  memory(): number {
    return memory_bytes();
  }

  /** Why the module has ended, if it has: nothing works any more then. */
  get dead(): Failure | null {
    return this.#dead;
  }

  /** Runs what calls the module; what it throws becomes a plain error, and a trap ends the engine. */
  #call<T>(run: () => T): T {
    if (this.#dead) throw this.#dead;
    try {
      return run();
    } catch (thrown) {
      if (thrown instanceof WasmFailure) {
        const { code, message, param, needed, available } = thrown;
        thrown.free();
        throw failure(code as Failure["code"], message, {
          ...(param === undefined ? {} : { param }),
          ...(needed === undefined ? {} : { needed }),
          ...(available === undefined ? {} : { available }),
        });
      }
      throw (this.#dead = this.#trap(thrown));
    }
  }

  #trap(thrown: unknown): Failure {
    let why: string | undefined;
    try {
      why = last_panic();
    } catch {
      // Not even that works.
    }
    const trap = thrown instanceof Error ? thrown.message : String(thrown);
    if (why === undefined && thrown instanceof WebAssembly.RuntimeError && trap.includes("unreachable")) {
      // Only an allocation that fails ends the instance without a word.
      const mib = memory_bytes() >> 20;
      return failure("out-of-memory", `memory ran out at ${mib >>> 0} MiB; load a smaller model or use a shorter context`);
    }
    return failure("internal", why ? `${trap}: ${why}` : trap);
  }

  async load(
    source: Source,
    on?: (progress: LoadProgress) => void,
    signal?: AbortSignal,
    options: LoadOptions = {},
  ): Promise<ModelInfo> {
    if (this.#dead) throw this.#dead;
    this.#end();
    const { upload, name, keep } = await this.#upload(source, on, signal);
    on?.({ phase: "prepare", done: 0, total: null });
    await turn();
    this.#model = this.#call(() => new Model(upload, JSON.stringify({ ...options, name })));
    this.#info = JSON.parse(this.#call(() => this.#loaded().info())) as ModelInfo;
    await keep?.();
    return this.#info;
  }

  /** Brings a file into the memory of the module: one buffer of its size, filled piece by piece. */
  async #upload(source: Source, on?: (progress: LoadProgress) => void, signal?: AbortSignal) {
    let opened: Opened | null = null;
    let upload: Upload | null = null;
    let good = false;
    try {
      signal?.throwIfAborted();
      opened = await open(source, this.#builtin, signal);
      upload = await this.#fill(opened, on, signal);
      const wanted = opened.sha256?.toLowerCase();
      if (wanted !== undefined) {
        on?.({ phase: "verify", done: 0, total: opened.bytes });
        await turn();
        const filled = upload;
        const found = this.#call(() => filled.sha256());
        if (found !== wanted) {
          throw failure("download", `${opened.name} is not the file that was asked for: its SHA-256 is ${found}, not ${wanted}`);
        }
      }
      good = true;
      return { upload, name: opened.name, keep: opened.keep };
    } catch (thrown) {
      if (upload && !this.#dead) upload.free();
      throw signal?.aborted ? failure("interrupted", "loading was cancelled") : asFailure(thrown);
    } finally {
      await opened?.settle(good);
    }
  }

  async #fill(opened: Opened, on?: (progress: LoadProgress) => void, signal?: AbortSignal): Promise<Upload> {
    let { bytes } = opened;
    let early: Uint8Array[] = [];
    if (bytes === null) {
      // Nobody knows how long it is: collected first.
      let sum = 0;
      await each(opened, (piece) => (early.push(piece), (sum += piece.length)), on, signal);
      bytes = sum;
    }
    const len = bytes;
    const upload = this.#call(() => new Upload(len));
    try {
      if (opened.bytes === null) {
        for (const piece of early) this.#call(() => upload.append(piece));
        early = [];
      } else {
        await each(opened, (piece) => this.#call(() => upload.append(piece)), on, signal);
      }
      return upload;
    } catch (thrown) {
      if (!this.#dead) upload.free();
      throw thrown;
    }
  }

  /** Ends the model and its sessions. */
  #end(): void {
    for (const run of this.#running.values()) run.cancelled = true;
    this.#running.clear();
    for (const session of this.#sessions.values()) session.free();
    this.#sessions.clear();
    this.#model?.free();
    this.#model = null;
    this.#info = null;
  }

  #loaded(): Model {
    if (this.#dead) throw this.#dead;
    if (!this.#model) throw failure("request", "no model is loaded");
    return this.#model;
  }

  #session(id: SessionId): Session {
    const session = this.#sessions.get(id);
    if (!session) throw failure("request", `there is no session ${id}`, { param: "session" });
    return session;
  }

  #keep(session: Session): SessionId {
    const id = `s${(this.#next += 1)}`;
    this.#sessions.set(id, session);
    return id;
  }

  async info(): Promise<ModelInfo> {
    this.#loaded();
    return this.#info as ModelInfo;
  }

  async open(): Promise<SessionId> {
    return this.#keep(this.#call(() => this.#loaded().open()));
  }

  async generate(request: GenerateRequest, on: (event: GenerateEvent) => void): Promise<GenerateResult> {
    return (await this.generateTokens(request, on)).result;
  }

  /** Like `generate`, with the ids of the new tokens. */
  async generateTokens(
    request: GenerateRequest,
    on: (event: GenerateEvent) => void,
  ): Promise<{ result: GenerateResult; ids: Uint32Array }> {
    const { id, session: sessionId, innerLoss, sampling, ...rest } = request;
    const session = this.#session(sessionId);
    const seed = sampling?.seed ?? Math.floor(Math.random() * 2 ** 52);
    const body = JSON.stringify({ ...rest, sampling: { ...sampling, seed } });
    this.#call(() => session.begin(body));
    const run = { session, cancelled: false };
    this.#running.set(id, run);
    try {
      await this.#steps(run, on);
      if (innerLoss) await this.#losses(run, on);
      const result = JSON.parse(this.#call(() => session.result()) ?? "null") as GenerateResult;
      const ids = this.#call(() => session.resultIds());
      return { result: { ...result, memory: this.#point(session) }, ids };
    } finally {
      this.#running.delete(id);
    }
  }

  async #steps(run: { session: Session; cancelled: boolean }, on: (event: GenerateEvent) => void): Promise<void> {
    const { session } = run;
    let held = "";
    let turned = performance.now();
    let said = 0;
    let counted = -1;
    for (;;) {
      if (this.#model === null) throw failure("interrupted", "another model was loaded");
      if (run.cancelled) session.cancel();
      const news = JSON.parse(this.#call(() => session.step())) as News;
      if (news.tokens === 0 && !news.done) {
        on({ kind: "reading", read: news.read, total: news.total, cached: news.cached });
      }
      held += news.text;
      const now = performance.now();
      const late = news.done || now - said >= BETWEEN_TEXTS;
      if (held !== "" && late) {
        on({ kind: "text", text: held, tokens: news.tokens });
        held = "";
        said = now;
      }
      if (news.done || (news.tokens > 0 && (counted < 0 || news.tokens - counted >= BETWEEN_MEMORY))) {
        on({ kind: "memory", point: this.#point(session) });
        counted = news.tokens;
      }
      if (news.done) return;
      if (now - turned >= TURN || news.tokens === 0) {
        await turn();
        turned = performance.now();
      }
    }
  }

  /** The inner losses of the whole text, prompt and answer; a cancelled generation has none. */
  async #losses(run: { session: Session; cancelled: boolean }, on: (event: GenerateEvent) => void): Promise<void> {
    const losses = this.#call(() => run.session.losses());
    if (!losses) return;
    try {
      while (!run.cancelled && this.#model !== null) {
        const points = this.#call(() => losses.step());
        if (points === undefined) return;
        on({ kind: "loss", points: JSON.parse(points) as LossPoint[] });
        await turn();
      }
    } finally {
      if (!this.#dead) losses.free();
    }
  }

  #point(session: Session): MemoryPoint {
    const [tokens = 0, kv = 0, state = 0] = this.#call(() => session.memory());
    return { tokens, kv, state };
  }

  async cancel(id: GenerationId): Promise<void> {
    const run = this.#running.get(id);
    if (run) run.cancelled = true;
  }

  async fork(session: SessionId): Promise<SessionId> {
    return this.#keep(this.#call(() => this.#session(session).fork()));
  }

  async save(session: SessionId): Promise<SavedSession> {
    const of = this.#session(session);
    return { bytes: this.#call(() => of.save()), tokens: this.#point(of).tokens };
  }

  async restore(saved: SavedSession): Promise<SessionId> {
    return this.#keep(this.#call(() => this.#loaded().restore(saved.bytes)));
  }

  async close(session: SessionId): Promise<void> {
    const of = this.#sessions.get(session);
    if (!of || this.#dead) return;
    for (const run of this.#running.values()) if (run.session === of) throw failure("busy", "a text is being generated in this session");
    this.#sessions.delete(session);
    of.free();
  }

  /** Loads an extractor; returns its handle and tasks. */
  async loadExtractor(
    source: Source,
    on?: (progress: LoadProgress) => void,
    signal?: AbortSignal,
  ): Promise<{ id: string; tasks: ExtractorTask[] }> {
    if (this.#dead) throw this.#dead;
    const { upload, keep } = await this.#upload(source, on, signal);
    const extractor = this.#call(() => new Extractor(upload));
    const tasks = JSON.parse(this.#call(() => extractor.tasks())) as ExtractorTask[];
    const id = `x${(this.#next += 1)}`;
    this.#extractors.set(id, extractor);
    await keep?.();
    return { id, tasks };
  }

  #extractor(id: string): Extractor {
    const extractor = this.#extractors.get(id);
    if (!extractor) throw failure("request", `there is no extractor ${id}`);
    return extractor;
  }

  /** Intent and slots of a text. */
  async extract(id: string, text: string, task?: string): Promise<Extraction> {
    const extractor = this.#extractor(id);
    return JSON.parse(this.#call(() => extractor.extract(text, task))) as Extraction;
  }

  /** Milliseconds of one extraction of this text in the module, the mean of as many as a few milliseconds hold. */
  async timeExtraction(id: string, text: string, task?: string): Promise<number> {
    const extractor = this.#extractor(id);
    const mean = () => {
      const began = performance.now();
      for (let calls = 1; ; calls += 1) {
        this.#call(() => extractor.extract(text, task));
        const passed = performance.now() - began;
        if (passed >= TIMED || calls >= MOST_TIMED) return passed / calls;
      }
    };
    // The first calls run code that the host has not optimised yet.
    mean();
    return mean();
  }

  /** The vector of a text, of length 1. */
  async embed(id: string, text: string): Promise<Float32Array> {
    const extractor = this.#extractor(id);
    return this.#call(() => extractor.embed(text));
  }

  /** Frees an extractor. An unknown one is not an error. */
  async closeExtractor(id: string): Promise<void> {
    if (!this.#dead) this.#extractors.get(id)?.free();
    this.#extractors.delete(id);
  }
}
