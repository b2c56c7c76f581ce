import type { BackendError, GenerateResult, LossPoint, MemoryPoint } from "../backend/types.ts";
import {
  type Connection,
  type Conversation,
  type Gauges,
  type Mode,
  NO_GAUGES,
  type NodeId,
  type NodeStatus,
  newConversation,
  type Options,
  type Preferences,
  type State,
  type TextNode,
} from "./model.ts";

export type Action =
  | { type: "connection"; connection: Connection }
  | { type: "new"; id: string; mode: Mode; now: number }
  | { type: "select"; id: string }
  | { type: "delete"; id: string; replacement: string; now: number }
  | { type: "delete-all"; replacement: string; mode: Mode; now: number }
  | { type: "import"; conversation: Conversation }
  | { type: "system"; id: string; system: string }
  /** A new text below `parent`, which is chosen. */
  | { type: "branch"; conversation: string; node: TextNode; now: number }
  | { type: "choose"; conversation: string; parent: NodeId; index: number }
  | { type: "run"; conversation: string; node: NodeId }
  | { type: "append"; text: string }
  | { type: "finish"; status: NodeStatus; result?: GenerateResult; error?: BackendError }
  | { type: "options"; options: Partial<Options> }
  | { type: "recommended"; options: Partial<Options> }
  | { type: "preferences"; preferences: Partial<Preferences> }
  | { type: "reading"; reading: Gauges["reading"] }
  | { type: "rate"; rate: number | null }
  | { type: "memory"; points: MemoryPoint[] }
  | { type: "loss"; points: LossPoint[] };

/** Rates that are kept for the picture. */
const MAX_RATES = 120;
/** Points of memory that are kept; then every second one is left out. */
const MAX_MEMORY = 400;

const SAMPLING: (keyof Options)[] = ["temperature", "topP", "topK", "minP"];

export function reduce(state: State, action: Action): State {
  switch (action.type) {
    case "connection":
      return { ...state, connection: action.connection };
    case "new":
      return withConversation(state, newConversation(action.id, action.mode, action.now));
    case "select":
      return { ...state, current: action.id };
    case "delete": {
      const rest = state.conversations.filter((c) => c.id !== action.id);
      const mode = state.conversations.find((c) => c.id === action.id)?.mode ?? "chat";
      if (rest.length === 0)
        return withConversation({ ...state, conversations: [] }, newConversation(action.replacement, mode, action.now));
      const current = state.current === action.id ? (rest[0]?.id ?? "") : state.current;
      return { ...state, conversations: rest, current };
    }
    case "delete-all":
      return withConversation(
        { ...state, conversations: [], gauges: NO_GAUGES },
        newConversation(action.replacement, action.mode, action.now),
      );
    case "import":
      return withConversation(state, action.conversation);
    case "system":
      return change(state, action.id, (c) => ({ ...c, system: action.system }));
    case "branch":
      return change(state, action.conversation, (c) => branch(c, action.node, action.now));
    case "choose":
      return change(state, action.conversation, (c) =>
        changeNode(c, action.parent, (n) => ({
          ...n,
          chosen: Math.max(0, Math.min(n.children.length - 1, action.index)),
        })),
      );
    case "run":
      return {
        ...state,
        running: { conversation: action.conversation, node: action.node },
        gauges: { ...NO_GAUGES, conversation: action.conversation, node: action.node },
      };
    case "append": {
      const next = changeRunning(state, (n) => ({ ...n, text: n.text + action.text }));
      return next.gauges.reading === null ? next : { ...next, gauges: { ...next.gauges, reading: null } };
    }
    case "finish": {
      const { status, result, error } = action;
      const next = changeRunning(state, (n) => ({
        ...n,
        status,
        ...(result ? { result } : {}),
        ...(error ? { error } : {}),
      }));
      const rate = result?.decodePerSecond ?? null;
      return { ...next, running: null, gauges: { ...next.gauges, reading: null, rate } };
    }
    case "options": {
      const own = state.ownSampling || SAMPLING.some((name) => name in action.options);
      return { ...state, options: { ...state.options, ...action.options }, ownSampling: own };
    }
    case "recommended":
      return state.ownSampling ? state : { ...state, options: { ...state.options, ...action.options } };
    case "preferences":
      return { ...state, preferences: { ...state.preferences, ...action.preferences } };
    case "reading":
      return { ...state, gauges: { ...state.gauges, reading: action.reading } };
    case "rate": {
      const rates = action.rate === null ? state.gauges.rates : [...state.gauges.rates, action.rate].slice(-MAX_RATES);
      return { ...state, gauges: { ...state.gauges, reading: null, rate: action.rate, rates } };
    }
    case "memory":
      return { ...state, gauges: { ...state.gauges, memory: thinned([...state.gauges.memory, ...action.points]) } };
    case "loss":
      return { ...state, gauges: { ...state.gauges, loss: [...state.gauges.loss, ...action.points] } };
  }
}

function withConversation(state: State, conversation: Conversation): State {
  const others = state.conversations.filter((c) => c.id !== conversation.id);
  return { ...state, conversations: [conversation, ...others], current: conversation.id };
}

function change(state: State, id: string, f: (conversation: Conversation) => Conversation): State {
  return { ...state, conversations: state.conversations.map((c) => (c.id === id ? f(c) : c)) };
}

function changeNode(conversation: Conversation, id: NodeId, f: (node: TextNode) => TextNode): Conversation {
  const node = conversation.nodes[id];
  return node ? { ...conversation, nodes: { ...conversation.nodes, [id]: f(node) } } : conversation;
}

function changeRunning(state: State, f: (node: TextNode) => TextNode): State {
  const running = state.running;
  return running ? change(state, running.conversation, (c) => changeNode(c, running.node, f)) : state;
}

function branch(conversation: Conversation, node: TextNode, now: number): Conversation {
  const parent = node.parent ?? "";
  const grown = changeNode(conversation, parent, (p) => ({
    ...p,
    children: [...p.children, node.id],
    chosen: p.children.length,
  }));
  if (grown === conversation) return conversation;
  return { ...grown, updated: now, nodes: { ...grown.nodes, [node.id]: node } };
}

/** The newest point stays; of a long series every second one goes. */
function thinned(points: MemoryPoint[]): MemoryPoint[] {
  if (points.length <= MAX_MEMORY) return points;
  return points.filter((_, i) => i % 2 === 0 || i === points.length - 1);
}
