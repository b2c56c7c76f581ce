/** The WebAssembly package as the page's backend, with a choice of models. */
import { createBackend, type LoadProgress, type ModelInfo, type Source, type WorkerBackend } from "bitnet-wasm";
import type { OpenExtractor } from "../src/backend/extractor.ts";
import type {
  Backend,
  GenerateEvent,
  GenerateRequest,
  GenerateResult,
  SavedSession,
  SessionId,
} from "../src/backend/types.ts";

const MODEL = "bitnet.site.model";
const EXTRACTOR = "bitnet.site.extractor";

/** Extractors that come with the site, by their languages: loaded when one is chosen, and kept. */
const EXTRACTORS = {
  en: new URL("../../models/intent/extractor.gguf", import.meta.url).href,
  ja: new URL("../../models/intent/extractor-ja.gguf", import.meta.url).href,
};

/** What can be chosen. A stored file may be a model or an extractor; its first bytes say. */
export type Choice =
  | { kind: "builtin" }
  | { kind: "extractor"; language: keyof typeof EXTRACTORS }
  | { kind: "stored"; name: string }
  | { kind: "file"; file: File };

/** What was open last: a name in the browser's storage, a language of an extractor of the site, or nothing. */
function remembered(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

function remember(key: string, name: string | null): void {
  try {
    if (name === null) localStorage.removeItem(key);
    else localStorage.setItem(key, name);
  } catch {
    // Without storage the next visit begins with the model of the package.
  }
}

/** The name of a choice, as `choiceOf` takes it; null for the model of the package. Names of files have no slash in front. */
export function nameOf(choice: Choice): string | null {
  if (choice.kind === "extractor") return `/${choice.language}`;
  if (choice.kind === "file") return choice.file.name;
  return choice.kind === "stored" ? choice.name : null;
}

export function choiceOf(name: string | null): Choice {
  if (name === null || name === "") return { kind: "builtin" };
  return name === "/en" || name === "/ja"
    ? { kind: "extractor", language: name === "/en" ? "en" : "ja" }
    : { kind: "stored", name };
}

function sourceOf(choice: Choice): Source {
  switch (choice.kind) {
    case "extractor":
      return { kind: "url", url: EXTRACTORS[choice.language], name: `extractor (${choice.language})` };
    case "file":
      return { kind: "file", file: choice.file, name: choice.file.name, keep: true };
    default:
      return choice;
  }
}

/**
 * Loads what was chosen, whatever the page asks for. Sessions of a model that is gone are opened again when they are used: a
 * request has the whole text. An extractor opens beside the model, which stays.
 */
export class SiteBackend implements Backend {
  readonly kind = "wasm";
  readonly worker: WorkerBackend = createBackend();
  /** The model that is loaded, or will be. */
  private model: Choice = choiceOf(remembered(MODEL));
  /** The next thing to load. */
  private next: Choice | null = null;
  private loaded: ModelInfo | null = null;
  private opened: (OpenExtractor & { id: string; choice: Choice }) | null = null;
  private readonly sessions = new Map<SessionId, SessionId>();
  private names = 0;
  private readonly listeners = new Set<(progress: LoadProgress | null) => void>();
  private readonly watchers = new Set<() => void>();

  /** What is open: an extractor, else the model. */
  get chosen(): Choice {
    return this.opened?.choice ?? this.model;
  }

  /** The extractor that is open, if one is. */
  get extractor(): OpenExtractor | null {
    return this.opened;
  }

  /** Has the next `load` take this. */
  choose(choice: Choice): void {
    this.next = choice;
  }

  /** Calls `listener` with the progress of loading, and with null when it has ended. */
  onProgress(listener: (progress: LoadProgress | null) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Calls `listener` when an extractor has opened or closed. */
  onExtractor(listener: () => void): () => void {
    this.watchers.add(listener);
    return () => this.watchers.delete(listener);
  }

  private tell(progress: LoadProgress | null): void {
    for (const listener of this.listeners) listener(progress);
  }

  async load(): Promise<ModelInfo> {
    const asked = this.next;
    this.next = null;
    try {
      if (asked !== null && (await this.isExtractor(asked))) {
        await this.openExtractor(asked);
        return this.loaded ?? (await this.loadModel());
      }
      this.closeExtractor();
      if (asked !== null) return await this.change(asked);
      const info = await this.loadModel();
      // The first load of a visit: the extractor that was open at the end of the last one is open again.
      const before = remembered(EXTRACTOR);
      if (before !== null) await this.openExtractor(choiceOf(before)).catch(() => remember(EXTRACTOR, null));
      return info;
    } finally {
      this.tell(null);
    }
  }

  private async isExtractor(choice: Choice): Promise<boolean> {
    return choice.kind === "extractor" || (await this.worker.kindOf(sourceOf(choice))) === "extractor";
  }

  /** Loads another model. If that fails, the next attempt is with the one from before. */
  private async change(model: Choice): Promise<ModelInfo> {
    const before = this.model;
    this.model = model;
    try {
      return await this.loadModel();
    } catch (error) {
      this.model = before;
      remember(MODEL, before.kind === "file" ? null : nameOf(before));
      throw error;
    }
  }

  private async loadModel(): Promise<ModelInfo> {
    this.sessions.clear();
    this.loaded = null;
    const { model } = this;
    try {
      this.loaded = await this.worker.load(sourceOf(model), (progress) => this.tell(progress));
    } catch (error) {
      // The next attempt begins with what always works.
      this.model = { kind: "builtin" };
      remember(MODEL, null);
      throw error;
    }
    this.model = await this.kept(model);
    remember(MODEL, this.model.kind === "file" ? null : nameOf(this.model));
    return this.loaded;
  }

  /** A file that was opened, as the stored one if there was room for it. */
  private async kept(choice: Choice): Promise<Choice> {
    if (choice.kind !== "file") return choice;
    const { name, size } = choice.file;
    const stored = await this.worker.storedModels().catch(() => []);
    return stored.some((file) => file.name === name && file.bytes === size) ? { kind: "stored", name } : choice;
  }

  private async openExtractor(choice: Choice): Promise<void> {
    const source = sourceOf(choice);
    const { worker } = this;
    const { id, tasks } = await worker.loadExtractor(source, (progress) => this.tell(progress));
    this.closeExtractor();
    const kept = await this.kept(choice);
    const name = "name" in source && source.name !== undefined ? source.name : "";
    this.opened = {
      id,
      choice: kept,
      name,
      tasks,
      extract: (text, task) => worker.extract(id, text, task),
      time: (text, task) => worker.timeExtraction(id, text, task),
    };
    remember(EXTRACTOR, kept.kind === "file" ? null : nameOf(kept));
    for (const watcher of this.watchers) watcher();
  }

  /** Back to the texts. */
  closeExtractor(): void {
    const { opened } = this;
    if (opened === null) return;
    this.opened = null;
    remember(EXTRACTOR, null);
    void this.worker.closeExtractor(opened.id).catch(() => undefined);
    for (const watcher of this.watchers) watcher();
  }

  info(): Promise<ModelInfo> {
    return this.worker.info();
  }

  private name(session: SessionId): SessionId {
    this.names += 1;
    const id = `p${this.names}`;
    this.sessions.set(id, session);
    return id;
  }

  async open(): Promise<SessionId> {
    return this.name(await this.worker.open());
  }

  private async real(id: SessionId): Promise<SessionId> {
    const known = this.sessions.get(id);
    if (known !== undefined) return known;
    const session = await this.worker.open();
    this.sessions.set(id, session);
    return session;
  }

  async generate(request: GenerateRequest, on: (event: GenerateEvent) => void): Promise<GenerateResult> {
    return this.worker.generate({ ...request, session: await this.real(request.session) }, on);
  }

  cancel(id: string): Promise<void> {
    return this.worker.cancel(id);
  }

  async fork(session: SessionId): Promise<SessionId> {
    return this.name(await this.worker.fork(await this.real(session)));
  }

  async save(session: SessionId): Promise<SavedSession> {
    return this.worker.save(await this.real(session));
  }

  async restore(saved: SavedSession): Promise<SessionId> {
    return this.name(await this.worker.restore(saved));
  }

  async close(session: SessionId): Promise<void> {
    const known = this.sessions.get(session);
    this.sessions.delete(session);
    if (known !== undefined) await this.worker.close(known);
  }
}
