/** Whether a text is JSON, or could still become JSON: one pass, without recursion. */

export type JsonState =
  /** Nothing but space so far. */
  | { state: "empty" }
  /** A beginning of JSON. */
  | { state: "open" }
  /** A whole value. */
  | { state: "whole" }
  /** No continuation makes it JSON; `at` is the first wrong character. */
  | { state: "broken"; at: number };

/** What may come next between two tokens. */
type Expect = "value" | "value-or-end" | "key" | "key-or-end" | "colon" | "comma-or-end" | "nothing";

const SPACE = /[ \t\n\r]/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: JSON allows none of them within a string
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*/y;
/** The rest of a text that may be the beginning of an escape. */
const HALF_ESCAPE = /^\\(?:u[0-9a-fA-F]{0,3})?$/;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
/** The beginning of a number that needs more; a lone minus is handled apart. */
const HALF_NUMBER = /^-?(?:0|[1-9][0-9]*)(?:\.|(?:\.[0-9]+)?[eE][+-]?)$/;
const WORDS = ["true", "false", "null"];

/** The state of a text with an escape at `from` that is not one, or not one yet. */
function halfEscape(text: string, from: number): JsonState {
  let end = from + 1;
  while (end < text.length && HALF_ESCAPE.test(text.slice(from, end + 1))) end += 1;
  return text[from] === "\\" && end >= text.length
    ? { state: "open" }
    : { state: "broken", at: text[from] === "\\" ? end : from };
}

/** The state of a text with a number at `from` that has a whole one up to `end` and goes on. */
function halfNumber(text: string, from: number, end: number): JsonState {
  let at = end;
  while (at < text.length && HALF_NUMBER.test(text.slice(from, at + 1))) at += 1;
  return at >= text.length ? { state: "open" } : { state: "broken", at };
}

export function scanJson(text: string): JsonState {
  const stack: ("{" | "[")[] = [];
  let expect: Expect = "value";
  let at = 0;
  const broken = (where = at): JsonState => ({ state: "broken", at: where });
  const afterValue = (): Expect => (stack.length === 0 ? "nothing" : "comma-or-end");
  while (at < text.length) {
    const c = text[at] ?? "";
    if (SPACE.test(c)) {
      at += 1;
      continue;
    }
    const wantsValue: boolean = expect === "value" || expect === "value-or-end";
    const wantsKey: boolean = expect === "key" || expect === "key-or-end";
    if (c === '"' && (wantsValue || wantsKey)) {
      STRING.lastIndex = at;
      const end = at + (STRING.exec(text)?.[0].length ?? 1);
      if (end >= text.length) return { state: "open" };
      if (text[end] !== '"') return halfEscape(text, end);
      at = end + 1;
      expect = wantsKey ? "colon" : afterValue();
    } else if ((c === "{" || c === "[") && wantsValue) {
      stack.push(c);
      expect = c === "{" ? "key-or-end" : "value-or-end";
      at += 1;
    } else if (c === "}" || c === "]") {
      const opened = c === "}" ? "{" : "[";
      const allowed = expect === "comma-or-end" || expect === (c === "}" ? "key-or-end" : "value-or-end");
      if (!allowed || stack.pop() !== opened) return broken();
      expect = afterValue();
      at += 1;
    } else if (c === "," && expect === "comma-or-end") {
      expect = stack.at(-1) === "{" ? "key" : "value";
      at += 1;
    } else if (c === ":" && expect === "colon") {
      expect = "value";
      at += 1;
    } else if (wantsValue && /[-0-9]/.test(c)) {
      NUMBER.lastIndex = at;
      const end = at + (NUMBER.exec(text)?.[0].length ?? 0);
      if (end === at) return text.length === at + 1 ? { state: "open" } : broken(at + 1);
      if (end < text.length && /[-+.0-9eE]/.test(text[end] ?? "")) return halfNumber(text, at, end);
      // At the end of a text more digits may come; inside of something it is open anyway.
      at = end;
      expect = afterValue();
    } else if (wantsValue && WORDS.some((word) => word.startsWith(c))) {
      const word = WORDS.find((w) => w.startsWith(c)) ?? "";
      for (const letter of word) {
        if (at === text.length) return { state: "open" };
        if (text[at] !== letter) return broken();
        at += 1;
      }
      expect = afterValue();
    } else {
      return broken();
    }
  }
  if (expect === "nothing") return { state: "whole" };
  return { state: text.trim() === "" ? "empty" : "open" };
}
