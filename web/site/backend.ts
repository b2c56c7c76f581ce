/** The WebAssembly package as the page's backend, with a choice of models. */
import { createBackend, type LoadProgress, type ModelInfo, type Source, type WorkerBackend } from "bitnet-wasm";
import type {
  Backend,
  GenerateEvent,
  GenerateRequest,
  GenerateResult,
  SavedSession,
  SessionId,
} from "../src/backend/types.ts";

const CHOICE = "bitnet.site.model";

/** The model that was open last: a name in the browser's storage, or null for the one of the package. */
function lastChoice(): string | null {
  try {
    return localStorage.getItem(CHOICE);
  } catch {
    return null;
  }
}

function remember(name: string | null): void {
  try {
    if (name === null) localStorage.removeItem(CHOICE);
    else localStorage.setItem(CHOICE, name);
  } catch {
    // Without storage the next visit begins with the model of the package.
  }
}

/**
 * Loads the model that was chosen, whatever the page asks for. Sessions of a model that is gone are opened again when
 * they are used: a request has the whole text.
 */
export class SiteBackend implements Backend {
  readonly kind = "wasm";
  readonly worker: WorkerBackend = createBackend();
  private choice: Source;
  private readonly sessions = new Map<SessionId, SessionId>();
  private next = 0;
  private listeners = new Set<(progress: LoadProgress | null) => void>();

  constructor() {
    const name = lastChoice();
    this.choice = name === null ? { kind: "builtin" } : { kind: "stored", name };
  }

  /** The name of the chosen model in the storage; null for the one of the package, undefined for one that is not stored. */
  get chosen(): string | null | undefined {
    if (this.choice.kind === "builtin") return null;
    return this.choice.kind === "stored" ? this.choice.name : undefined;
  }

  /** Has the next `load` take this model. */
  choose(source: Source): void {
    this.choice = source;
  }

  /** Calls `listener` with the progress of loading, and with null when it has ended. */
  onProgress(listener: (progress: LoadProgress | null) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  private tell(progress: LoadProgress | null): void {
    for (const listener of this.listeners) listener(progress);
  }

  async load(): Promise<ModelInfo> {
    this.sessions.clear();
    const { choice } = this;
    try {
      const info = await this.worker.load(choice, (progress) => this.tell(progress));
      if (choice.kind === "builtin") remember(null);
      if (choice.kind === "file" && choice.keep) this.choice = { kind: "stored", name: choice.name };
      if (this.choice.kind === "stored") remember(this.choice.name);
      return info;
    } catch (error) {
      // The next attempt begins with what always works.
      this.choice = { kind: "builtin" };
      remember(null);
      throw error;
    } finally {
      this.tell(null);
    }
  }

  info(): Promise<ModelInfo> {
    return this.worker.info();
  }

  private name(session: SessionId): SessionId {
    this.next += 1;
    const id = `p${this.next}`;
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
