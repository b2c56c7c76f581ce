/**
 * Models in the browser's storage: those from an address in the Cache API, so that a second visit needs no network; files that
 * were dropped in the origin's private file system. Without either everything works, and nothing is kept.
 */

import { asFailure, failure } from "./failure.js";

const CACHE = "bitnet-models-1";
const MODULE = "bitnet-module-1";
const FOLDER = "bitnet-models";

/** A response, and what to do once its bytes are known to be right or wrong. */
export interface Cached {
  response: Response;
  settle(good: boolean): Promise<void>;
}

const nothing = async () => {};

/** The response for an address: the stored one, else that of the network, which is stored while it is read. */
export async function cached(url: string, signal: AbortSignal | null): Promise<Cached> {
  const cache = typeof caches === "undefined" ? null : await caches.open(CACHE).catch(() => null);
  const known = await cache?.match(url).catch(() => undefined);
  const forget = async (good: boolean) => {
    if (!good) await cache?.delete(url).catch(() => false);
  };
  if (known) return { response: known, settle: forget };
  const response = await fetch(url, { signal, credentials: "same-origin" });
  if (!cache || !response.ok || !response.body || !(await hasRoom(response))) return { response, settle: nothing };
  const [now, later] = response.body.tee();
  const { status, statusText, headers } = response;
  const put = cache.put(url, new Response(later, { status, statusText, headers })).catch(() => undefined);
  const settle = async (good: boolean) => {
    if (!good) return forget(false);
    await put;
  };
  return { response: new Response(now, { status, statusText, headers }), settle };
}

/** The module at an address: the stored one, else that of the network, which takes the place of any other. */
export async function cachedModule(url: string): Promise<Response> {
  const cache = typeof caches === "undefined" ? null : await caches.open(MODULE).catch(() => null);
  const known = await cache?.match(url).catch(() => undefined);
  if (known) return known;
  const response = await fetch(url, { credentials: "same-origin" });
  if (!response.ok) throw failure("download", `${url}: the server answers ${response.status} ${response.statusText}`);
  if (cache) {
    const copy = response.clone();
    const put = async () => {
      for (const old of await cache.keys()) await cache.delete(old);
      await cache.put(url, copy);
    };
    // The module works without being stored.
    void put().catch(() => undefined);
  }
  return response;
}

/** Whether the storage takes what a response announces; true if nobody knows. */
async function hasRoom(response: Response): Promise<boolean> {
  const bytes = Number(response.headers.get("content-length") ?? 0);
  const { quota, usage } = (await navigator.storage?.estimate?.().catch(() => undefined)) ?? {};
  return quota === undefined || usage === undefined || bytes < quota - usage;
}

async function folder(): Promise<FileSystemDirectoryHandle> {
  const root = await navigator.storage?.getDirectory?.();
  if (!root) throw failure("unsupported", "this browser has no private file system to keep a model in");
  return root.getDirectoryHandle(FOLDER, { create: true });
}

/** Stores a file under a name, whole or not at all. */
export async function store(name: string, file: Blob): Promise<void> {
  const place = await (await folder()).getFileHandle(encodeURIComponent(name), { create: true });
  try {
    await file.stream().pipeTo(await place.createWritable());
  } catch (thrown) {
    await removeStored(name);
    throw asFailure(thrown, "out-of-memory");
  }
}

/** The file that was stored under a name. */
export async function openStored(name: string): Promise<File> {
  const handle = await (await folder()).getFileHandle(encodeURIComponent(name)).catch(() => null);
  if (!handle) throw failure("model", `no model called ${name} is stored here`);
  return handle.getFile();
}

/** Names and sizes of the files that are stored. */
export async function storedModels(): Promise<{ name: string; bytes: number }[]> {
  const found = [];
  const entries = (await folder()) as unknown as AsyncIterable<[string, FileSystemHandle]>;
  for await (const [name, handle] of entries) {
    if (handle.kind !== "file") continue;
    const file = await (handle as FileSystemFileHandle).getFile();
    found.push({ name: decodeURIComponent(name), bytes: file.size });
  }
  return found.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Removes a stored file; nothing happens if there is none. */
export async function removeStored(name: string): Promise<void> {
  await (await folder()).removeEntry(encodeURIComponent(name)).catch(() => undefined);
}

/** Removes everything that was stored, also what came from addresses. */
export async function clearStored(): Promise<void> {
  if (typeof caches !== "undefined") await caches.delete(CACHE);
  for (const { name } of await storedModels().catch(() => [])) await removeStored(name);
}
