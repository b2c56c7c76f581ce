import type { Backend, SessionId } from "../backend/types.ts";
import type { NodeId } from "./model.ts";

/**
 * The backend's sessions for the branches of conversations. A session belongs to the last text that it holds. Going on
 * from there uses it; going on from an earlier text forks it, so that both branches remain.
 */
export class BranchSessions {
  private readonly byTip = new Map<string, SessionId>();

  constructor(private readonly backend: Backend) {}

  /**
   * A session to continue after `path`, the ids of the texts from the first to the last; `taken` is the new text that it
   * will hold. Texts after the fork stay with the old session.
   */
  async take(conversation: string, path: NodeId[], taken: NodeId, tips: NodeId[][]): Promise<SessionId> {
    // The nearest text on the way that a session ends with: it goes on from there.
    const held = path.findLastIndex((node) => this.byTip.has(key(conversation, node)));
    // Any session whose text shares more than that.
    let best: SessionId | undefined;
    let shared = held + 1;
    for (const other of tips) {
      const session = this.byTip.get(key(conversation, other.at(-1) ?? ""));
      const common = commonLength(path, other);
      if (session !== undefined && common > shared) [best, shared] = [session, common];
    }
    const at = key(conversation, path[held] ?? "");
    const own = best === undefined ? this.byTip.get(at) : undefined;
    if (own !== undefined) {
      this.byTip.delete(at);
      this.byTip.set(key(conversation, taken), own);
      return own;
    }
    const session = best === undefined ? await this.backend.open() : await this.backend.fork(best);
    this.byTip.set(key(conversation, taken), session);
    return session;
  }

  /** The session that ends with a text. */
  get(conversation: string, tip: NodeId): SessionId | undefined {
    return this.byTip.get(key(conversation, tip));
  }

  set(conversation: string, tip: NodeId, session: SessionId): void {
    this.byTip.set(key(conversation, tip), session);
  }

  /** The backend has ended all of them. */
  clear(): void {
    this.byTip.clear();
  }

  /** Frees the sessions of a conversation. */
  async drop(conversation: string): Promise<void> {
    const prefix = `${conversation}/`;
    for (const [name, session] of [...this.byTip]) {
      if (!name.startsWith(prefix)) continue;
      this.byTip.delete(name);
      await this.backend.close(session);
    }
  }
}

function key(conversation: string, tip: NodeId): string {
  return `${conversation}/${tip}`;
}

function commonLength(a: NodeId[], b: NodeId[]): number {
  let n = 0;
  while (n < a.length && n < b.length && a[n] === b[n]) n += 1;
  return n;
}
