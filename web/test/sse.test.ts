import { describe, expect, it } from "vitest";
import { EventParser } from "../src/backend/sse.ts";

const STREAM =
  ': waiting\n\ndata: {"a":"空"}\n\ndata: one\ndata: two\n\nevent: x\r\ndata:three\r\n\r\ndata: [DONE]\n\n';
const EVENTS = ['{"a":"空"}', "one\ntwo", "three", "[DONE]"];

describe("events of a stream", () => {
  it("are found however the bytes are cut", () => {
    const bytes = new TextEncoder().encode(STREAM);
    for (let size = 1; size <= bytes.length; size += 1) {
      const parser = new EventParser();
      const found: string[] = [];
      for (let at = 0; at < bytes.length; at += size) found.push(...parser.push(bytes.subarray(at, at + size)));
      expect(found, `pieces of ${size}`).toEqual(EVENTS);
    }
  });

  it("are not there before their end", () => {
    const parser = new EventParser();
    expect(parser.push(new TextEncoder().encode("data: half\n"))).toEqual([]);
    expect(parser.push(new TextEncoder().encode("\n"))).toEqual(["half"]);
  });
});
