/**
 * Whether a value follows a JSON Schema, for the mark next to an answer. The server's grammar enforces the schema while
 * it generates; this is a second opinion by code that does not know the first.
 */

export interface SchemaVerdict {
  valid: boolean;
  /** Where it does not fit, as `/a/0`, and which keyword says so. */
  at?: string;
  keyword?: string;
  /** Keywords that this check does not know. */
  unchecked: string[];
}

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

const MAX_DEPTH = 64;
/** Comparisons of one check; more are not made, and the verdict says so. */
const MAX_STEPS = 200_000;

const ANNOTATIONS = [
  "$schema",
  "$id",
  "$defs",
  "definitions",
  "$comment",
  "title",
  "description",
  "default",
  "examples",
  "deprecated",
  "readOnly",
  "writeOnly",
];

class Checker {
  readonly unchecked = new Set<string>();
  private steps = 0;

  constructor(private readonly root: unknown) {}

  /** The first failure, or `null`. */
  check(value: Json, schema: unknown, at: string, depth: number): [string, string] | null {
    if (++this.steps > MAX_STEPS || depth > MAX_DEPTH) {
      this.unchecked.add("depth");
      return null;
    }
    if (schema === true || schema === undefined) return null;
    if (schema === false) return [at, "false"];
    if (!isObject(schema)) return null;
    for (const [keyword, rule] of Object.entries(schema)) {
      const failure = this.keyword(keyword, rule, value, schema, at, depth);
      if (failure) return failure;
    }
    return null;
  }

  private keyword(
    keyword: string,
    rule: unknown,
    value: Json,
    schema: Record<string, unknown>,
    at: string,
    depth: number,
  ): [string, string] | null {
    const fail = (holds: boolean): [string, string] | null => (holds ? null : [at, keyword]);
    const sub = (s: unknown) => this.check(value, s, at, depth + 1);
    const all = Array.isArray(rule) ? rule : [];
    switch (keyword) {
      case "type":
        return fail((Array.isArray(rule) ? rule : [rule]).some((type) => hasType(value, type)));
      case "const":
        return fail(same(value, rule));
      case "enum":
        return fail(all.some((one) => same(value, one)));
      case "minimum":
        return fail(typeof value !== "number" || value >= Number(rule));
      case "maximum":
        return fail(typeof value !== "number" || value <= Number(rule));
      case "exclusiveMinimum":
        return fail(typeof value !== "number" || value > Number(rule));
      case "exclusiveMaximum":
        return fail(typeof value !== "number" || value < Number(rule));
      case "multipleOf": {
        const ratio = typeof value === "number" ? value / Number(rule) : 0;
        return fail(Math.abs(ratio - Math.round(ratio)) < 1e-9);
      }
      case "minLength":
        return fail(typeof value !== "string" || [...value].length >= Number(rule));
      case "maxLength":
        return fail(typeof value !== "string" || [...value].length <= Number(rule));
      case "minItems":
        return fail(!Array.isArray(value) || value.length >= Number(rule));
      case "maxItems":
        return fail(!Array.isArray(value) || value.length <= Number(rule));
      case "required":
        return fail(!isObject(value) || all.every((name) => Object.hasOwn(value, String(name))));
      case "properties":
        return this.properties(rule, value, at, depth);
      case "additionalProperties":
        return this.additional(rule, value, schema, at, depth);
      case "items":
        return this.items(rule, value, schema, at, depth);
      case "prefixItems":
        return first(all, (s, i) =>
          Array.isArray(value) && i < value.length ? this.check(value[i] ?? null, s, `${at}/${i}`, depth + 1) : null,
        );
      case "allOf":
        return first(all, sub);
      case "anyOf":
        return fail(all.some((s) => sub(s) === null));
      case "oneOf":
        return fail(all.filter((s) => sub(s) === null).length === 1);
      case "not":
        return fail(sub(rule) !== null);
      case "$ref": {
        const target = this.resolve(String(rule));
        if (target === undefined) this.unchecked.add("$ref");
        return target === undefined ? null : sub(target);
      }
      default:
        if (!ANNOTATIONS.includes(keyword)) this.unchecked.add(keyword);
        return null;
    }
  }

  private properties(rule: unknown, value: Json, at: string, depth: number): [string, string] | null {
    if (!isObject(value) || !isObject(rule)) return null;
    return first(Object.entries(rule), ([name, s]) =>
      Object.hasOwn(value, name) ? this.check(value[name] as Json, s, `${at}/${name}`, depth + 1) : null,
    );
  }

  private additional(
    rule: unknown,
    value: Json,
    schema: Record<string, unknown>,
    at: string,
    depth: number,
  ): [string, string] | null {
    if (!isObject(value)) return null;
    if (schema.patternProperties !== undefined) {
      this.unchecked.add("patternProperties");
      return null;
    }
    const known = isObject(schema.properties) ? schema.properties : {};
    const others = Object.entries(value).filter(([name]) => !Object.hasOwn(known, name));
    return first(others, ([name, v]) => {
      if (rule === false) return [`${at}/${name}`, "additionalProperties"];
      return this.check(v as Json, rule, `${at}/${name}`, depth + 1);
    });
  }

  private items(
    rule: unknown,
    value: Json,
    schema: Record<string, unknown>,
    at: string,
    depth: number,
  ): [string, string] | null {
    if (!Array.isArray(value)) return null;
    const from = Array.isArray(schema.prefixItems) ? schema.prefixItems.length : 0;
    return first(value.slice(from), (v, i) => this.check(v, rule, `${at}/${from + i}`, depth + 1));
  }

  /** A reference within the schema itself. */
  private resolve(ref: string): unknown {
    if (ref === "#") return this.root;
    if (!ref.startsWith("#/")) return undefined;
    let at: unknown = this.root;
    for (const part of ref.slice(2).split("/")) {
      const name = decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~");
      if (!isObject(at) || !Object.hasOwn(at, name)) return undefined;
      at = at[name];
    }
    return at;
  }
}

function first<T>(all: T[], f: (one: T, index: number) => [string, string] | null): [string, string] | null {
  for (const [i, one] of all.entries()) {
    const failure = f(one, i);
    if (failure) return failure;
  }
  return null;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function hasType(value: Json, type: unknown): boolean {
  switch (type) {
    case "null":
      return value === null;
    case "array":
      return Array.isArray(value);
    case "object":
      return isObject(value);
    case "integer":
      return typeof value === "number" && Number.isInteger(value);
    default:
      return typeof value === type;
  }
}

/** Equal as JSON, whatever the order of the properties. */
function same(a: unknown, b: unknown): boolean {
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((x, i) => same(x, b[i]));
  if (isObject(a) && isObject(b)) {
    const names = Object.keys(a);
    return names.length === Object.keys(b).length && names.every((n) => Object.hasOwn(b, n) && same(a[n], b[n]));
  }
  return a === b;
}

/** Checks a value. */
export function checkSchema(value: unknown, schema: unknown): SchemaVerdict {
  const checker = new Checker(schema);
  const failure = checker.check(value as Json, schema, "", 0);
  const unchecked = [...checker.unchecked].sort();
  return failure ? { valid: false, at: failure[0] || "/", keyword: failure[1], unchecked } : { valid: true, unchecked };
}
