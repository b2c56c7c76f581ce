/**
 * Markdown within a line: text becomes a tree, never markup. A tag of HTML is text like any other.
 *
 * The time is linear in the length: each character is looked at a bounded number of times, whatever a model writes.
 */

export type Inline =
  | { t: "text"; text: string }
  | { t: "code"; text: string }
  | { t: "strong" | "em" | "del"; content: Inline[] }
  | { t: "link"; href: string; content: Inline[] }
  | { t: "break" };

/** Marks that may be open at once; more are text. */
const MAX_OPEN = 32;
/** Longest address of a link. */
const MAX_HREF = 2048;

interface Opener {
  mark: string;
  /** Index in the output of what comes after it; the mark itself is the text before. */
  at: number;
}

const SPACE = /\s/;
const WORD = /[\p{L}\p{N}]/u;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const BARE = /https?:\/\/[^\s<>"`'、。，．「」『』（）【】]{1,2000}/y;
const TRAILING = /[.,:;!?*_~)\]}]$/;
const PLAIN = /[^\\`![\]<\n*_~h]+/y;

/**
 * An address that may be followed: to the web or to a mailbox, written out. Everything else (`javascript:`, `data:`,
 * relative paths into this server) is not a link.
 */
export function safeHref(href: string): string | null {
  const trimmed = href.trim();
  if (trimmed.length > MAX_HREF || !/^(https?:\/\/[^/\s]|mailto:[^\s])/i.test(trimmed)) return null;
  for (const c of trimmed) {
    const code = c.codePointAt(0) ?? 0;
    if (code <= 0x20 || code === 0x7f) return null;
  }
  return trimmed;
}

export function parseInline(source: string): Inline[] {
  return new InlineParser(source).parse();
}

class InlineParser {
  private out: Inline[] = [];
  private openers: Opener[] = [];
  private at = 0;
  /** Lengths of runs of backticks that are not closed anywhere after. */
  private readonly unclosed = new Set<number>();

  constructor(private readonly source: string) {}

  parse(): Inline[] {
    const { source } = this;
    while (this.at < source.length) {
      PLAIN.lastIndex = this.at;
      const plain = PLAIN.exec(source);
      if (plain) {
        this.text(plain[0]);
        this.at += plain[0].length;
        continue;
      }
      this.special(source[this.at] ?? "");
    }
    return this.out;
  }

  private text(text: string): void {
    const last = this.out.at(-1);
    // Text before an open mark must stay apart from text after it.
    if (last?.t === "text" && this.openers.at(-1)?.at !== this.out.length) last.text += text;
    else this.out.push({ t: "text", text });
  }

  private special(c: string): void {
    const { source, at } = this;
    const next = source[at + 1] ?? "";
    if (c === "\\" && next === "\n") {
      this.out.push({ t: "break" });
      this.at += 2;
    } else if (c === "\\" && PUNCTUATION.test(next)) {
      this.text(next);
      this.at += 2;
    } else if (c === "\n") {
      this.out.push({ t: "break" });
      this.at += 1;
    } else if (c === "`") {
      this.code();
    } else if (c === "[") {
      this.open("[", 1);
    } else if (c === "!" && next === "[") {
      // A picture would be loaded from elsewhere: it becomes a link.
      this.open("[", 2);
    } else if (c === "]") {
      this.closeLink();
    } else if (c === "<" || c === "h") {
      this.address(c);
    } else if (c === "*" || c === "_" || c === "~") {
      this.mark(c);
    } else {
      this.text(c);
      this.at += 1;
    }
  }

  private run(c: string): number {
    let end = this.at;
    while (this.source[end] === c) end += 1;
    return end - this.at;
  }

  private code(): void {
    const { source, at } = this;
    const length = this.run("`");
    const mark = "`".repeat(length);
    let end = this.unclosed.has(length) ? -1 : source.indexOf(mark, at + length);
    // A longer run does not close it.
    while (end >= 0 && (source[end + length] === "`" || source[end - 1] === "`")) {
      let after = end + length;
      while (source[after] === "`") after += 1;
      end = source.indexOf(mark, after);
    }
    if (end < 0) {
      this.unclosed.add(length);
      this.text(mark);
      this.at += length;
      return;
    }
    const inner = source.slice(at + length, end).replaceAll("\n", " ");
    const padded = inner.startsWith(" ") && inner.endsWith(" ") && inner.trim() !== "";
    this.out.push({ t: "code", text: padded ? inner.slice(1, -1) : inner });
    this.at = end + length;
  }

  private open(mark: string, length: number): void {
    this.out.push({ t: "text", text: this.source.slice(this.at, this.at + length) });
    if (this.openers.length < MAX_OPEN) this.openers.push({ mark, at: this.out.length });
    this.at += length;
  }

  /** Takes what came since an opener, and the opener with it. */
  private since(index: number): Inline[] {
    const opener = this.openers[index];
    if (!opener) return [];
    this.openers.length = index;
    const content = this.out.splice(opener.at);
    this.out.pop();
    return content;
  }

  private closeLink(): void {
    const index = this.openers.findLastIndex((opener) => opener.mark === "[");
    const target = index >= 0 && this.source[this.at + 1] === "(" ? this.destination(this.at + 2) : null;
    if (!target) {
      // Brackets without an address are text; the opener cannot become a link any more.
      if (index >= 0) this.openers.splice(index, 1);
      this.text("]");
      this.at += 1;
      return;
    }
    const content = this.since(index);
    const href = safeHref(target.href);
    const shown: Inline[] = content.length > 0 ? content : [{ t: "text", text: target.href }];
    if (href) this.out.push({ t: "link", href, content: withoutLinks(shown) });
    else this.out.push(...shown);
    this.at = target.end;
  }

  /** `address)` or `<address>)` or `address "title")`, from `from` on. */
  private destination(from: number): { href: string; end: number } | null {
    const limit = Math.min(this.source.length, from + MAX_HREF + 256);
    let depth = 0;
    for (let i = from; i < limit; i += 1) {
      const c = this.source[i];
      if (c === "\n") return null;
      if (c === "(") depth += 1;
      if (c === ")" && depth-- === 0) {
        const inner = this.source.slice(from, i).trim();
        const title = inner.search(/\s+["'(]/);
        const href = title < 0 ? inner : inner.slice(0, title);
        return { href: href.replace(/^<(.*)>$/, "$1"), end: i + 1 };
      }
    }
    return null;
  }

  /** `<https://…>`, or an address within the text. */
  private address(c: string): void {
    const { source, at } = this;
    const start = c === "<" ? at + 1 : at;
    const before = source[at - 1] ?? " ";
    BARE.lastIndex = start;
    const found = c === "<" || !/[A-Za-z0-9]/.test(before) ? BARE.exec(source)?.[0] : undefined;
    let href = found ?? "";
    if (c === "<") {
      if (source[start + href.length] !== ">") href = "";
    } else {
      while (TRAILING.test(href)) href = href.slice(0, -1);
    }
    if (!safeHref(href) || this.openers.some((opener) => opener.mark === "[")) {
      this.text(c);
      this.at += 1;
      return;
    }
    this.out.push({ t: "link", href, content: [{ t: "text", text: href }] });
    this.at = start + href.length + (c === "<" ? 1 : 0);
  }

  /**
   * Emphasis. Where words are not divided by spaces, as in Japanese, CommonMark's rules about punctuation leave marks
   * standing; here a mark opens before anything but a space and closes after anything but a space.
   */
  private mark(c: string): void {
    const { source, at } = this;
    const length = this.run(c);
    const before = source[at - 1] ?? " ";
    const after = source[at + length] ?? " ";
    // Names like a_b_c, and powers like 2*3*4.
    const inner = WORD.test(before) && WORD.test(after) && (c === "_" || /[0-9]/.test(before));
    const usable = !inner && length <= 3 && (c !== "~" || length === 2);
    const closes = usable && !SPACE.test(before);
    const opens = usable && !SPACE.test(after);
    const sizes = c === "~" ? [2] : length === 3 ? [2, 1] : [length];
    let rest = length;
    if (closes) {
      for (;;) {
        const index = this.openers.findLastIndex(
          (opener) => opener.mark[0] === c && sizes.includes(opener.mark.length) && opener.mark.length <= rest,
        );
        const opener = this.openers[index];
        if (!opener || opener.at === this.out.length) break;
        const size = opener.mark.length;
        const content = this.since(index);
        this.out.push({ t: c === "~" ? "del" : size === 2 ? "strong" : "em", content });
        rest -= size;
        this.at += size;
        if (rest === 0) return;
      }
    }
    if (opens && rest > 0) {
      for (const size of rest === 3 ? [1, 2] : [rest]) this.open(c.repeat(size), size);
      return;
    }
    this.text(c.repeat(rest));
    this.at += rest;
  }
}

/** A link holds no link. */
function withoutLinks(content: Inline[]): Inline[] {
  return content.flatMap((inline) => {
    if (inline.t === "link") return inline.content;
    if (inline.t === "strong" || inline.t === "em" || inline.t === "del") {
      return [{ ...inline, content: withoutLinks(inline.content) }];
    }
    return [inline];
  });
}
