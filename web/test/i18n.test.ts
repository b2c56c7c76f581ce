import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { EXTRACT } from "../src/i18n/extract.ts";
import { formatFor, LANGUAGES } from "../src/i18n/format.ts";

/** All texts with their paths; functions are called with marks, which their results must contain. */
function texts(value: unknown, path: string, out: Map<string, string>): Map<string, string> {
  if (typeof value === "string") out.set(path, value);
  else if (typeof value === "function") {
    const marks = Array.from({ length: value.length }, (_, i) => `‹${i}›`);
    const text = String(value(...marks));
    for (const mark of marks) expect(text, path).toContain(mark);
    out.set(path, text);
  } else if (Array.isArray(value)) for (const [i, v] of value.entries()) texts(v, `${path}[${i}]`, out);
  else if (value !== null && typeof value === "object") {
    for (const [name, v] of Object.entries(value)) texts(v, path === "" ? name : `${path}.${name}`, out);
  }
  return out;
}

describe("languages", () => {
  const en = texts(EXTRACT.en, "extract", texts(LANGUAGES.en, "", new Map()));
  const ja = texts(EXTRACT.ja, "extract", texts(LANGUAGES.ja, "", new Map()));

  it("have the same texts, none of them empty", () => {
    expect([...ja.keys()]).toEqual([...en.keys()]);
    for (const [path, text] of [...en, ...ja]) expect(text.trim(), path).not.toBe("");
  });

  it("are translated, but for names", () => {
    const names =
      /^(product|json|jsonChip|jsonModes\.schema|topP|topK|minP|otherLanguage|examples\.story|mixers\.ttt|shortcutList\[\d\]\[0\])/;
    const same = [...en].filter(([path, text]) => ja.get(path) === text && !names.test(path)).map(([path]) => path);
    expect(same).toEqual([]);
    const japanese = /[\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Han}]/u;
    const english = [...ja].filter(([path, text]) => !japanese.test(text) && !names.test(path)).map(([path]) => path);
    expect(english).toEqual([]);
  });

  it("have no text that the page does not use", () => {
    const folders = ["ui", "markdown"].map((name) => new URL(`../src/${name}/`, import.meta.url));
    const sources = folders.flatMap((folder) =>
      readdirSync(folder).map((f) => readFileSync(new URL(f, folder), "utf8")),
    );
    const unused = Object.keys(LANGUAGES.en).filter((name) => !sources.some((s) => s.includes(`t.${name}`)));
    expect(unused).toEqual([]);
  });

  it("write numbers in their way", () => {
    const [e, j] = [formatFor("en"), formatFor("ja")];
    expect([e.number(12345), e.rate(7.26), e.rate(96.4), e.bytes(2_621_440)]).toEqual([
      "12,345",
      "7.3",
      "96",
      "2.5 MiB",
    ]);
    expect([e.count(4_600_000), j.count(4_600_000), e.milliseconds(1530)]).toEqual(["4.6 million", "460万", "1.5 s"]);
  });
});
