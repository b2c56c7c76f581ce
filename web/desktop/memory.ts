/** What is remembered: texts and states lie in the program's files, not in the browser's storage. */
import { asBackendError } from "../src/backend/errors.ts";
import { Controller } from "../src/state/controller.ts";
import type { State } from "../src/state/model.ts";
import { initialState, type Keeper } from "../src/state/storage.ts";
import type { DesktopBackend } from "./backend.ts";
import type { Bridge, Notice } from "./bridge.ts";

/** The conversations of a companion, which goes on where it was. */
export class Companion extends Controller {
  private constructor(
    private readonly bridge: Bridge,
    private readonly computer: DesktopBackend,
    state: State,
    private readonly files: FileKeeper,
    private readonly tell: (notice: Notice) => void,
  ) {
    super(computer, state, files);
    files.bindings = () => this.bindings();
  }

  static of(bridge: Bridge, backend: DesktopBackend, texts: string | null, tell: (notice: Notice) => void): Companion {
    const files = new FileKeeper(bridge, texts, tell);
    return new Companion(bridge, backend, initialState(files), files, tell);
  }

  /** Loads the model, or the one within the program in its place, and gives the conversation the state that it had. */
  override async connect(): Promise<void> {
    await super.connect();
    const { connection } = this.state;
    if (connection.status === "failed" && this.computer.model !== null) {
      this.tell({ kind: "model", message: connection.error.message });
      this.computer.model = null;
      await super.connect();
    }
    if (this.state.connection.status === "ready") await this.recall();
  }

  private async recall(): Promise<void> {
    const { id } = this.conversation;
    try {
      const found = await this.bridge.call<{ session: string; tip: string } | null>("recall", { conversation: id });
      if (found && !this.bind(id, found.tip, found.session))
        await this.bridge.call("close", { session: found.session });
    } catch (caught) {
      this.tell({ kind: "state", message: asBackendError(caught).message });
    }
  }

  override async remove(id: string): Promise<void> {
    await super.remove(id);
    this.flush();
    await this.bridge.call("forget", { conversation: id });
  }

  /** Forgets everything: texts, states, and what was damaged. */
  override async removeAll(): Promise<void> {
    await super.removeAll();
    await this.files.settled();
    await this.bridge.call("forget", { conversation: null });
    this.flush();
    await this.files.settled();
  }

  /** Everything is on the disk when this is over. */
  async leaveForGood(): Promise<void> {
    await this.stop();
    this.flush();
    await this.files.settled();
  }
}

/** Hands the texts to the program, together with the sessions that have read them. One after the other. */
class FileKeeper implements Keeper {
  bindings: () => unknown[] = () => [];
  private last: Promise<void> = Promise.resolve();
  private failed = "";

  constructor(
    private readonly bridge: Bridge,
    private readonly texts: string | null,
    private readonly tell: (notice: Notice) => void,
  ) {}

  read(): unknown {
    try {
      return JSON.parse(this.texts ?? "null");
    } catch {
      return null;
    }
  }

  write(texts: string): boolean {
    const states = this.bindings();
    this.last = this.last
      .then(() => this.bridge.call<void>("keep", { texts, states }))
      .then(
        () => {
          this.failed = "";
        },
        (caught) => {
          const { message } = asBackendError(caught);
          // A full disk is told once, not with every word.
          if (message !== this.failed) this.tell({ kind: "save", message });
          this.failed = message;
        },
      );
    return true;
  }

  settled(): Promise<void> {
    return this.last;
  }
}
