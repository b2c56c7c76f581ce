/** What stays in this browser: conversations and preferences, and for this tab the key. Nothing leaves it. */
import {
  type Conversation,
  DEFAULT_OPTIONS,
  NO_GAUGES,
  newConversation,
  type Options,
  type Preferences,
  ROOT,
  type State,
  type TextNode,
} from "./model.ts";

const NAME = "bitnet.page.1";
const KEY = "bitnet.key";
/** Characters that are stored at most; the oldest conversations go first. */
const MAX_CHARACTERS = 3_000_000;

/** Where texts and preferences stay from one start to the next; each home of the page may have its own. */
export interface Keeper {
  /** What was kept: anything, since it may be damaged. */
  read(): unknown;
  /** Whether it could be kept. */
  write(kept: string): boolean;
}

/** The storage of the browser. */
export const browserKeeper: Keeper = {
  read() {
    try {
      return JSON.parse(localStorage.getItem(NAME) ?? "null");
    } catch {
      return null;
    }
  },
  write(kept) {
    try {
      localStorage.setItem(NAME, kept);
      return true;
    } catch {
      return false;
    }
  },
};

interface Stored {
  conversations: Conversation[];
  current: string;
  options: Options;
  ownSampling: boolean;
  preferences: Preferences;
}

export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(9));
  return Array.from(bytes, (b) => b.toString(36).padStart(2, "0")).join("");
}

function preferredLanguage(languages: readonly string[]): "en" | "ja" {
  const first = languages.find((l) => /^(en|ja)\b/i.test(l));
  return first?.toLowerCase().startsWith("ja") ? "ja" : "en";
}

/** The state at the start. */
export function initialState(keeper: Keeper = browserKeeper): State {
  const stored = keptIn(keeper);
  const kept = Array.isArray(stored?.conversations) ? stored.conversations : [];
  const conversations = kept.filter(isConversation).map(settled);
  const preferences: Preferences = {
    language: preferredLanguage(navigator.languages),
    theme: "system",
    ...stored?.preferences,
  };
  const first = conversations[0] ?? newConversation(newId(), "chat", Date.now());
  return {
    connection: { status: "connecting" },
    conversations: conversations.length > 0 ? conversations : [first],
    current: conversations.find((c) => c.id === stored?.current)?.id ?? first.id,
    running: null,
    options: { ...DEFAULT_OPTIONS, ...stored?.options },
    ownSampling: stored?.ownSampling ?? false,
    preferences,
    gauges: NO_GAUGES,
  };
}

function keptIn(keeper: Keeper): Partial<Stored> | null {
  const value = keeper.read();
  return typeof value === "object" ? value : null;
}

/** Whether a value is a conversation: files and storage may hold anything. */
export function isConversation(value: unknown): value is Conversation {
  if (typeof value !== "object" || value === null) return false;
  const { id, mode, system, nodes, updated } = value as Partial<Conversation>;
  if (typeof id !== "string" || (mode !== "chat" && mode !== "story")) return false;
  if (typeof system !== "string" || typeof updated !== "number") return false;
  if (typeof nodes !== "object" || nodes === null || !isNode(nodes[ROOT])) return false;
  const all = Object.entries(nodes);
  return all.every(([name, node]) => {
    if (!isNode(node) || node.id !== name) return false;
    // Each text is the child of its parent, so that there is no circle.
    return node.children.every((child) => nodes[child]?.parent === name) && (name === ROOT) === (node.parent === null);
  });
}

function isNode(value: unknown): value is TextNode {
  if (typeof value !== "object" || value === null) return false;
  const { id, role, text, children, chosen } = value as Partial<TextNode>;
  return (
    typeof id === "string" &&
    (role === "root" || role === "user" || role === "assistant") &&
    typeof text === "string" &&
    typeof chosen === "number" &&
    Array.isArray(children) &&
    children.every((child) => typeof child === "string")
  );
}

/** A text that was written when the page was closed has stopped. */
function settled(conversation: Conversation): Conversation {
  const nodes = Object.entries(conversation.nodes).map(([id, node]): [string, TextNode] => [
    id,
    node.status === "streaming" ? { ...node, status: "stopped" } : node,
  ]);
  return { ...conversation, nodes: Object.fromEntries(nodes) };
}

/** Stores what is to stay; whether it fitted. */
export function store(state: State, keeper: Keeper = browserKeeper): boolean {
  const { current, options, ownSampling, preferences } = state;
  const kept: Conversation[] = [];
  let characters = 0;
  for (const conversation of state.conversations) {
    if (Object.keys(conversation.nodes).length === 1 && conversation.id !== current) continue;
    characters += JSON.stringify(conversation).length;
    if (characters > MAX_CHARACTERS && kept.length > 0) break;
    kept.push(conversation);
  }
  const stored: Stored = { conversations: kept, current, options, ownSampling, preferences };
  return keeper.write(JSON.stringify(stored));
}

/** The key of the server: for this tab, until it is closed. */
export const serverKey = {
  get(): string | null {
    try {
      return sessionStorage.getItem(KEY);
    } catch {
      return null;
    }
  },
  set(key: string | null): void {
    try {
      if (key === null) sessionStorage.removeItem(KEY);
      else sessionStorage.setItem(KEY, key);
    } catch {
      // Without storage it is asked for again after a reload.
    }
  },
};
