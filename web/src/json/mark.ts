/** The validity mark of an answer in JSON mode. */
import { scanJson } from "./scan.ts";
import { checkSchema } from "./schema.ts";

export type Mark =
  | { mark: "waiting" }
  /** A beginning of valid JSON. */
  | { mark: "open" }
  /** Whole and valid; `schema` if it was compared with one, `unchecked` if with a part of it. */
  | { mark: "valid"; schema: boolean; unchecked: string[] }
  /** Ended before it was whole. */
  | { mark: "cut" }
  | { mark: "broken"; at: number }
  | { mark: "mismatch"; at: string; keyword: string };

/** The mark of a text that is `ended` or still grows; `schema` is the text of a schema, if one was asked for. */
export function markOf(text: string, ended: boolean, schema: string | null): Mark {
  const scanned = scanJson(text);
  switch (scanned.state) {
    case "empty":
      return ended ? { mark: "cut" } : { mark: "waiting" };
    case "open":
      return ended ? { mark: "cut" } : { mark: "open" };
    case "broken":
      return { mark: "broken", at: scanned.at };
    case "whole": {
      if (schema === null) return { mark: "valid", schema: false, unchecked: [] };
      try {
        const verdict = checkSchema(JSON.parse(text), JSON.parse(schema));
        if (verdict.valid) return { mark: "valid", schema: true, unchecked: verdict.unchecked };
        return { mark: "mismatch", at: verdict.at ?? "/", keyword: verdict.keyword ?? "" };
      } catch {
        // Nested deeper than the browser reads, or a schema that is not one.
        return { mark: "valid", schema: false, unchecked: ["depth"] };
      }
    }
  }
}

/** Why a text cannot be used as a schema, or `null` if it can: it must be a JSON object. */
export function schemaFault(text: string): "empty" | "not-json" | "not-object" | null {
  if (text.trim() === "") return "empty";
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? null : "not-object";
  } catch {
    return "not-json";
  }
}
