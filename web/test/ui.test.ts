import { describe, expect, it } from "vitest";
import { isComposing } from "../src/ui/Composer.tsx";
import { lossCurves, niceAbove } from "../src/ui/charts.tsx";
import { parts } from "../src/ui/Extract.tsx";

describe("charts", () => {
  it("end at round numbers", () => {
    expect([0, 1, 3, 7, 256, 401, 999, 1001].map(niceAbove)).toEqual([1, 1, 4, 10, 400, 500, 1000, 2000]);
  });

  it("show inner losses as shares of their beginning, whatever the size of a layer", () => {
    const points = Array.from({ length: 10 }, (_, i) => ({ at: 16 * i, layers: [100 - 5 * i, 1 - 0.05 * i] }));
    const { layers, mean } = lossCurves(points);
    expect(layers.map((curve) => curve[0]?.[1])).toEqual([1, 1]);
    expect(layers[0]?.map((p) => p[1].toFixed(6))).toEqual(layers[1]?.map((p) => p[1].toFixed(6)));
    expect(mean.at(-1)?.[0]).toBe(144);
    expect(mean.at(-1)?.[1]).toBeLessThan(0.65);
    expect(lossCurves([])).toEqual({ layers: [], mean: [] });
  });
});

describe("a text with its slots", () => {
  const slot = (name: string, text: string, value: string) => {
    const start = text.indexOf(value);
    return { name, value, start, end: start + value.length };
  };

  it("is the same text in pieces", () => {
    const text = "play some jazz by miles davis";
    const found = parts(text, [slot("artist", text, "miles davis"), slot("genre", text, "jazz")]);
    expect(found.map(({ text, name }) => [text, name])).toEqual([
      ["play some ", null],
      ["jazz", "genre"],
      [" by ", null],
      ["miles davis", "artist"],
    ]);
    expect(parts("", [])).toEqual([]);
    expect(parts(text, []).map((part) => part.text)).toEqual([text]);
  });

  it("counts characters outside the basic plane as strings do, and keeps the text where slots overlap", () => {
    const text = "𠮷野家は好き？";
    expect(parts(text, [slot("topic", text, "𠮷野家")]).map((part) => part.text)).toEqual(["𠮷野家", "は好き？"]);
    const bad = [slot("a", text, "野家は"), slot("b", text, "家は好"), { name: "c", value: "", start: 90, end: 99 }];
    expect(
      parts(text, bad)
        .map((part) => part.text)
        .join(""),
    ).toBe(text);
  });
});

describe("an input method", () => {
  it("has the keys that it composes with, also the one that Safari reports late", () => {
    expect(isComposing({ isComposing: true, keyCode: 13 })).toBe(true);
    expect(isComposing({ isComposing: false, keyCode: 229 })).toBe(true);
    expect(isComposing({ isComposing: false, keyCode: 13 })).toBe(false);
  });
});
