/** How the character feels: a function of what happens. */
import type { State } from "../src/state/model.ts";

export type Mood = "calm" | "listening" | "reading" | "speaking" | "glad" | "worried" | "asleep";

export interface Moment {
  state: State;
  /** The bubble is open. */
  open: boolean;
  /** Milliseconds since something happened. */
  idle: number;
}

/** Milliseconds that an answer is enjoyed, and after which the character sleeps. */
export const GLAD_FOR = 4000;
export const SLEEPS_AFTER = 180_000;

export function moodOf({ state, open, idle }: Moment): Mood {
  const { connection, running, gauges, conversations } = state;
  if (connection.status === "failed") return "worried";
  if (connection.status !== "ready") return "reading";
  if (running) {
    const written = conversations.find((c) => c.id === running.conversation)?.nodes[running.node];
    return gauges.reading !== null || !written?.text ? "reading" : "speaking";
  }
  const conversation = conversations.find((c) => c.id === state.current);
  const failed = Object.values(conversation?.nodes ?? {}).some((node) => node.id === gauges.node && node.error);
  if (failed) return "worried";
  if (gauges.node !== null && idle < GLAD_FOR) return "glad";
  if (idle >= SLEEPS_AFTER) return "asleep";
  return open ? "listening" : "calm";
}
