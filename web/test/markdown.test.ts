import { describe, expect, it } from "vitest";
import { type Block, parseMarkdown } from "../src/markdown/blocks.ts";
import { type Inline, parseInline, safeHref } from "../src/markdown/inline.ts";

/** A short form of a tree, for comparisons. */
function short(inlines: Inline[]): string {
  return inlines
    .map((i) => {
      if (i.t === "text") return i.text;
      if (i.t === "code") return `<code ${i.text}>`;
      if (i.t === "break") return "<br>";
      if (i.t === "link") return `<a ${i.href} ${short(i.content)}>`;
      return `<${i.t} ${short(i.content)}>`;
    })
    .join("");
}

function shape(blocks: Block[]): string {
  return blocks.map(shapeOf).join("");
}

function shapeOf(b: Block): string {
  switch (b.t) {
    case "paragraph":
      return `p(${short(b.content)})`;
    case "heading":
      return `h${b.level}(${short(b.content)})`;
    case "code":
      return `code[${b.language}${b.open ? " open" : ""}](${b.text})`;
    case "quote":
      return `quote(${shape(b.blocks)})`;
    case "list":
      return `${b.start === null ? "ul" : `ol${b.start}`}(${b.items.map((i) => `li(${shape(i)})`).join("")})`;
    case "table":
      return `table(${[b.head, ...b.rows].map((r) => r.map(short).join("|")).join("/")})`;
    case "rule":
      return "hr";
  }
}

describe("inline marks", () => {
  it.each([
    ["plain text", "plain text"],
    ["**strong** and *em* and ~~del~~", "<strong strong> and <em em> and <del del>"],
    ["***both***", "<em <strong both>>"],
    ["**a *b* c**", "<strong a <em b> c>"],
    ["__strong__ _em_ but a_b_c and 2*3*4", "<strong strong> <em em> but a_b_c and 2*3*4"],
    ["* not a mark *", "* not a mark *"],
    ["**open", "**open"],
    ["**これは、「太字」**です。", "<strong これは、「太字」>です。"],
    ["`code *with* marks` and ``a ` b``", "<code code *with* marks> and <code a ` b>"],
    ["a `never closed", "a `never closed"],
    ["\\*escaped\\*", "*escaped*"],
    ["[text](https://a.example/x_(y)) end", "<a https://a.example/x_(y) text> end"],
    ['[t](https://a.example "title")', "<a https://a.example t>"],
    ["![picture](https://a.example/p.png)", "<a https://a.example/p.png picture>"],
    ["see https://a.example/b.", "see <a https://a.example/b https://a.example/b>."],
    ["（https://a.example）と", "（<a https://a.example https://a.example>）と"],
    ["<https://a.example>", "<a https://a.example https://a.example>"],
    ["[not a link] here", "[not a link] here"],
    ["one\ntwo", "one<br>two"],
  ])("%s", (source, expected) => {
    expect(short(parseInline(source))).toBe(expected);
  });
});

describe("hostile text", () => {
  it.each([
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "<a href=javascript:alert(1)>x</a>",
    "<!-- comment -->",
    "&lt;b&gt;",
    "<svg/onload=alert(1)>",
  ])("%s stays text", (source) => {
    expect(short(parseInline(source))).toBe(source);
  });

  it.each([
    "javascript:alert(1)",
    " JaVaScRiPt:alert(1)",
    "java\nscript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:x",
    "//evil.example",
    "/v1/models",
    "https:evil",
    "https://a b",
    "https://a\u0000b",
    `https://a.example/${"x".repeat(3000)}`,
  ])("%s is not a link", (href) => {
    expect(safeHref(href)).toBeNull();
    expect(parseInline(`[x](${href})`).some((i) => i.t === "link" && !/^https?:\/\/[^/]/.test(i.href))).toBe(false);
  });

  it("takes no more than linear time and no deep stack", () => {
    const n = 50_000;
    const sources = [
      "*",
      "**a ",
      "_",
      "[",
      "[](",
      "![",
      "`",
      "``a`",
      "<",
      "h",
      "\\",
      "~~a",
      "*a_",
      "[a](b",
      "> ",
      "- ",
    ];
    for (const source of sources) {
      const began = performance.now();
      parseMarkdown(source.repeat(n));
      parseMarkdown(`${source}\n`.repeat(n / 10));
      expect(performance.now() - began, JSON.stringify(source)).toBeLessThan(1500);
    }
  });
});

describe("blocks", () => {
  it.each([
    ["# One\n\ntext\nmore", "h1(One)p(text<br>more)"],
    ["## Two ##", "h2(Two)"],
    ["#no heading", "p(#no heading)"],
    ["```rust\nfn a() {}\n```\nafter", "code[rust](fn a() {})p(after)"],
    ["```\nstill <b>open</b>", "code[ open](still <b>open</b>)"],
    ["~~~\n```\n~~~", "code[](```)"],
    ["> a\n> > b", "quote(p(a)quote(p(b)))"],
    ["- a\n- b\n  - c\n- d", "ul(li(p(a))li(p(b)ul(li(p(c))))li(p(d)))"],
    ["1. a\n2. b", "ol1(li(p(a))li(p(b)))"],
    ["3) a", "ol3(li(p(a)))"],
    ["- a\n\n  b", "ul(li(p(a)p(b)))"],
    ["1. a\n  - b", "ol1(li(p(a)ul(li(p(b)))))"],
    ["In the year\n1984. something", "p(In the year<br>1984. something)"],
    ["a\n- b", "p(a)ul(li(p(b)))"],
    ["---", "hr"],
    ["| a | b |\n|---|:-:|\n| 1 | 2 |\n| 3 |", "table(a|b/1|2/3|)"],
    ["a | b", "p(a | b)"],
    ["", ""],
  ])("%j", (source, expected) => {
    expect(shape(parseMarkdown(source))).toBe(expected);
  });

  it("lose no text while it grows", () => {
    const text =
      "# T\n\n- **a** `b`\n  1. c\n\n> q\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n```js\nlet a;\n```\nend *of* it";
    const letters = (s: string) => s.replace(/[^a-zA-Z0-9]/g, "");
    for (let n = 0; n <= text.length; n += 1) {
      const shown = JSON.stringify(parseMarkdown(text.slice(0, n)), (key, value) =>
        ["t", "level", "open", "start", "align"].includes(key) ? undefined : value,
      ).replace(/"(content|text|language|blocks|items|head|rows)":/g, "");
      const missing = [...letters(text.slice(0, n))].filter((c) => !shown.includes(c) && c !== "1");
      expect(missing, text.slice(0, n)).toEqual([]);
    }
  });
});
