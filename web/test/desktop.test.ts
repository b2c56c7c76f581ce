import { beforeEach, describe, expect, it, vi } from "vitest";
import { DesktopBackend } from "../desktop/backend.ts";
import type { Bridge, Notice } from "../desktop/bridge.ts";
import { Companion } from "../desktop/memory.ts";
import { GLAD_FOR, moodOf, SLEEPS_AFTER } from "../desktop/mood.ts";
import { TEXTS } from "../desktop/texts.ts";
import type { GenerateEvent, GenerateResult, ModelInfo } from "../src/backend/types.ts";
import { LANGUAGES } from "../src/i18n/format.ts";
import { chosenPath, DEFAULT_OPTIONS, NO_GAUGES, newConversation, type State, tip } from "../src/state/model.ts";

const INFO = {
  name: "tiny",
  chat: false,
  innerLoss: false,
  sampling: { temperature: 0.7, topP: 1, topK: 0, minP: 0 },
} as ModelInfo;

const RESULT: GenerateResult = {
  reason: "stop",
  promptTokens: 3,
  cachedTokens: 0,
  newTokens: 2,
  firstTokenMs: 1,
  decodeMs: 1,
  prefillPerSecond: null,
  decodePerSecond: null,
  memory: { tokens: 5, kv: 0, state: 64 },
};

type Answer = (args: Record<string, unknown>) => unknown;

/** A program whose commands are functions; it notes what it was asked. */
function program(answers: Record<string, Answer>) {
  const asked: [string, unknown][] = [];
  const bridge: Bridge = {
    async call<T>(command: string, args?: Record<string, unknown> | Uint8Array) {
      asked.push([command, args]);
      return (await answers[command]?.((args ?? {}) as Record<string, unknown>)) as T;
    },
    channel: (on) => on,
  };
  return { bridge, asked, commands: () => asked.map(([command]) => command) };
}

/** The program's answer to `generate`: some news through the channel. */
const telling =
  (...news: unknown[]): Answer =>
  async (args) => {
    const on = args.news as (item: unknown) => void;
    for (const item of news) on(item);
  };

const REQUEST = {
  id: "g",
  session: "d1",
  prompt: { kind: "text" as const, text: "Once" },
  sampling: { temperature: 0, topP: 1, topK: 0, minP: 0 },
};

describe("the backend of the desktop", () => {
  it("hands events over in order and ends with the result", async () => {
    const text = (word: string, tokens: number) => ({ kind: "text", text: word, tokens });
    const { bridge, asked } = program({
      generate: telling({ kind: "reading", read: 1, total: 3, cached: 0 }, text("a", 1), text("b", 2), {
        kind: "done",
        result: RESULT,
      }),
    });
    const events: GenerateEvent[] = [];
    const result = await new DesktopBackend(bridge).generate(REQUEST, (event) => events.push(event));
    expect(result).toEqual(RESULT);
    expect(events.map((event) => event.kind)).toEqual(["reading", "text", "text"]);
    expect(asked[0]?.[1]).toMatchObject({ request: REQUEST });
  });

  it("rejects with the program's error, whether it comes early or late", async () => {
    const error = { code: "context-full", message: "too long" };
    const late = program({ generate: telling({ kind: "text", text: "a", tokens: 1 }, { kind: "failed", error }) });
    await expect(new DesktopBackend(late.bridge).generate(REQUEST, () => {})).rejects.toEqual(error);
    const early = program({ generate: () => Promise.reject(error) });
    await expect(new DesktopBackend(early.bridge).generate(REQUEST, () => {})).rejects.toEqual(error);
  });

  it("loads the chosen model whatever the page asks for, and nothing from elsewhere", async () => {
    const { bridge, asked } = program({ load: () => INFO });
    const backend = new DesktopBackend(bridge, "/models/mine.gguf");
    const progress: string[] = [];
    expect(await backend.load({ kind: "builtin" }, ({ phase }) => progress.push(phase))).toBe(INFO);
    backend.model = null;
    await backend.load({ kind: "builtin" });
    await backend.load({ kind: "path", path: "/other.gguf" });
    expect(asked.map(([, args]) => (args as { path: unknown }).path)).toEqual([
      "/models/mine.gguf",
      null,
      "/other.gguf",
    ]);
    expect(progress).toEqual(["prepare"]);
    await expect(backend.load({ kind: "url", url: "https://example.org/x" })).rejects.toMatchObject({
      code: "unsupported",
    });
    const stop = AbortSignal.abort();
    await expect(backend.load({ kind: "builtin" }, undefined, stop)).rejects.toMatchObject({ code: "interrupted" });
  });

  it("saves and restores bytes as they are", async () => {
    const sent = new Uint8Array([7, 0, 0, 0, 0, 0, 0, 0, 1, 2, 255]);
    const { bridge, asked } = program({ save: () => sent.buffer, restore: () => "d2" });
    const backend = new DesktopBackend(bridge);
    const saved = await backend.save("d1");
    expect([saved.tokens, [...saved.bytes]]).toEqual([7, [1, 2, 255]]);
    expect(await backend.restore(saved)).toBe("d2");
    expect(asked[1]?.[1]).toBe(saved.bytes);
  });

  it("has the other commands", async () => {
    const { bridge, asked } = program({ open: () => "d1", fork: () => "d2", info: () => INFO });
    const backend = new DesktopBackend(bridge);
    expect([await backend.open(), await backend.fork("d1"), await backend.info()]).toEqual(["d1", "d2", INFO]);
    await backend.cancel("g");
    await backend.close("d1");
    expect(asked.slice(3)).toEqual([
      ["cancel", { id: "g" }],
      ["close", { session: "d1" }],
    ]);
  });
});

describe("memory", () => {
  beforeEach(() => {
    vi.stubGlobal("requestAnimationFrame", (run: () => void) => setTimeout(run, 0));
    vi.stubGlobal("cancelAnimationFrame", clearTimeout);
    vi.stubGlobal("document", { hidden: false });
    vi.stubGlobal("navigator", { languages: ["en"] });
  });

  function companion(answers: Record<string, Answer>, texts: string | null = null, model: string | null = null) {
    const desk = program({
      load: () => INFO,
      open: () => "d1",
      recall: () => null,
      generate: telling({ kind: "text", text: " a dog", tokens: 2 }, { kind: "done", result: RESULT }),
      ...answers,
    });
    const notices: Notice[] = [];
    const backend = new DesktopBackend(desk.bridge, model);
    return { ...desk, notices, backend, it: Companion.of(desk.bridge, backend, texts, (n) => notices.push(n)) };
  }

  it("keeps texts with the session that has read them, and both come back", async () => {
    const first = companion({});
    await first.it.connect();
    await first.it.send("Once");
    await first.it.leaveForGood();
    const [, kept] = first.asked.findLast(([command]) => command === "keep") ?? [];
    const { texts, states } = kept as { texts: string; states: object[] };
    const { id } = first.it.conversation;
    expect(states).toEqual([{ conversation: id, tip: tip(first.it.conversation), session: "d1" }]);

    const second = companion({ recall: () => ({ session: "d9", tip: tip(first.it.conversation), tokens: 5 }) }, texts);
    expect(chosenPath(second.it.conversation).map((node) => node.text)).toEqual(["Once", " a dog"]);
    await second.it.connect();
    expect(second.asked).toContainEqual(["recall", { conversation: id }]);
    await second.it.send(" And");
    const [, sent] = second.asked.findLast(([command]) => command === "generate") ?? [];
    expect((sent as { request: { session: string } }).request.session).toBe("d9");
    expect(second.commands()).not.toContain("open");
  });

  it("tells of a state that cannot be used, and goes on without it", async () => {
    const error = { code: "session", message: "it is damaged" };
    const desk = companion({ recall: () => Promise.reject(error) });
    await desk.it.connect();
    expect(desk.notices).toEqual([{ kind: "state", message: "it is damaged" }]);
    await desk.it.send("Once");
    expect(desk.commands()).toContain("open");
  });

  it("closes a state of a text that is gone", async () => {
    const desk = companion({ recall: () => ({ session: "d9", tip: "unknown", tokens: 5 }) });
    await desk.it.connect();
    expect(desk.asked).toContainEqual(["close", { session: "d9" }]);
  });

  it("begins with nothing whatever is in the file", () => {
    for (const texts of ["", "{", "[]", "7", '{"conversations": 7}', '{"conversations": [{"id": 1}], "current": 2}']) {
      expect(chosenPath(companion({}, texts).it.conversation)).toEqual([]);
    }
  });

  it("takes the model within the program if the chosen one fails", async () => {
    const error = { code: "model", message: "no such file" };
    const desk = companion({ load: ({ path }) => (path ? Promise.reject(error) : INFO) }, null, "/gone.gguf");
    await desk.it.connect();
    expect(desk.it.state.connection.status).toBe("ready");
    expect(desk.notices).toEqual([{ kind: "model", message: "no such file" }]);
  });

  it("opens other sessions after another model was loaded, which ends those of before", async () => {
    let next = 0;
    const desk = companion({ open: () => `d${++next}` });
    await desk.it.connect();
    await desk.it.send("Once");
    await desk.it.connect();
    await desk.it.send(" And");
    const used = desk.asked.flatMap(([command, args]) =>
      command === "generate" ? [(args as { request: { session: string } }).request.session] : [],
    );
    expect(used).toEqual(["d1", "d2"]);
  });

  it("tells of a full disk once", async () => {
    const error = { code: "internal", message: "there is no space" };
    const desk = companion({ keep: () => Promise.reject(error) });
    desk.it.flush();
    desk.it.flush();
    await desk.it.leaveForGood();
    expect(desk.notices).toEqual([{ kind: "save", message: "there is no space" }]);
  });

  it("forgets everything, also in the files", async () => {
    const desk = companion({});
    await desk.it.connect();
    await desk.it.send("Once");
    const old = desk.it.conversation.id;
    await desk.it.removeAll();
    expect(desk.asked).toContainEqual(["close", { session: "d1" }]);
    const from = desk.asked.findIndex(([command]) => command === "forget");
    expect(desk.asked[from]).toEqual(["forget", { conversation: null }]);
    for (const [command, args] of desk.asked.slice(from)) {
      if (command === "keep") expect((args as { texts: string }).texts).not.toContain(old);
    }
  });
});

describe("moods", () => {
  const state: State = {
    connection: { status: "ready", info: INFO },
    conversations: [newConversation("c", "story", 1)],
    current: "c",
    running: null,
    options: DEFAULT_OPTIONS,
    ownSampling: false,
    preferences: { language: "en", theme: "system" },
    gauges: NO_GAUGES,
  };
  const mood = (change: Partial<State>, open = false, idle = 0) =>
    moodOf({ state: { ...state, ...change }, open, idle });

  it("follow what happens", () => {
    const running = { conversation: "c", node: "n" };
    expect(mood({ connection: { status: "connecting" } })).toBe("reading");
    expect(mood({ connection: { status: "failed", error: { code: "model", message: "" } } })).toBe("worried");
    expect(mood({ running })).toBe("reading");
    const begun = newConversation("c", "story", 1);
    const node = { id: "n", parent: "root", role: "assistant", children: [], chosen: 0, status: "streaming" } as const;
    begun.nodes.n = { ...node, text: "A", children: [] };
    expect(mood({ running, conversations: [begun] })).toBe("speaking");
    expect(
      mood({ running, conversations: [begun], gauges: { ...NO_GAUGES, reading: { read: 1, total: 2, cached: 0 } } }),
    ).toBe("reading");
    const done = { ...NO_GAUGES, node: "n" };
    expect(mood({ gauges: done })).toBe("glad");
    expect(mood({ gauges: done }, true, GLAD_FOR)).toBe("listening");
    expect(mood({ gauges: done }, false, GLAD_FOR)).toBe("calm");
    expect(mood({}, false, SLEEPS_AFTER)).toBe("asleep");
  });
});

describe("its words", () => {
  it("are there in both languages", () => {
    const japanese = /[\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Han}]/u;
    const words = (value: unknown): string[] => {
      if (typeof value === "string") return [value];
      if (typeof value === "function" && value.length > 0 && value !== TEXTS.ja.page && value !== TEXTS.en.page) {
        return [String(value("x", "y", "z"))];
      }
      return typeof value === "object" && value !== null ? Object.values(value).flatMap(words) : [];
    };
    expect(words(TEXTS.ja).length).toBe(words(TEXTS.en).length);
    expect(words(TEXTS.ja).filter((text) => !japanese.test(text))).toEqual([]);
    for (const language of ["en", "ja"] as const) {
      const page = TEXTS[language].page(LANGUAGES[language]);
      expect(Object.keys(page)).toEqual(Object.keys(LANGUAGES[language]));
      // Two of the errors are a server's, and none of the desktop's.
      const { unreachable, host, ...errors } = page.errors;
      expect([unreachable, host].length).toBe(2);
      expect(JSON.stringify({ ...page, errors })).not.toMatch(/bitnet serve|--template|--constraint|--context/);
    }
  });
});
