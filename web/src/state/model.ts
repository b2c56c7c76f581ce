/** What the page knows. Everything is immutable: a change makes new objects along its path. */
import type { BackendError, GenerateResult, LossPoint, MemoryPoint, ModelInfo } from "../backend/types.ts";

export type Mode = "chat" | "story";
export type NodeId = string;

export type NodeStatus =
  | "done"
  /** The model writes it. */
  | "streaming"
  /** The reader stopped it. */
  | "stopped"
  /** The limit of its length was reached. */
  | "cut"
  | "failed";

/** One text of a conversation. Several children of one node are branches; one of them is chosen. */
export interface TextNode {
  id: NodeId;
  parent: NodeId | null;
  role: "root" | "user" | "assistant";
  text: string;
  children: NodeId[];
  chosen: number;
  status: NodeStatus;
  /** What its text had to follow: JSON, or JSON of this schema. */
  json?: { schema: string | null };
  result?: GenerateResult;
  error?: BackendError;
}

export interface Conversation {
  id: string;
  mode: Mode;
  system: string;
  nodes: Record<NodeId, TextNode>;
  /** Milliseconds since 1970. */
  updated: number;
}

export const ROOT: NodeId = "root";

export interface Options {
  temperature: number;
  topP: number;
  topK: number;
  minP: number;
  presencePenalty: number;
  frequencyPenalty: number;
  /** `null` takes another one each time. */
  seed: number | null;
  maxTokens: number;
  /** One stop text per line. */
  stop: string;
  json: "off" | "json" | "schema";
  schema: string;
}

export interface Preferences {
  language: "en" | "ja";
  theme: "system" | "light" | "dark";
}

/** Pictures of the text that was computed last. */
export interface Gauges {
  conversation: string | null;
  node: NodeId | null;
  /** How much of the prompt is read, while it is. */
  reading: { read: number; total: number; cached: number } | null;
  /** Tokens per second now, and over the last moments. */
  rate: number | null;
  rates: number[];
  memory: MemoryPoint[];
  loss: LossPoint[];
}

export type Connection =
  | { status: "connecting" }
  | { status: "ready"; info: ModelInfo }
  /** A key is needed; `refused` if one was tried. */
  | { status: "key"; refused: boolean }
  | { status: "failed"; error: BackendError };

export interface State {
  connection: Connection;
  conversations: Conversation[];
  current: string;
  /** The node that the model writes, if it does. */
  running: { conversation: string; node: NodeId } | null;
  options: Options;
  /** Whether the reader changed the sampling; until then the model's recommendation counts. */
  ownSampling: boolean;
  preferences: Preferences;
  gauges: Gauges;
}

export const NO_GAUGES: Gauges = {
  conversation: null,
  node: null,
  reading: null,
  rate: null,
  rates: [],
  memory: [],
  loss: [],
};

export const DEFAULT_OPTIONS: Options = {
  temperature: 0.7,
  topP: 0.95,
  topK: 0,
  minP: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  seed: null,
  maxTokens: 400,
  stop: "",
  json: "off",
  schema: "",
};

export function newConversation(id: string, mode: Mode, now: number): Conversation {
  const root: TextNode = { id: ROOT, parent: null, role: "root", text: "", children: [], chosen: 0, status: "done" };
  return { id, mode, system: "", nodes: { [ROOT]: root }, updated: now };
}

export function isEmpty(conversation: Conversation): boolean {
  return Object.keys(conversation.nodes).length === 1;
}

/** The chosen texts from the first to the last, without the root. */
export function chosenPath(conversation: Conversation): TextNode[] {
  const path: TextNode[] = [];
  let at = conversation.nodes[ROOT];
  while (at) {
    const next: NodeId | undefined = at.children[at.chosen];
    at = next === undefined ? undefined : conversation.nodes[next];
    if (at) path.push(at);
  }
  return path;
}

/** The texts from the first one to `node`, which is the last. */
export function pathTo(conversation: Conversation, node: NodeId): TextNode[] {
  const path: TextNode[] = [];
  let at = conversation.nodes[node];
  while (at && at.id !== ROOT) {
    path.unshift(at);
    at = at.parent === null ? undefined : conversation.nodes[at.parent];
  }
  return path;
}

/** The last chosen text; the root of an empty conversation. */
export function tip(conversation: Conversation): NodeId {
  return chosenPath(conversation).at(-1)?.id ?? ROOT;
}

/** A name for lists: the first words. */
export function titleOf(conversation: Conversation): string {
  const first = chosenPath(conversation).find((node) => node.text.trim() !== "");
  const line = first?.text.trim().split("\n")[0] ?? "";
  const characters = [...line];
  return characters.length > 48 ? `${characters.slice(0, 47).join("")}…` : line;
}
