/** Where the bytes of a model come from, as a stream of known length. */

import type { LoadProgress, ModelSource } from "./backend.js";
import { asFailure, failure, unknown } from "./failure.js";
import { cached, openStored, store } from "./storage.js";

/** What a model is loaded from: the sources of the page, a file that was dropped, one that was stored. */
export type Source =
  | ModelSource
  /** A file or blob, read piece by piece; with `keep` it is stored in the browser under its name once it is open, if there is room. */
  | { kind: "file"; file: Blob; name: string; keep?: boolean }
  /** A file that `keep` has stored. */
  | { kind: "stored"; name: string };

/** Bytes on their way: a stream, and how many will come; `null` if that is not known. */
export interface Opened {
  stream: ReadableStream<Uint8Array>;
  bytes: number | null;
  name: string;
  sha256?: string | undefined;
  /** Called once all bytes have come and are right, or not. */
  settle(good: boolean): Promise<void>;
  /** Stores the file, if that was asked for. Called once it is known to be one that can be opened. */
  keep?: () => Promise<void>;
}

const nothing = async () => {};

/** Bytes as a stream of pieces, so that progress can be told. */
function streamOf(bytes: Uint8Array): ReadableStream<Uint8Array> {
  const piece = 4 << 20;
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= bytes.length) return controller.close();
      controller.enqueue(bytes.subarray(at, at + piece));
      at += piece;
    },
  });
}

/** The last part of an address, for people. */
function baseName(url: string): string {
  return decodeURIComponent(url.split(/[?#]/)[0]?.split("/").pop() ?? url);
}

/** Opens a source; `builtin` is the address of the model that comes with the package. */
export async function open(source: Source, builtin: string, signal?: AbortSignal): Promise<Opened> {
  switch (source.kind) {
    case "builtin":
      return openUrl({ url: builtin, name: "tiny-stories-ttt" }, signal);
    case "url":
      return openUrl(source, signal);
    case "bytes":
      return { stream: streamOf(source.bytes), bytes: source.bytes.length, name: source.name, settle: nothing };
    case "file": {
      const { file, name } = source;
      // Without room for it, or without a private file system, it is open all the same.
      const keep = () => store(name, file).catch(() => undefined);
      return { stream: file.stream(), bytes: file.size, name, settle: nothing, ...(source.keep ? { keep } : {}) };
    }
    case "stored": {
      const file = await openStored(source.name);
      return { stream: file.stream(), bytes: file.size, name: source.name, settle: nothing };
    }
    case "path":
      throw failure("unsupported", "a browser cannot open a path: drop the file, or give its address");
    default:
      throw unknown("the source", (source as { kind?: unknown } | undefined)?.kind);
  }
}

/** Bytes of a file in which its architecture is looked for: it is the first of the entries. */
const HEAD = 64 << 10;

/** The architecture that the first bytes of a GGUF file name; nothing if they do not. */
export function architectureOf(head: Uint8Array): string | null {
  const key = new TextEncoder().encode("general.architecture");
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const at = head.findIndex((_, i) => key.every((byte, j) => head[i + j] === byte));
  // The type of the value, text, and its length.
  const text = at + key.length + 12;
  if (at < 0 || text > head.length || view.getUint32(text - 12, true) !== 8) return null;
  const length = view.getUint32(text - 8, true);
  return length > 100 ? null : new TextDecoder().decode(head.subarray(text, text + length));
}

/** Whether a file is an extractor. What cannot be told counts as a model. */
export async function kindOf(source: Source): Promise<"model" | "extractor"> {
  let head: Uint8Array;
  if (source.kind === "bytes") {
    head = source.bytes.subarray(0, HEAD);
  } else if (source.kind === "file" || source.kind === "stored") {
    const file = source.kind === "file" ? source.file : await openStored(source.name);
    head = new Uint8Array(await file.slice(0, HEAD).arrayBuffer());
  } else {
    return "model";
  }
  return architectureOf(head) === "bitnet-extractor" ? "extractor" : "model";
}

type FromUrl = { url: string; bytes?: number; sha256?: string; name?: string };

async function openUrl(source: FromUrl, signal?: AbortSignal): Promise<Opened> {
  const { response, settle } = await cached(source.url, signal ?? null).catch((thrown: unknown) => {
    if (signal?.aborted) throw thrown;
    throw asFailure(thrown, "download");
  });
  if (!response.ok || !response.body) {
    await settle(false);
    throw failure("download", `${source.url}: the server answers ${response.status} ${response.statusText}`);
  }
  // A length that counts compressed bytes is of no use.
  const announced = response.headers.get("content-encoding") ? null : response.headers.get("content-length");
  const bytes = source.bytes ?? (announced === null ? null : Number(announced));
  return { stream: response.body, bytes, name: source.name ?? baseName(source.url), sha256: source.sha256, settle };
}

/** Reads a stream to its end, piece by piece. */
export async function each(
  opened: Opened,
  take: (piece: Uint8Array) => void,
  on?: (progress: LoadProgress) => void,
  signal?: AbortSignal,
): Promise<void> {
  const reader = opened.stream.getReader();
  const stop = () => void reader.cancel().catch(nothing);
  signal?.addEventListener("abort", stop, { once: true });
  let done = 0;
  let told = 0;
  try {
    for (;;) {
      const next = await reader.read().catch((thrown: unknown) => {
        throw asFailure(thrown, "download");
      });
      signal?.throwIfAborted();
      if (next.done) break;
      take(next.value);
      done += next.value.length;
      // Some thirty times a second at most.
      const now = performance.now();
      if (now - told > 33) {
        on?.({ phase: "fetch", done, total: opened.bytes });
        told = now;
      }
    }
  } catch (thrown) {
    stop();
    throw thrown;
  } finally {
    signal?.removeEventListener("abort", stop);
  }
  on?.({ phase: "fetch", done, total: opened.bytes ?? done });
}
