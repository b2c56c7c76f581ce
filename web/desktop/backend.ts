/** The third backend: the library in the process of this window, without a port and without another process. */
import type {
  Backend,
  BackendError,
  GenerateEvent,
  GenerateRequest,
  GenerateResult,
  GenerationId,
  LoadProgress,
  ModelInfo,
  ModelSource,
  SavedSession,
  SessionId,
} from "../src/backend/types.ts";
import type { Bridge } from "./bridge.ts";

/** The program's news: events, and then the end. */
type News = GenerateEvent | { kind: "done"; result: GenerateResult } | { kind: "failed"; error: BackendError };

export class DesktopBackend implements Backend {
  readonly kind = "desktop";

  constructor(
    private readonly bridge: Bridge,
    /** Loaded instead of the model within the program, which the page asks for. */
    public model: string | null = null,
  ) {}

  async load(source: ModelSource, on?: (progress: LoadProgress) => void, signal?: AbortSignal): Promise<ModelInfo> {
    if (source.kind === "url" || source.kind === "bytes") {
      const error: BackendError = { code: "unsupported", message: "the desktop program loads files", param: "source" };
      throw error;
    }
    const path = source.kind === "path" ? source.path : this.model;
    on?.({ phase: "prepare", done: 0, total: null });
    const info = await this.bridge.call<ModelInfo>("load", { path });
    if (signal?.aborted) {
      const error: BackendError = { code: "interrupted", message: "loading was cancelled" };
      throw error;
    }
    return info;
  }

  info(): Promise<ModelInfo> {
    return this.bridge.call("info");
  }

  open(): Promise<SessionId> {
    return this.bridge.call("open");
  }

  generate(request: GenerateRequest, on: (event: GenerateEvent) => void): Promise<GenerateResult> {
    return new Promise((resolve, reject) => {
      // The end comes through the same channel as the news, so that none is late.
      const news = this.bridge.channel<News>((item) => {
        if (item.kind === "done") resolve(item.result);
        else if (item.kind === "failed") reject(item.error);
        else on(item);
      });
      this.bridge.call("generate", { request, news }).catch(reject);
    });
  }

  async cancel(id: GenerationId): Promise<void> {
    await this.bridge.call("cancel", { id });
  }

  fork(session: SessionId): Promise<SessionId> {
    return this.bridge.call("fork", { session });
  }

  /** The program sends the number of tokens in the first eight bytes. */
  async save(session: SessionId): Promise<SavedSession> {
    const sent = await this.bridge.call<ArrayBuffer>("save", { session });
    const tokens = Number(new DataView(sent).getBigUint64(0, true));
    return { bytes: new Uint8Array(sent, 8), tokens };
  }

  restore(saved: SavedSession): Promise<SessionId> {
    return this.bridge.call("restore", saved.bytes);
  }

  async close(session: SessionId): Promise<void> {
    await this.bridge.call("close", { session });
  }
}
