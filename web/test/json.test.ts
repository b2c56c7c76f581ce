import { describe, expect, it } from "vitest";
import { markOf, schemaFault } from "../src/json/mark.ts";
import { scanJson } from "../src/json/scan.ts";
import { checkSchema } from "../src/json/schema.ts";

const VALUES = [
  '{"a": [1, -2.5e+10, true, false, null, {"b": "x\\n\\u00e9\\"空"}], "c": {}, "d": []}',
  "[]",
  '"text"',
  "0",
  "-0.5E-3",
  " true ",
  '[[[["deep"]]]]',
];

function parses(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

describe("the state of JSON that grows", () => {
  it("is never broken before its end, and whole exactly where the browser reads it", () => {
    for (const value of VALUES) {
      for (let n = 1; n <= value.length; n += 1) {
        const part = value.slice(0, n);
        const { state } = scanJson(part);
        expect(state, part).not.toBe("broken");
        expect(state === "whole", part).toBe(parses(part));
      }
    }
  });

  it("agrees with the browser about damaged texts", () => {
    const marks = ["", "x", '"', "{", "}", "[", "]", ",", ":", "0", "\\", "\n", "-", "."];
    for (const value of VALUES) {
      for (let at = 0; at < value.length; at += 1) {
        for (const mark of marks) {
          const text = value.slice(0, at) + mark + value.slice(at + 1);
          const scanned = scanJson(text);
          expect(scanned.state === "whole", text).toBe(parses(text));
          // What is broken at a place is broken whatever comes after it.
          if (scanned.state === "broken") {
            expect(scanJson(text.slice(0, scanned.at + 1)).state, text).toBe("broken");
            expect(scanJson(text.slice(0, scanned.at)).state, text).not.toBe("broken");
          }
        }
      }
    }
  });

  it("does not need a stack for depth", () => {
    expect(scanJson("[".repeat(200_000)).state).toBe("open");
    expect(scanJson("[".repeat(200_000) + "]".repeat(200_000)).state).toBe("whole");
  });
});

describe("the schema check", () => {
  const schema = {
    type: "object",
    properties: {
      name: { type: "string", maxLength: 3 },
      age: { type: "integer", minimum: 1, maximum: 9 },
      tags: { type: "array", items: { enum: ["a", "b"] }, minItems: 1 },
      next: { $ref: "#" },
    },
    required: ["name"],
    additionalProperties: false,
  };
  it.each([
    [{ name: "ab", age: 3, tags: ["a"] }, null, null],
    [{ name: "空空空", next: { name: "x" } }, null, null],
    [{ age: 3 }, "/", "required"],
    [{ name: "abcd" }, "/name", "maxLength"],
    [{ name: "a", age: 1.5 }, "/age", "type"],
    [{ name: "a", age: 10 }, "/age", "maximum"],
    [{ name: "a", tags: [] }, "/tags", "minItems"],
    [{ name: "a", tags: ["c"] }, "/tags/0", "enum"],
    [{ name: "a", other: 1 }, "/other", "additionalProperties"],
    [{ name: "a", next: { name: 1 } }, "/next/name", "type"],
    [[], "/", "type"],
  ])("%j", (value, at, keyword) => {
    const verdict = checkSchema(value, schema);
    expect([verdict.valid, verdict.at ?? null, verdict.keyword ?? null]).toEqual([at === null, at, keyword]);
  });

  it("combines and negates", () => {
    const one = { anyOf: [{ type: "string" }, { const: { a: [1] } }], not: { const: "x" } };
    expect([checkSchema("y", one), checkSchema({ a: [1] }, one)].every((v) => v.valid)).toBe(true);
    expect([checkSchema("x", one), checkSchema({ a: [2] }, one)].some((v) => v.valid)).toBe(false);
    expect(checkSchema(3, { oneOf: [{ minimum: 1 }, { minimum: 2 }] }).valid).toBe(false);
  });

  it("says what it does not know, and ends on circles", () => {
    expect(checkSchema("a", { pattern: "^a$" }).unchecked).toEqual(["pattern"]);
    const circle = { $ref: "#" };
    expect(checkSchema(1, circle).unchecked).toContain("depth");
  });

  it("does not take inherited names for properties", () => {
    expect(checkSchema({}, { required: ["toString"] }).valid).toBe(false);
    expect(checkSchema({ constructor: 1 }, { properties: {}, additionalProperties: false }).valid).toBe(false);
  });
});

describe("the mark", () => {
  const schema = '{"type":"object","required":["a"]}';
  it.each([
    ["", false, schema, "waiting"],
    ['{"a', false, schema, "open"],
    ['{"a', true, schema, "cut"],
    ["{a", false, schema, "broken"],
    ['{"a":1}', false, schema, "valid"],
    ['{"b":1}', true, schema, "mismatch"],
    ['{"b":1}', true, null, "valid"],
  ] as const)("%s, ended %s", (text, ended, s, mark) => {
    expect(markOf(text, ended, s).mark).toBe(mark);
  });

  it("names faults of a schema", () => {
    expect(["", "{", "[]", "3", "{}"].map(schemaFault)).toEqual([
      "empty",
      "not-json",
      "not-object",
      "not-object",
      null,
    ]);
  });
});
