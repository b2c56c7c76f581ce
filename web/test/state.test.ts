import { describe, expect, it } from "vitest";
import type { Backend, SessionId } from "../src/backend/types.ts";
import { promptOf, requestOf } from "../src/state/controller.ts";
import {
  chosenPath,
  DEFAULT_OPTIONS,
  NO_GAUGES,
  newConversation,
  pathTo,
  ROOT,
  type State,
  type TextNode,
  tip,
  titleOf,
} from "../src/state/model.ts";
import { type Action, reduce } from "../src/state/reducer.ts";
import { BranchSessions } from "../src/state/sessions.ts";
import { isConversation } from "../src/state/storage.ts";

function start(): State {
  return {
    connection: { status: "connecting" },
    conversations: [newConversation("c", "chat", 1)],
    current: "c",
    running: null,
    options: DEFAULT_OPTIONS,
    ownSampling: false,
    preferences: { language: "en", theme: "system" },
    gauges: NO_GAUGES,
  };
}

function node(id: string, parent: string, role: "user" | "assistant", text: string): TextNode {
  return { id, parent, role, text, children: [], chosen: 0, status: role === "user" ? "done" : "streaming" };
}

function played(actions: Action[], state = start()): State {
  return actions.reduce(reduce, state);
}

const branch = (id: string, parent: string, role: "user" | "assistant", text = id): Action => ({
  type: "branch",
  conversation: "c",
  node: node(id, parent, role, text),
  now: 2,
});

const TALK: Action[] = [branch("q", ROOT, "user", "Why?"), branch("a", "q", "assistant", "")];

function only(state: State) {
  const conversation = state.conversations.find((c) => c.id === "c");
  if (!conversation) throw new Error("it is there");
  return conversation;
}

describe("the tree of texts", () => {
  it("grows, and a new branch is chosen", () => {
    const state = played([...TALK, branch("b", "q", "assistant"), branch("r", "b", "user")]);
    const c = only(state);
    expect(chosenPath(c).map((n) => n.id)).toEqual(["q", "b", "r"]);
    expect(pathTo(c, "a").map((n) => n.id)).toEqual(["q", "a"]);
    expect([tip(c), titleOf(c)]).toEqual(["r", "Why?"]);
    const back = only(reduce(state, { type: "choose", conversation: "c", parent: "q", index: 0 }));
    expect(chosenPath(back).map((n) => n.id)).toEqual(["q", "a"]);
    const far = only(reduce(state, { type: "choose", conversation: "c", parent: "q", index: 99 }));
    expect(far.nodes.q?.chosen).toBe(1);
  });

  it("does not change what it was made from, nor grow at a text that is not there", () => {
    const before = start();
    const frozen = JSON.stringify(before);
    played(TALK, before);
    expect(JSON.stringify(before)).toBe(frozen);
    expect(reduce(before, branch("x", "nowhere", "user")).conversations).toEqual(before.conversations);
  });

  it("is checked when it comes from a file", () => {
    const good = only(played(TALK));
    expect(isConversation(JSON.parse(JSON.stringify(good)))).toBe(true);
    const wrong: unknown[] = [null, 3, {}, { ...good, nodes: {} }, { ...good, mode: "x" }, { ...good, id: 3 }];
    const circle = JSON.parse(JSON.stringify(good));
    circle.nodes.a.children = ["q"];
    const stranger = JSON.parse(JSON.stringify(good));
    stranger.nodes.a.children = ["nowhere"];
    const role = JSON.parse(JSON.stringify(good));
    role.nodes.a.role = "king";
    for (const value of [...wrong, circle, stranger, role])
      expect(isConversation(value), JSON.stringify(value)).toBe(false);
  });
});

describe("a generation", () => {
  it("appends to its text and ends with its result", () => {
    const result = {
      reason: "length" as const,
      promptTokens: 3,
      cachedTokens: 0,
      newTokens: 2,
      firstTokenMs: 1,
      decodeMs: 2,
      prefillPerSecond: null,
      decodePerSecond: 50,
      memory: null,
    };
    const running = played([...TALK, { type: "run", conversation: "c", node: "a" }, { type: "append", text: "Be" }]);
    const state = played(
      [
        { type: "append", text: "cause" },
        { type: "finish", status: "cut", result },
      ],
      running,
    );
    expect(only(state).nodes.a).toMatchObject({ text: "Because", status: "cut", result });
    expect([state.running, state.gauges.rate]).toEqual([null, 50]);
    // Nothing runs any more.
    expect(only(reduce(state, { type: "append", text: "!" })).nodes.a?.text).toBe("Because");
  });

  it("is read before it is written", () => {
    const reading: Action = { type: "reading", reading: { read: 64, total: 200, cached: 0 } };
    const state = played([...TALK, { type: "run", conversation: "c", node: "a" }, reading]);
    expect(state.gauges.reading?.read).toBe(64);
    expect(reduce(state, { type: "append", text: "x" }).gauges.reading).toBeNull();
  });

  it("keeps its pictures small", () => {
    let state = played([...TALK, { type: "run", conversation: "c", node: "a" }]);
    for (let i = 0; i < 3000; i += 1) {
      state = played(
        [
          { type: "memory", points: [{ tokens: i, kv: i, state: 0 }] },
          { type: "rate", rate: i },
        ],
        state,
      );
    }
    expect(state.gauges.memory.length).toBeLessThanOrEqual(401);
    expect(state.gauges.memory.at(-1)?.tokens).toBe(2999);
    expect([state.gauges.rates.length, state.gauges.rates.at(-1)]).toEqual([120, 2999]);
  });
});

describe("options", () => {
  it("follow the model until the reader changes the sampling", () => {
    const recommended: Action = { type: "recommended", options: { temperature: 0.2 } };
    expect(played([recommended]).options.temperature).toBe(0.2);
    const own = played([{ type: "options", options: { maxTokens: 9 } }, recommended]);
    expect([own.options.temperature, own.options.maxTokens]).toEqual([0.2, 9]);
    expect(played([{ type: "options", options: { topK: 3 } }, recommended]).options.temperature).toBe(0.7);
  });

  it("become a request", () => {
    const state = played([{ type: "options", options: { stop: "\n\nEND\n", seed: 4, json: "schema", schema: "{}" } }]);
    const request = requestOf("g", "s", { kind: "text", text: "x" }, state);
    expect(request).toMatchObject({
      id: "g",
      session: "s",
      stop: ["END"],
      constraint: { kind: "schema", schema: "{}" },
    });
    expect(request.sampling.seed).toBe(4);
    expect("seed" in requestOf("g", "s", { kind: "text", text: "x" }, start()).sampling).toBe(false);
  });

  it("keep the instruction in front", () => {
    const state = played([...TALK, { type: "system", id: "c", system: " Be brief. " }]);
    expect(promptOf(only(state), pathTo(only(state), "q"))).toEqual({
      kind: "chat",
      messages: [
        { role: "system", content: "Be brief." },
        { role: "user", content: "Why?" },
      ],
    });
    const story = { ...only(played(TALK)), mode: "story" as const };
    expect(promptOf(story, pathTo(story, "a"))).toEqual({ kind: "text", text: "Why?" });
  });
});

describe("conversations", () => {
  it("are never none", () => {
    const state = played([{ type: "delete", id: "c", replacement: "d", now: 3 }]);
    expect([state.conversations.map((c) => c.id), state.current]).toEqual([["d"], "d"]);
    const two = played([{ type: "new", id: "d", mode: "story", now: 3 }]);
    const one = reduce(two, { type: "delete", id: "d", replacement: "e", now: 4 });
    expect([one.conversations.map((c) => c.id), one.current]).toEqual([["c"], "c"]);
  });
});

describe("sessions of branches", () => {
  function fake() {
    const calls: string[] = [];
    let count = 0;
    const backend: Partial<Backend> = {
      open: async () => `s${++count}`,
      fork: async (session: SessionId) => {
        calls.push(`fork ${session}`);
        return `s${++count}`;
      },
      close: async (session: SessionId) => {
        calls.push(`close ${session}`);
      },
    };
    return { calls, sessions: new BranchSessions(backend as Backend) };
  }

  it("go on where a text ends and fork where it branches", async () => {
    const { calls, sessions } = fake();
    expect(await sessions.take("c", ["q"], "a", [["q"]])).toBe("s1");
    // The reader goes on after `a`, and the model after that: the same session.
    expect(await sessions.take("c", ["q", "a", "r"], "b", [["q", "a", "r"]])).toBe("s1");
    // Another answer to `r`, to `q`, and another text after `a`: forks of what has read the most of it.
    expect(await sessions.take("c", ["q", "a", "r"], "b2", [["q", "a", "r", "b"]])).toBe("s2");
    expect(await sessions.take("c", ["q"], "a2", [["q", "a", "r", "b"]])).toBe("s3");
    expect(await sessions.take("c", ["q", "a2", "r2"], "b3", [["q", "a", "r", "b"]])).toBe("s3");
    expect(calls).toEqual(["fork s1", "fork s1"]);
    await sessions.drop("c");
    expect(calls.length).toBe(5);
  });
});
