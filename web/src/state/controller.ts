/** What the reader does, as calls of the backend and actions of the reducer. */
import { asBackendError } from "../backend/errors.ts";
import type {
  Backend,
  Constraint,
  GenerateEvent,
  GenerateRequest,
  Prompt,
  Sampling,
  SessionId,
} from "../backend/types.ts";
import {
  type Conversation,
  isEmpty,
  type Mode,
  type NodeId,
  pathTo,
  ROOT,
  type State,
  type TextNode,
  tip,
} from "./model.ts";
import { type Action, reduce } from "./reducer.ts";
import { BranchSessions } from "./sessions.ts";
import { browserKeeper, isConversation, type Keeper, newId, serverKey, store } from "./storage.ts";

/** Milliseconds between two figures of the speed. */
const RATE_EVERY = 120;
/** Milliseconds from a change until it is stored; longer while a text grows, since all of it is written each time. */
const STORE_AFTER = 400;
const STORE_AFTER_WHILE_WRITING = 3000;

export class Controller {
  private listeners = new Set<() => void>();
  private readonly sessions: BranchSessions;
  private storing: ReturnType<typeof setTimeout> | null = null;
  private generation: string | null = null;
  /** The page goes: what breaks off now is not an error. */
  private leaving = false;

  constructor(
    private readonly backend: Backend,
    private current: State,
    private readonly keeper: Keeper = browserKeeper,
  ) {
    this.sessions = new BranchSessions(backend);
  }

  /** Where it computes. */
  get home(): Backend["kind"] {
    return this.backend.kind;
  }

  get state(): State {
    return this.current;
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  dispatch(action: Action): void {
    this.current = reduce(this.current, action);
    for (const listener of this.listeners) listener();
    const after = this.current.running ? STORE_AFTER_WHILE_WRITING : STORE_AFTER;
    this.storing ??= setTimeout(() => this.flush(), after);
  }

  /** Stores at once, before the page goes. */
  flush(): void {
    if (this.storing !== null) clearTimeout(this.storing);
    this.storing = null;
    store(this.current, this.keeper);
  }

  /** Each conversation with the session that has read it up to its last text, where there is one. */
  bindings(): { conversation: string; tip: NodeId; session: SessionId }[] {
    return this.current.conversations.flatMap((conversation) => {
      const last = tip(conversation);
      const session = this.sessions.get(conversation.id, last);
      return session === undefined ? [] : [{ conversation: conversation.id, tip: last, session }];
    });
  }

  /** Gives a text the session that has read it; whether there is such a text. */
  bind(conversation: string, last: NodeId, session: SessionId): boolean {
    const found = this.current.conversations.find((c) => c.id === conversation)?.nodes[last] !== undefined;
    if (found) this.sessions.set(conversation, last, session);
    return found;
  }

  /** The page goes, or comes back from the browser's memory. */
  leave(leaving: boolean): void {
    this.leaving = leaving;
    if (!leaving && this.current.running && this.generation === null)
      this.dispatch({ type: "finish", status: "stopped" });
    this.flush();
  }

  async connect(): Promise<void> {
    this.dispatch({ type: "connection", connection: { status: "connecting" } });
    this.sessions.clear();
    try {
      const info = await this.backend.load({ kind: "builtin" });
      this.dispatch({ type: "connection", connection: { status: "ready", info } });
      const { temperature, topP, topK, minP } = info.sampling;
      this.dispatch({ type: "recommended", options: { temperature, topP, topK, minP } });
      // Without a chat template only stories work: an empty chat becomes one.
      const now = this.conversation;
      if (!info.chat && now.mode === "chat" && isEmpty(now)) this.begin("story");
    } catch (caught) {
      const error = asBackendError(caught);
      if (error.code === "key") {
        this.dispatch({ type: "connection", connection: { status: "key", refused: serverKey.get() !== null } });
      } else {
        this.dispatch({ type: "connection", connection: { status: "failed", error } });
      }
    }
  }

  async useKey(key: string): Promise<void> {
    serverKey.set(key.trim() || null);
    await this.connect();
  }

  get conversation(): Conversation {
    const found =
      this.current.conversations.find((c) => c.id === this.current.current) ?? this.current.conversations[0];
    if (!found) throw new Error("there is always a conversation");
    return found;
  }

  /** Begins a conversation, or takes the empty one that is there. */
  begin(mode: Mode): void {
    const empty = this.current.conversations.find((c) => isEmpty(c) && c.mode === mode);
    if (empty) this.dispatch({ type: "select", id: empty.id });
    else this.dispatch({ type: "new", id: newId(), mode, now: Date.now() });
  }

  async remove(id: string): Promise<void> {
    if (this.current.running?.conversation === id) await this.stop();
    this.dispatch({ type: "delete", id, replacement: newId(), now: Date.now() });
    await this.sessions.drop(id);
  }

  async removeAll(): Promise<void> {
    await this.stop();
    for (const conversation of this.current.conversations) await this.sessions.drop(conversation.id);
    this.dispatch({ type: "delete-all", replacement: newId(), mode: this.conversation.mode, now: Date.now() });
    this.flush();
  }

  /** A text of the reader after the last one, and what the model makes of it. In a story the text may be empty. */
  async send(text: string): Promise<void> {
    const conversation = this.conversation;
    let parent = tip(conversation);
    if (text !== "") parent = this.add(conversation.id, parent, "user", text);
    await this.answer(conversation.id, parent);
  }

  /** Another answer in place of one. */
  async regenerate(node: NodeId): Promise<void> {
    const conversation = this.conversation;
    const parent = conversation.nodes[node]?.parent;
    if (parent !== undefined && parent !== null) await this.answer(conversation.id, parent);
  }

  /** A branch with another text in place of one; a text of the reader is answered. */
  async edit(node: NodeId, text: string): Promise<void> {
    const conversation = this.conversation;
    const old = conversation.nodes[node];
    if (!old || old.parent === null || old.role === "root" || text === old.text) return;
    const added = this.add(conversation.id, old.parent, old.role, text);
    if (old.role === "user") await this.answer(conversation.id, added);
  }

  choose(parent: NodeId, index: number): void {
    this.dispatch({ type: "choose", conversation: this.conversation.id, parent, index });
  }

  async stop(): Promise<void> {
    if (this.generation !== null) await this.backend.cancel(this.generation);
  }

  private add(conversation: string, parent: NodeId, role: "user" | "assistant", text: string): NodeId {
    const node: TextNode = { id: newId(), parent, role, text, children: [], chosen: 0, status: "done" };
    this.dispatch({ type: "branch", conversation, node, now: Date.now() });
    return node.id;
  }

  private async answer(id: string, parent: NodeId): Promise<void> {
    const conversation = this.current.conversations.find((c) => c.id === id);
    if (!conversation || this.current.running) return;
    const { options } = this.current;
    const path = pathTo(conversation, parent);
    const json = options.json === "off" ? null : { schema: options.json === "schema" ? options.schema : null };
    const node: TextNode = {
      id: newId(),
      parent,
      role: "assistant",
      text: "",
      children: [],
      chosen: 0,
      status: "streaming",
      ...(json ? { json } : {}),
    };
    this.dispatch({ type: "branch", conversation: id, node, now: Date.now() });
    this.dispatch({ type: "run", conversation: id, node: node.id });
    const news = new News(this);
    this.generation = node.id;
    try {
      const tips = leaves(conversation);
      const names = path.map((n) => n.id);
      const session = await this.sessions.take(id, names, node.id, tips);
      const request = requestOf(node.id, session, promptOf(conversation, path), this.current);
      const result = await this.backend.generate(request, (event) => news.take(event));
      news.flush();
      const status = result.reason === "cancelled" ? "stopped" : result.reason === "length" ? "cut" : "done";
      this.dispatch({ type: "finish", status, result });
    } catch (caught) {
      news.flush();
      if (this.leaving) return;
      const error = asBackendError(caught);
      this.dispatch({ type: "finish", status: "failed", error });
      if (error.code === "key") {
        this.dispatch({ type: "connection", connection: { status: "key", refused: serverKey.get() !== null } });
      }
    } finally {
      this.generation = null;
      this.flush();
    }
  }

  /** The conversation as a file, with the backend's session of its last text. */
  async export(): Promise<string> {
    const conversation = this.conversation;
    const session = this.sessions.get(conversation.id, tip(conversation));
    const saved = session === undefined ? null : await this.backend.save(session).catch(() => null);
    const state = saved ? { backend: this.backend.kind, tokens: saved.tokens, bytes: toBase64(saved.bytes) } : null;
    return JSON.stringify({ format: "bitnet-conversation", version: 1, conversation, state }, null, 1);
  }

  /** A conversation from a file; whether it was one. */
  async import(text: string): Promise<boolean> {
    let file: {
      format?: unknown;
      conversation?: unknown;
      state?: { backend?: unknown; tokens?: unknown; bytes?: unknown } | null;
    };
    try {
      file = JSON.parse(text);
    } catch {
      return false;
    }
    if (file?.format !== "bitnet-conversation" || !isConversation(file.conversation)) return false;
    const conversation: Conversation = { ...file.conversation, id: newId(), updated: Date.now() };
    this.dispatch({ type: "import", conversation });
    const { state } = file;
    if (state && state.backend === this.backend.kind && typeof state.bytes === "string") {
      try {
        const session = await this.backend.restore({
          bytes: fromBase64(state.bytes),
          tokens: Number(state.tokens) || 0,
        });
        this.sessions.set(conversation.id, tip(conversation), session);
      } catch {
        // The text is there; its state is computed again.
      }
    }
    return true;
  }
}

/** Collects the news of a generation and hands them on once per frame: a fast model has thousands of tokens a second. */
class News {
  private text = "";
  private actions: Action[] = [];
  private frame: number | null = null;
  private since = 0;
  private counted = 0;

  constructor(private readonly controller: Controller) {}

  take(event: GenerateEvent): void {
    if (event.kind === "text") {
      this.text += event.text;
      this.count(event.tokens);
    } else if (event.kind === "reading") {
      const { read, total, cached } = event;
      if (read < total) this.actions.push({ type: "reading", reading: { read, total, cached } });
    } else if (event.kind === "memory") {
      this.actions.push({ type: "memory", points: [event.point] });
    } else {
      this.actions.push({ type: "loss", points: event.points });
    }
    this.frame ??= requestAnimationFrame(() => this.flush());
    // Frames do not come while the page is hidden.
    if (document.hidden) this.flush();
  }

  private count(tokens: number): void {
    const now = performance.now();
    if (this.since === 0) [this.since, this.counted] = [now, tokens];
    if (now - this.since < RATE_EVERY) return;
    this.actions.push({ type: "rate", rate: ((tokens - this.counted) / (now - this.since)) * 1000 });
    [this.since, this.counted] = [now, tokens];
  }

  flush(): void {
    if (this.frame !== null) cancelAnimationFrame(this.frame);
    this.frame = null;
    const { text, actions } = this;
    this.text = "";
    this.actions = [];
    for (const action of actions) this.controller.dispatch(action);
    if (text !== "") this.controller.dispatch({ type: "append", text });
  }
}

function leaves(conversation: Conversation): NodeId[][] {
  const all = Object.values(conversation.nodes).filter((node) => node.children.length === 0 && node.id !== ROOT);
  return all.map((leaf) => pathTo(conversation, leaf.id).map((node) => node.id));
}

/** The text for the model. */
export function promptOf(conversation: Conversation, path: TextNode[]): Prompt {
  const system = conversation.system.trim();
  if (conversation.mode === "story") {
    const text = path.map((node) => node.text).join("");
    return { kind: "text", text: system === "" ? text : `${system}\n\n${text}` };
  }
  const said = path.map((node) => ({
    role: node.role === "user" ? ("user" as const) : ("assistant" as const),
    content: node.text,
  }));
  return { kind: "chat", messages: system === "" ? said : [{ role: "system", content: system }, ...said] };
}

/** A request with the options of the reader. */
export function requestOf(id: string, session: string, prompt: Prompt, state: State): GenerateRequest {
  const { options, connection } = state;
  const sampling: Sampling = {
    temperature: options.temperature,
    topP: options.topP,
    topK: options.topK,
    minP: options.minP,
    presencePenalty: options.presencePenalty,
    frequencyPenalty: options.frequencyPenalty,
    ...(options.seed === null ? {} : { seed: options.seed }),
  };
  const stop = options.stop.split("\n").filter((line) => line !== "");
  const constraint: Constraint | null =
    options.json === "json"
      ? { kind: "json" }
      : options.json === "schema"
        ? { kind: "schema", schema: options.schema }
        : null;
  return {
    id,
    session,
    prompt,
    sampling,
    maxTokens: options.maxTokens,
    ...(stop.length > 0 ? { stop } : {}),
    ...(constraint ? { constraint } : {}),
    innerLoss: connection.status === "ready" && connection.info.innerLoss,
  };
}

function toBase64(bytes: Uint8Array): string {
  let text = "";
  for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(text);
}

function fromBase64(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}
