import { en } from "./en.ts";
import { ja } from "./ja.ts";
import type { Strings } from "./strings.ts";

export type Language = "en" | "ja";

export const LANGUAGES: Record<Language, Strings> = { en, ja };

/** Numbers as a language writes them. */
export interface Format {
  number(n: number): string;
  /** Few digits: 7.3, 96, 1,240. */
  rate(n: number): string;
  bytes(n: number): string;
  milliseconds(ms: number): string;
  /** 0.71 as 71 %. */
  percent(share: number): string;
  /** 4.6 million, 2.4 billion. */
  count(n: number): string;
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function formatFor(language: Language): Format {
  const number = (n: number, digits = 0) =>
    new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(n);
  const few = (n: number) => number(n, n < 10 ? 1 : 0);
  return {
    number: (n) => number(n),
    rate: few,
    bytes: (n) => {
      let [value, unit] = [n, 0];
      while (value >= 1000 && unit + 1 < UNITS.length) [value, unit] = [value / 1024, unit + 1];
      return `${few(value)} ${UNITS[unit] ?? ""}`;
    },
    milliseconds: (ms) => (ms < 1000 ? `${number(ms)} ms` : `${number(ms / 1000, 1)} s`),
    percent: (share) => new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 0 }).format(share),
    count: (n) =>
      new Intl.NumberFormat(language, {
        notation: "compact",
        compactDisplay: "long",
        maximumSignificantDigits: 3,
      }).format(n),
  };
}
