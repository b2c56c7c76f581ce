import { fromServer, isBackendError, type ServerError } from "./errors.ts";
import { EventParser } from "./sse.ts";
import type {
  Backend,
  BackendError,
  GenerateEvent,
  GenerateRequest,
  GenerateResult,
  GenerationId,
  LossPoint,
  MemoryPoint,
  Mixer,
  ModelInfo,
  Prompt,
  SavedSession,
  SessionId,
} from "./types.ts";

/** Where the key comes from; asked before each request, so that a new one counts at once. */
export type KeySource = () => string | null;

interface InfoAnswer {
  model: string;
  architecture: string;
  parameters: number;
  mixers: Mixer[];
  context: number | null;
  max_tokens: number;
  chat: boolean;
  constrain: boolean;
  inner_loss: boolean;
  memory: {
    weight_bytes: number;
    bytes_per_token: number;
    constant_bytes: number;
    bytes_per_token_as_attention: number;
  };
  sampling: { temperature: number; top_p: number; top_k: number; min_p: number };
  isa: string;
  threads: number;
  version: string;
}

interface StateAnswer {
  tokens: number;
  prompt_tokens: number;
  cached_tokens: number;
  completion_tokens: number;
  kv_bytes: number;
  constant_bytes: number;
  prefill_seconds: number | null;
  decode_seconds: number | null;
}

interface ChunkAnswer {
  error?: ServerError;
  choices?: { text?: string; delta?: { content?: string | null }; finish_reason?: string | null }[];
  state?: StateAnswer;
  usage?: {
    prompt_tokens: number;
    completion_tokens: number;
    prompt_tokens_details?: { cached_tokens?: number };
  };
}

interface LossAnswer {
  points: { at: number; losses: number[] }[];
}

/**
 * `bitnet serve` over HTTP. The server keeps no sessions for its clients: a session is the text that the page sends
 * again, and the server's cache of prefixes makes that cheap. So a fork is a copy of the text.
 */
export class ServerBackend implements Backend {
  readonly kind = "server";
  private readonly sessions = new Map<SessionId, Prompt | null>();
  private readonly running = new Map<GenerationId, AbortController>();
  private count = 0;
  private known: ModelInfo | null = null;

  /** `base` ends with a slash. */
  constructor(
    private readonly base: string,
    private readonly key: KeySource,
  ) {}

  async load(_source?: unknown, _on?: unknown, signal?: AbortSignal): Promise<ModelInfo> {
    const response = await this.ask("bitnet/info", null, signal);
    const info = (await response.json()) as InfoAnswer;
    this.known = {
      name: info.model,
      architecture: info.architecture,
      parameters: info.parameters,
      mixers: info.mixers,
      context: info.context,
      maxTokens: info.max_tokens,
      chat: info.chat,
      constrain: info.constrain,
      innerLoss: info.inner_loss,
      memory: {
        weights: info.memory.weight_bytes,
        perToken: info.memory.bytes_per_token,
        constant: info.memory.constant_bytes,
        perTokenAsAttention: info.memory.bytes_per_token_as_attention,
      },
      sampling: {
        temperature: short(info.sampling.temperature),
        topP: short(info.sampling.top_p),
        topK: info.sampling.top_k,
        minP: short(info.sampling.min_p),
      },
      device: `${info.isa} × ${info.threads}`,
      version: info.version,
    };
    return this.known;
  }

  async info(): Promise<ModelInfo> {
    return this.known ?? this.load();
  }

  async open(): Promise<SessionId> {
    const id = `s${++this.count}`;
    this.sessions.set(id, null);
    return id;
  }

  async generate(request: GenerateRequest, on: (event: GenerateEvent) => void): Promise<GenerateResult> {
    const abort = new AbortController();
    this.running.set(request.id, abort);
    try {
      return await this.stream(request, on, abort.signal);
    } finally {
      this.running.delete(request.id);
    }
  }

  private async stream(
    request: GenerateRequest,
    on: (event: GenerateEvent) => void,
    signal: AbortSignal,
  ): Promise<GenerateResult> {
    const began = performance.now();
    const result: GenerateResult = {
      reason: "cancelled",
      promptTokens: 0,
      cachedTokens: 0,
      newTokens: 0,
      firstTokenMs: 0,
      decodeMs: 0,
      prefillPerSecond: null,
      decodePerSecond: null,
      memory: null,
    };
    let first: number | null = null;
    let last = began;
    let text = "";
    let complete = false;
    const take = (chunk: ChunkAnswer) => {
      if (chunk.error) throw fromServer(chunk.error);
      const choice = chunk.choices?.[0];
      const piece = choice?.text ?? choice?.delta?.content ?? "";
      if (piece !== "") {
        last = performance.now();
        first ??= last;
        result.newTokens += 1;
        text += piece;
        on({ kind: "text", text: piece, tokens: result.newTokens });
      }
      if (choice?.finish_reason) result.reason = choice.finish_reason === "length" ? "length" : "stop";
      if (chunk.state) this.takeState(chunk.state, result, on);
      if (chunk.usage) {
        result.promptTokens = chunk.usage.prompt_tokens;
        result.newTokens = chunk.usage.completion_tokens;
        result.cachedTokens = chunk.usage.prompt_tokens_details?.cached_tokens ?? 0;
      }
    };
    try {
      const [path, body] = generationBody(request);
      const response = await this.ask(path, body, signal);
      complete = await readEvents(response, take);
    } catch (error) {
      if (!signal.aborted) throw error;
    }
    if (!complete && !signal.aborted) {
      throw problem("interrupted", "the connection ended before the answer was complete");
    }
    this.sessions.set(request.session, continued(request.prompt, text));
    result.firstTokenMs = first === null ? 0 : first - began;
    result.decodeMs ||= first === null ? 0 : last - first;
    result.decodePerSecond ??= rate(result.newTokens - 1, result.decodeMs);
    if (request.innerLoss && !signal.aborted) await this.losses(request, text, on, signal);
    return result;
  }

  private takeState(state: StateAnswer, result: GenerateResult, on: (event: GenerateEvent) => void): void {
    const point: MemoryPoint = { tokens: state.tokens, kv: state.kv_bytes, state: state.constant_bytes };
    result.memory = point;
    result.promptTokens = state.prompt_tokens;
    result.cachedTokens = state.cached_tokens;
    if (state.completion_tokens > 0) result.newTokens = state.completion_tokens;
    if (state.completion_tokens <= 1) {
      const read = Math.min(state.tokens, state.prompt_tokens);
      on({ kind: "reading", read, total: state.prompt_tokens, cached: state.cached_tokens });
    }
    on({ kind: "memory", point });
    if (state.prefill_seconds !== null && state.decode_seconds !== null) {
      result.decodeMs = state.decode_seconds * 1000;
      result.prefillPerSecond = rate(state.prompt_tokens - state.cached_tokens, state.prefill_seconds * 1000);
      result.decodePerSecond = rate(state.completion_tokens - 1, result.decodeMs);
    }
  }

  /** The inner losses of the whole text, prompt and answer. They are an extra: without them the answer stands. */
  private async losses(
    request: GenerateRequest,
    text: string,
    on: (event: GenerateEvent) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const whole = continued(request.prompt, text);
    try {
      const body = whole.kind === "chat" ? { messages: whole.messages } : { prompt: whole.text };
      const response = await this.ask("bitnet/inner-loss", body, signal);
      const answer = (await response.json()) as LossAnswer;
      const points: LossPoint[] = answer.points.map((point) => ({ at: point.at, layers: point.losses }));
      on({ kind: "loss", points });
    } catch {
      // The picture stays empty.
    }
  }

  async cancel(id: GenerationId): Promise<void> {
    this.running.get(id)?.abort();
  }

  async fork(session: SessionId): Promise<SessionId> {
    const id = await this.open();
    this.sessions.set(id, this.sessions.get(session) ?? null);
    return id;
  }

  async save(session: SessionId): Promise<SavedSession> {
    const prompt = this.sessions.get(session) ?? null;
    return { bytes: new TextEncoder().encode(JSON.stringify(prompt)), tokens: 0 };
  }

  async restore(saved: SavedSession): Promise<SessionId> {
    const prompt: unknown = JSON.parse(new TextDecoder().decode(saved.bytes));
    if (prompt !== null && !isPrompt(prompt)) throw problem("session", "these bytes are not a session of the server");
    const id = await this.open();
    this.sessions.set(id, prompt);
    return id;
  }

  async close(session: SessionId): Promise<void> {
    this.sessions.delete(session);
  }

  /** A request; a body makes it a POST. */
  private async ask(path: string, body: object | null, signal?: AbortSignal): Promise<Response> {
    const headers: Record<string, string> = {};
    const key = this.key();
    if (key) headers.Authorization = `Bearer ${key}`;
    if (body) headers["Content-Type"] = "application/json";
    let response: Response;
    try {
      response = await fetch(this.base + path, {
        method: body ? "POST" : "GET",
        headers,
        body: body ? JSON.stringify(body) : null,
        signal: signal ?? null,
        // Nothing of the page belongs to another site, and no cookie belongs to it.
        credentials: "omit",
        redirect: "error",
        referrerPolicy: "no-referrer",
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw problem("unreachable", error instanceof Error ? error.message : String(error));
    }
    if (response.ok) return response;
    const told = (await response.json().catch(() => ({}))) as { error?: ServerError };
    throw fromServer(told.error ?? {}, response.status, response.headers.get("Retry-After"));
  }
}

/** A number of half the width as people write it: 0.7 instead of 0.699999988. */
function short(n: number): number {
  return Number(n.toPrecision(6));
}

function problem(code: BackendError["code"], message: string): BackendError {
  return { code, message };
}

function rate(tokens: number, ms: number): number | null {
  return tokens > 0 && ms > 0 ? (tokens / ms) * 1000 : null;
}

function isPrompt(value: unknown): value is Prompt {
  if (typeof value !== "object" || value === null || !("kind" in value)) return false;
  return (
    (value.kind === "text" && "text" in value && typeof value.text === "string") ||
    (value.kind === "chat" && "messages" in value && Array.isArray(value.messages))
  );
}

function continued(prompt: Prompt, text: string): Prompt {
  if (prompt.kind === "text") return { kind: "text", text: prompt.text + text };
  return { kind: "chat", messages: [...prompt.messages, { role: "assistant", content: text }] };
}

/** The path and the body of a generation. */
export function generationBody(request: GenerateRequest): [string, object] {
  const { prompt, sampling, constraint } = request;
  const body: Record<string, unknown> = {
    stream: true,
    stream_options: { include_usage: true, include_state: true },
    temperature: sampling.temperature,
    top_p: sampling.topP,
    top_k: sampling.topK,
    min_p: sampling.minP,
  };
  if (sampling.presencePenalty) body.presence_penalty = sampling.presencePenalty;
  if (sampling.frequencyPenalty) body.frequency_penalty = sampling.frequencyPenalty;
  if (sampling.seed !== undefined) body.seed = sampling.seed;
  if (request.maxTokens !== undefined) body.max_tokens = request.maxTokens;
  if (request.stop?.length) body.stop = request.stop;
  if (constraint?.kind === "json") body.response_format = { type: "json_object" };
  if (constraint?.kind === "schema") {
    const schema: unknown = JSON.parse(constraint.schema);
    body.response_format = { type: "json_schema", json_schema: { name: "answer", strict: true, schema } };
  }
  if (constraint?.kind === "regex") body.regex = constraint.regex;
  if (constraint?.kind === "grammar") body.grammar = constraint.grammar;
  if (prompt.kind === "chat") return ["v1/chat/completions", { ...body, messages: prompt.messages }];
  return ["v1/completions", { ...body, prompt: prompt.text }];
}

/** Reads a stream to its end; whether it came to its proper end. */
async function readEvents(response: Response, take: (chunk: ChunkAnswer) => void): Promise<boolean> {
  const reader = response.body?.getReader();
  if (!reader) return false;
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return false;
      for (const data of parser.push(value)) {
        if (data === "[DONE]") return true;
        take(JSON.parse(data) as ChunkAnswer);
      }
    }
  } catch (error) {
    if (isBackendError(error)) throw error;
    throw problem("interrupted", error instanceof Error ? error.message : String(error));
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
