/** Markdown as models write it: text becomes a tree of blocks. No HTML, no pictures from elsewhere. */
import { type Inline, parseInline } from "./inline.ts";

export type Align = "left" | "center" | "right" | null;

export type Block =
  | { t: "paragraph"; content: Inline[] }
  | { t: "heading"; level: number; content: Inline[] }
  /** `open` while its end has not come. */
  | { t: "code"; language: string; text: string; open: boolean }
  | { t: "quote"; blocks: Block[] }
  | { t: "list"; start: number | null; items: Block[][] }
  | { t: "table"; align: Align[]; head: Inline[][]; rows: Inline[][][] }
  | { t: "rule" };

/** Lists and quotes within each other; deeper ones are paragraphs. */
const MAX_DEPTH = 12;
const MAX_COLUMNS = 64;

const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]|$)/;
const RULE = /^ {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])([ \t]+|$)/;
const DELIMITER = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

export function parseMarkdown(source: string): Block[] {
  return blocks(source.replaceAll("\r\n", "\n").replaceAll("\t", "    ").split("\n"), 0);
}

function blocks(lines: string[], depth: number): Block[] {
  const out: Block[] = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at] ?? "";
    if (line.trim() === "") {
      at += 1;
      continue;
    }
    const [block, next] = depth < MAX_DEPTH ? block1(lines, at, depth) : paragraph(lines, at, false);
    out.push(block);
    at = next;
  }
  return out;
}

/** The block that begins at a line, and the line after it. */
function block1(lines: string[], at: number, depth: number): [Block, number] {
  const line = lines[at] ?? "";
  const fence = FENCE.exec(line);
  if (fence) return code(lines, at, fence[1] ?? "", fence[2] ?? "");
  const heading = HEADING.exec(line);
  if (heading) {
    const text = line.trim().replace(/^#+/, "").trim();
    // Closing marks are decoration.
    const closed = /(^|\s)#+$/.test(text.slice(-8)) ? text.replace(/#{1,8}$/, "").trim() : text;
    return [{ t: "heading", level: heading[1]?.length ?? 1, content: parseInline(closed) }, at + 1];
  }
  if (RULE.test(line)) return [{ t: "rule" }, at + 1];
  if (QUOTE.test(line)) {
    let end = at;
    while (end < lines.length && QUOTE.test(lines[end] ?? "")) end += 1;
    const inner = lines.slice(at, end).map((l) => l.replace(QUOTE, ""));
    return [{ t: "quote", blocks: blocks(inner, depth + 1) }, end];
  }
  if (ITEM.test(line)) return list(lines, at, depth);
  if (line.includes("|") && DELIMITER.test(lines[at + 1] ?? "") && (lines[at + 1] ?? "").includes("-")) {
    const found = table(lines, at);
    if (found) return found;
  }
  return paragraph(lines, at, true);
}

function code(lines: string[], at: number, mark: string, info: string): [Block, number] {
  const indent = (lines[at] ?? "").search(/\S/);
  const closes = (line: string) => {
    const trimmed = line.trim();
    return trimmed.length >= mark.length && trimmed === (mark[0] ?? "`").repeat(trimmed.length);
  };
  let end = at + 1;
  while (end < lines.length && !closes(lines[end] ?? "")) end += 1;
  const strip = (line: string) => line.slice(Math.min(indent, Math.max(0, line.search(/\S|$/))));
  const text = lines
    .slice(at + 1, end)
    .map(strip)
    .join("\n");
  const language = info.trim().split(/\s/)[0]?.slice(0, 40) ?? "";
  return [{ t: "code", language, text, open: end >= lines.length }, Math.min(end + 1, lines.length)];
}

function list(lines: string[], at: number, depth: number): [Block, number] {
  const first = ITEM.exec(lines[at] ?? "");
  const ordered = /\d/.test(first?.[2] ?? "");
  const items: Block[][] = [];
  let next = at;
  for (;;) {
    const item = ITEM.exec(lines[next] ?? "");
    if (next >= lines.length || !item || /\d/.test(item[2] ?? "") !== ordered || RULE.test(lines[next] ?? "")) break;
    const width = item[0].length;
    const inner = [(lines[next] ?? "").slice(width)];
    next += 1;
    // Models indent by two, three or four, whatever the mark's width.
    const enough = Math.min(width, 2);
    let blank = 0;
    while (next < lines.length) {
      const line = lines[next] ?? "";
      const indent = line.search(/\S/);
      if (indent < 0) {
        blank += 1;
        next += 1;
        continue;
      }
      const lazy = blank === 0 && indent < enough && !begins(line) && !ITEM.test(line);
      if (indent < enough && !lazy) break;
      for (; blank > 0; blank -= 1) inner.push("");
      inner.push(line.slice(Math.min(indent, width)));
      next += 1;
    }
    items.push(blocks(inner, depth + 1));
  }
  const start = ordered ? Number.parseInt(first?.[2] ?? "1", 10) : null;
  return [{ t: "list", start, items }, next];
}

function table(lines: string[], at: number): [Block, number] | null {
  const head = cells(lines[at] ?? "");
  const delimiters = cells(lines[at + 1] ?? "");
  if (head.length !== delimiters.length || head.length > MAX_COLUMNS) return null;
  const align = delimiters.map((cell): Align => {
    const [left, right] = [cell.startsWith(":"), cell.endsWith(":")];
    return left && right ? "center" : right ? "right" : left ? "left" : null;
  });
  let end = at + 2;
  const rows: Inline[][][] = [];
  while (end < lines.length && (lines[end] ?? "").trim() !== "" && !begins(lines[end] ?? "")) {
    const row = cells(lines[end] ?? "").slice(0, head.length);
    while (row.length < head.length) row.push("");
    rows.push(row.map(parseInline));
    end += 1;
  }
  return [{ t: "table", align, head: head.map(parseInline), rows }, end];
}

/** The cells of a row; `\|` is a bar within one. */
function cells(line: string): string[] {
  const trimmed = line.trim().replace(/^\|/, "");
  const out: string[] = [];
  let cell = "";
  for (let i = 0; i < trimmed.length; i += 1) {
    const c = trimmed[i] ?? "";
    if (c === "\\" && trimmed[i + 1] === "|") {
      cell += "|";
      i += 1;
    } else if (c === "|") {
      out.push(cell.trim());
      cell = "";
    } else {
      cell += c;
    }
  }
  if (cell.trim() !== "") out.push(cell.trim());
  return out;
}

/** Whether a line begins a block that ends the paragraph before it. */
function begins(line: string): boolean {
  const item = ITEM.exec(line);
  // A number within a sentence, at the begin of a line, is not a list.
  const isItem = item !== null && item[3] !== "" && (!/\d/.test(item[2] ?? "") || /^1[.)]$/.test(item[2] ?? ""));
  return FENCE.test(line) || HEADING.test(line) || QUOTE.test(line) || RULE.test(line) || isItem;
}

function paragraph(lines: string[], at: number, interruptible: boolean): [Block, number] {
  let end = at + 1;
  while (end < lines.length && (lines[end] ?? "").trim() !== "" && !(interruptible && begins(lines[end] ?? "")))
    end += 1;
  const text = lines
    .slice(at, end)
    .map((line) => line.trim())
    .join("\n");
  return [{ t: "paragraph", content: parseInline(text) }, end];
}
