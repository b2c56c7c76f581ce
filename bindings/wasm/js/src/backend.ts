/**
 * The one interface between the page and whatever computes: a server over HTTP, WebAssembly in a worker, or the desktop
 * program. This file has types only and imports nothing: the page takes them from here (`web/src/backend/types.ts`).
 *
 * All numbers are plain JavaScript numbers, all texts are whole characters, all bytes are `Uint8Array`.
 */

/** A session of a backend. Opaque to the page; made by `open`, `fork` and `restore`, ended by `close`. */
export type SessionId = string;

/** A running generation. Chosen by the page and unique per backend, so that `cancel` cannot race with `generate`. */
export type GenerationId = string;

/** Where the weights come from. `server` backends ignore it: the server was started with a model. */
export type ModelSource =
  | { kind: "builtin" }
  | { kind: "url"; url: string; bytes?: number; sha256?: string; name?: string }
  | { kind: "bytes"; bytes: Uint8Array; name: string }
  | { kind: "path"; path: string };

export interface LoadProgress {
  phase: "fetch" | "verify" | "prepare";
  done: number;
  /** `null` if the length is not known. */
  total: number | null;
}

/** How a layer mixes tokens: what decides whether memory grows. */
export type Mixer = "attention" | "ttt_linear" | "ttt_mlp" | "gated_delta";

export interface ModelInfo {
  /** Name for people. */
  name: string;
  architecture: string;
  parameters: number;
  /** One per layer, first layer first. */
  mixers: Mixer[];
  /** Tokens of the context; `null` if the model has no limit. */
  context: number | null;
  /** Most new tokens of one answer. */
  maxTokens: number;
  /** Whether there is a chat template; without one only stories are possible. */
  chat: boolean;
  /** Whether `constraint` works. */
  constrain: boolean;
  /** Whether `loss` events come: the model has test-time-training layers and the backend reports them. */
  innerLoss: boolean;
  memory: {
    /** Bytes of the weights as they are held. */
    weights: number;
    /** Bytes of keys and values for one more token; 0 if no layer keeps any. */
    perToken: number;
    /** Bytes of the states of constant size, from the first token to the last. */
    constant: number;
    /** For comparison: bytes per token if every layer were attention of the same width; `null` if not known. */
    perTokenAsAttention: number | null;
  };
  /** What the model's files recommend. */
  sampling: { temperature: number; topP: number; topK: number; minP: number };
  /** Where it computes, for people: `avx512vnni, 2 threads`, `wasm simd128, 4 threads`. */
  device: string;
  /** Version of the library. */
  version: string;
}

export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
}

/**
 * Always the whole text so far. A backend with state compares it with what the session has read and reads the rest
 * only (`Session::generate_from`); one without state sends it all.
 */
export type Prompt = { kind: "chat"; messages: Message[] } | { kind: "text"; text: string };

export interface Sampling {
  /** 0 always takes the most probable token. */
  temperature: number;
  topP: number;
  /** 0 is off. */
  topK: number;
  minP: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  /** Without one each text is another one. An integer from 0 to 2^53 - 1. */
  seed?: number;
}

export type Constraint =
  | { kind: "json" }
  /** A JSON Schema, as JSON text. */
  | { kind: "schema"; schema: string }
  | { kind: "regex"; regex: string }
  | { kind: "grammar"; grammar: string };

export interface GenerateRequest {
  id: GenerationId;
  session: SessionId;
  prompt: Prompt;
  sampling: Sampling;
  /** Most new tokens. */
  maxTokens?: number;
  /** Texts that end the answer and are not part of it. */
  stop?: string[];
  constraint?: Constraint;
  /** Whether `loss` events are wanted; they cost a little. */
  innerLoss?: boolean;
}

/** What the session takes, at a length. */
export interface MemoryPoint {
  /** Tokens in the session: prompt and answer. */
  tokens: number;
  /** Bytes of keys and values. */
  kv: number;
  /** Bytes of states of constant size. */
  state: number;
}

/** The inner loss of test-time-training layers over one piece of the text (a mini-batch). */
export interface LossPoint {
  /** Position of the piece's first token. */
  at: number;
  /** Mean over the tokens and heads of the piece, one number per TTT layer. */
  layers: number[];
}

/** News of a generation, in this order: `reading`*, then `text`* with `memory`* and `loss`* among both. */
export type GenerateEvent =
  /** `read` of `total` prompt tokens are read; the first `cached` were there before. */
  | { kind: "reading"; read: number; total: number; cached: number }
  /** More of the text, and the number of generated tokens so far. */
  | { kind: "text"; text: string; tokens: number }
  | { kind: "memory"; point: MemoryPoint }
  | { kind: "loss"; points: LossPoint[] };

export type FinishReason =
  /** The model ended the text, or a stop text came. */
  | "stop"
  /** `maxTokens` or the context is used up. */
  | "length"
  /** `cancel`, or the signal. */
  | "cancelled";

export interface GenerateResult {
  reason: FinishReason;
  promptTokens: number;
  /** Prompt tokens that were not read again. */
  cachedTokens: number;
  newTokens: number;
  /** Milliseconds until the first token, and from the first to the last. */
  firstTokenMs: number;
  decodeMs: number;
  /** Tokens per second: prompt, answer. `null` if too few to tell. */
  prefillPerSecond: number | null;
  decodePerSecond: number | null;
  memory: MemoryPoint | null;
}

/** What went wrong, as a kind that the page has words for; it tells the reader what to do. */
export type ErrorCode =
  /** No connection, or the server ended. */
  | "unreachable"
  /** A key is needed or wrong. */
  | "key"
  /** This name of the machine is not answered (DNS rebinding rule). */
  | "host"
  /** All places are taken; `retryAfterMs`. */
  | "busy"
  | "context-full"
  | "no-chat-template"
  /** Schema, regex or grammar cannot be used. */
  | "constraint"
  | "constraint-slow"
  /** Another field of the request is wrong; `message` says which. */
  | "request"
  /** The browser has no WebAssembly SIMD, or too little memory. */
  | "unsupported"
  | "out-of-memory"
  /** A download failed or its checksum differs. */
  | "download"
  /** A file that is not a model, or one that this build cannot read. */
  | "model"
  /** Bytes that are not a session, or one of another model. */
  | "session"
  /** A stream ended before its end. */
  | "interrupted"
  | "closing"
  | "internal";

/** Thrown by every method (rejected promise). Plain data, so that it crosses a worker: check `code`, not `instanceof`. */
export interface BackendError {
  code: ErrorCode;
  /** The library's own words, English; shown as a detail. */
  message: string;
  /** The field of the request that is wrong, if one is. */
  param?: string;
  retryAfterMs?: number;
}

/** A saved session: bytes for `restore` of the same backend kind and the same model. */
export interface SavedSession {
  bytes: Uint8Array;
  /** Tokens within. */
  tokens: number;
}

export interface Backend {
  readonly kind: "server" | "wasm" | "desktop";

  /** Makes the model ready. Once before everything else; again for another model, which ends all sessions. */
  load(source: ModelSource, on?: (progress: LoadProgress) => void, signal?: AbortSignal): Promise<ModelInfo>;

  info(): Promise<ModelInfo>;

  /** A new empty session. */
  open(): Promise<SessionId>;

  /**
   * Generates. Resolves when the text has ended, also after `cancel` (reason `cancelled`); rejects with a
   * `BackendError`. Events come before it settles and never after. One generation per session at a time.
   */
  generate(request: GenerateRequest, on: (event: GenerateEvent) => void): Promise<GenerateResult>;

  /** Ends a generation soon; its promise resolves. An unknown or ended id is not an error. */
  cancel(id: GenerationId): Promise<void>;

  /** A session that continues independently with the same text; shares memory where the backend can. */
  fork(session: SessionId): Promise<SessionId>;

  /** The session as bytes. */
  save(session: SessionId): Promise<SavedSession>;

  /** A session from bytes of `save`. */
  restore(saved: SavedSession): Promise<SessionId>;

  /** Frees a session. An unknown id is not an error. */
  close(session: SessionId): Promise<void>;
}
