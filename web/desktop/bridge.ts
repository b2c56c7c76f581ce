/** The program behind the page: its commands, and channels on which it answers several times. */
import { Channel, invoke } from "@tauri-apps/api/core";

/** Tests put another one in its place. */
export interface Bridge {
  /** Calls a command. With `bytes` they are all that it gets. */
  call<T>(command: string, args?: Record<string, unknown> | Uint8Array): Promise<T>;
  /** An argument of a command, by which the program calls `on`, in order. */
  channel<T>(on: (message: T) => void): unknown;
}

export const bridge: Bridge = {
  call: (command, args) => invoke(command, args),
  channel: (on) => new Channel(on),
};

export interface Settings {
  /** The model's file; null for the model within the program. */
  model: string | null;
  /** 0 takes those of the machine. */
  threads: number;
  language: "en" | "ja" | null;
  shortcut: string;
}

/** What a model file needs in memory, in bytes. */
export interface Plan {
  path: string;
  name: string;
  architecture: string;
  parameters: number;
  file: number;
  weights: number;
  tables: number;
  session: number;
  context: number | null;
  constant: boolean;
  total: number;
  available: number | null;
  fits: boolean;
}

/** Something to tell the reader: a kind that the page has words for, and the program's own. */
export interface Notice {
  kind: "texts" | "state" | "settings" | "save" | "model" | "shortcut" | "memory";
  message: string;
}

/** What the program knows at the start. */
export interface Beginning {
  /** The page's texts as they were kept; null if there are none. */
  texts: string | null;
  settings: Settings;
  autostart: boolean;
  notices: Notice[];
}

/** A remembered state. */
export interface Remembered {
  conversation: string;
  model: string;
  tokens: number;
  bytes: number;
}

/** What the tray, the shortcut or a second start ask the page for. */
export type Wish =
  | { kind: "show" }
  | { kind: "toggle" }
  | { kind: "settings" }
  /** The program ends as soon as the page has kept its texts. */
  | { kind: "leave" }
  | { kind: "notice"; notice: Notice };
