import { describe, expect, it } from "vitest";
import { isComposing } from "../src/ui/Composer.tsx";
import { lossCurves, niceAbove } from "../src/ui/charts.tsx";

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

describe("an input method", () => {
  it("has the keys that it composes with, also the one that Safari reports late", () => {
    expect(isComposing({ isComposing: true, keyCode: 13 })).toBe(true);
    expect(isComposing({ isComposing: false, keyCode: 229 })).toBe(true);
    expect(isComposing({ isComposing: false, keyCode: 13 })).toBe(false);
  });
});
