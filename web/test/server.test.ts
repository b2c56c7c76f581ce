import { afterEach, describe, expect, it, vi } from "vitest";
import { fromServer } from "../src/backend/errors.ts";
import { generationBody, ServerBackend } from "../src/backend/server.ts";
import type { GenerateEvent, GenerateRequest } from "../src/backend/types.ts";

const SAMPLING = { temperature: 0.5, topP: 0.9, topK: 4, minP: 0.1 };

function request(more: Partial<GenerateRequest> = {}): GenerateRequest {
  return { id: "g", session: "s1", prompt: { kind: "text", text: "Once" }, sampling: SAMPLING, ...more };
}

/** A stream of these events, in pieces of few bytes. */
function stream(events: unknown[], end = "data: [DONE]\n\n"): Response {
  const text = events.map((e) => `data: ${JSON.stringify(e)}\n\n`).join("") + end;
  const bytes = new TextEncoder().encode(text);
  const body = new ReadableStream({
    start(controller) {
      for (let at = 0; at < bytes.length; at += 7) controller.enqueue(bytes.subarray(at, at + 7));
      controller.close();
    },
  });
  return new Response(body, { status: 200 });
}

const piece = (text: string) => ({ choices: [{ index: 0, text, finish_reason: null }] });
const state = (tokens: number, completion: number, seconds: number | null) => ({
  choices: [],
  state: {
    tokens,
    prompt_tokens: 10,
    cached_tokens: 2,
    completion_tokens: completion,
    kv_bytes: 100 * tokens,
    constant_bytes: 7,
    prefill_seconds: seconds,
    decode_seconds: seconds,
  },
});

async function run(response: Response | (() => Promise<Response>), asked = request()) {
  const fetched = vi.fn(async () => (typeof response === "function" ? response() : response));
  vi.stubGlobal("fetch", fetched);
  const backend = new ServerBackend("http://h/", () => "key");
  const session = await backend.open();
  const events: GenerateEvent[] = [];
  const result = backend.generate({ ...asked, session }, (event) => events.push(event));
  return { backend, session, fetched, events, result };
}

afterEach(() => vi.unstubAllGlobals());

describe("a generation by the server", () => {
  it("is told as text, reading and memory, and summed up", async () => {
    const end = { choices: [{ index: 0, text: "", finish_reason: "length" }] };
    const usage = {
      choices: [],
      usage: { prompt_tokens: 10, completion_tokens: 5, prompt_tokens_details: { cached_tokens: 2 } },
    };
    const sent = [state(6, 0, null), piece("a"), piece("空"), state(15, 5, 0.5), end, usage];
    const { events, result, fetched } = await run(stream(sent));
    expect(await result).toMatchObject({
      reason: "length",
      promptTokens: 10,
      cachedTokens: 2,
      newTokens: 5,
      prefillPerSecond: 16,
      decodePerSecond: 8,
      memory: { tokens: 15, kv: 1500, state: 7 },
    });
    expect(events.map((e) => (e.kind === "text" ? e.text : e.kind))).toEqual([
      "reading",
      "memory",
      "a",
      "空",
      "memory",
    ]);
    const [url, init] = fetched.mock.calls[0] as unknown as [string, RequestInit];
    expect([url, init.method, (init.headers as Record<string, string>).Authorization]).toEqual([
      "http://h/v1/completions",
      "POST",
      "Bearer key",
    ]);
    expect([init.credentials, init.redirect]).toEqual(["omit", "error"]);
  });

  it("is an error if it breaks off, fails within, or does not begin", async () => {
    const code = async (response: Response | (() => Promise<Response>)) => {
      const { result } = await run(response);
      return result.then(
        () => "none",
        (e: { code: string }) => e.code,
      );
    };
    expect(await code(stream([piece("a")], ""))).toBe("interrupted");
    expect(await code(stream([piece("a"), { error: { message: "m", code: "server_shutdown" } }]))).toBe("closing");
    expect(await code(new Response("no json", { status: 500 }))).toBe("request");
    expect(await code(() => Promise.reject(new TypeError("no connection")))).toBe("unreachable");
  });

  it("ends when it is cancelled, with what has come", async () => {
    let controller: ReadableStreamDefaultController<Uint8Array> | undefined;
    const body = new ReadableStream<Uint8Array>({
      start(c) {
        controller = c;
        c.enqueue(new TextEncoder().encode(`data: ${JSON.stringify(piece("half"))}\n\n`));
      },
    });
    const { backend, session, events, result, fetched } = await run(new Response(body));
    await vi.waitFor(() => expect(events.length).toBe(1));
    const init = (fetched.mock.calls[0] as unknown as [string, RequestInit])[1];
    init.signal?.addEventListener("abort", () => controller?.error(new DOMException("gone", "AbortError")));
    await backend.cancel("g");
    expect(await result).toMatchObject({ reason: "cancelled", newTokens: 1 });
    // A fork has the text, and so has what was saved of it.
    const saved = await backend.save(await backend.fork(session));
    expect(new TextDecoder().decode(saved.bytes)).toContain("Oncehalf");
    await backend.restore(saved);
    const wrong = { bytes: new TextEncoder().encode('{"kind":"x"}'), tokens: 0 };
    await expect(backend.restore(wrong)).rejects.toMatchObject({ code: "session" });
  });
});

describe("a request", () => {
  it("has the server's names", () => {
    const [path, body] = generationBody(
      request({
        prompt: { kind: "chat", messages: [{ role: "user", content: "x" }] },
        maxTokens: 9,
        stop: ["."],
        constraint: { kind: "schema", schema: '{"type":"integer"}' },
        sampling: { ...SAMPLING, seed: 3, presencePenalty: 1 },
      }),
    );
    expect(path).toBe("v1/chat/completions");
    expect(body).toMatchObject({
      top_p: 0.9,
      top_k: 4,
      min_p: 0.1,
      seed: 3,
      presence_penalty: 1,
      max_tokens: 9,
      stop: ["."],
    });
    expect(body).toHaveProperty("response_format.json_schema.schema.type", "integer");
    expect(generationBody(request())[1]).not.toHaveProperty("seed");
  });
});

describe("an error of the server", () => {
  it.each([
    [{ code: "invalid_api_key" }, 401, "key"],
    [{ code: "host_not_allowed" }, 403, "host"],
    [{ code: "rate_limit_exceeded" }, 429, "busy"],
    [{ code: "context_length_exceeded", param: "messages" }, 400, "context-full"],
    [{ code: "no_chat_template" }, 400, "no-chat-template"],
    [{ code: "constraint_too_slow", param: "response_format" }, 400, "constraint-slow"],
    [{ param: "response_format.json_schema" }, 400, "constraint"],
    [{ param: "temperature" }, 400, "request"],
    [{ type: "server_error" }, undefined, "internal"],
    [{}, 503, "closing"],
  ])("%j, %s", (error, status, code) => {
    expect(fromServer({ message: "m", ...error }, status).code).toBe(code);
  });

  it("says when to come back", () => {
    expect(fromServer({ code: "rate_limit_exceeded" }, 429, "2").retryAfterMs).toBe(2000);
  });
});
