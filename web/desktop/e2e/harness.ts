/** A screen, a session bus, a window manager and the program, driven by WebKit's own WebDriver. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../..", import.meta.url));
/** The program, built with the feature `test-hooks`. */
export const PROGRAM = process.env.BITNET_DESKTOP ?? join(root, "target/desktop/debug/bitnet-desktop");
export const SHOTS = join(root, "target/desktop/shots");
const DRIVER = process.env.WEBKIT_DRIVER ?? "/usr/bin/WebKitWebDriver";

const SCREEN = "1100x860";
/** The background is no window to speak of. */
const OPENBOX = `<?xml version="1.0"?>
<openbox_config xmlns="http://openbox.org/3.4/rc"><applications>
<application class="*isplay*"><decor>no</decor><layer>below</layer><focus>no</focus>
<position force="yes"><x>0</x><y>0</y></position></application>
</applications></openbox_config>
`;

/** Milliseconds between two looks, and those after which a thing that should happen has not. */
const LOOK = 50;
const PATIENCE = 30_000;

export async function until<T>(what: string, look: () => Promise<T | null | undefined | false>): Promise<T> {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited in vain: ${what}`);
    await new Promise((done) => setTimeout(done, LOOK));
  }
}

/** The first line that a process writes to a descriptor. */
function firstLine(child: ChildProcess, from: 1 | 3): Promise<string> {
  return new Promise((done, failed) => {
    let text = "";
    const stream = child.stdio[from];
    stream?.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      if (text.includes("\n")) done(text.split("\n")[0] ?? "");
    });
    child.once("error", failed);
    child.once("exit", (code) => failed(new Error(`${child.spawnfile} ended with ${code}: ${text}`)));
  });
}

function freePort(): Promise<number> {
  return new Promise((done) => {
    const server = createServer();
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      const port = typeof address === "object" && address ? address.port : 0;
      server.close(() => done(port));
    });
  });
}

/** A desktop of its own. */
export class Desktop {
  private children: ChildProcess[] = [];
  readonly home = mkdtempSync(join(tmpdir(), "bitnet-desktop-"));
  env: NodeJS.ProcessEnv = {};

  static async start(language = "en"): Promise<Desktop> {
    const desktop = new Desktop();
    mkdirSync(SHOTS, { recursive: true });
    const screen = ["-displayfd", "3", "-screen", "0", `${SCREEN}x24`, "-nolisten", "tcp"];
    const xvfb = spawn("Xvfb", screen, { stdio: ["ignore", "ignore", "ignore", "pipe"] });
    desktop.children.push(xvfb);
    const display = `:${await firstLine(xvfb, 3)}`;
    const bus = spawn("dbus-daemon", ["--session", "--print-address", "--nofork"], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    desktop.children.push(bus);
    const address = await firstLine(bus, 1);
    desktop.env = {
      PATH: process.env.PATH,
      HOME: desktop.home,
      XDG_RUNTIME_DIR: desktop.home,
      DISPLAY: display,
      DBUS_SESSION_BUS_ADDRESS: address,
      LANG: language === "ja" ? "ja_JP.UTF-8" : "en_US.UTF-8",
      // No graphics hardware here.
      LIBGL_ALWAYS_SOFTWARE: "1",
      WEBKIT_DISABLE_DMABUF_RENDERER: "1",
      GTK_A11Y: "none",
      NO_AT_BRIDGE: "1",
      GTK_USE_PORTAL: "0",
      TAURI_WEBVIEW_AUTOMATION: "true",
      BITNET_DESKTOP_HOME: join(desktop.home, "companion"),
      BITNET_DESKTOP_MODEL: join(root, "models/tinystories-5m.gguf"),
      BITNET_DESKTOP_TARGET: join(desktop.home, "exported.json"),
    };
    desktop.decorate();
    return desktop;
  }

  /** A window manager, a compositor, so that what is transparent is, and a background. */
  private decorate(): void {
    const [rules, background] = ["openbox.xml", "background.png"].map((name) => join(this.home, name));
    writeFileSync(rules ?? "", OPENBOX);
    this.helper("openbox", ["--config-file", rules ?? ""]);
    this.helper("xcompmgr", []);
    try {
      execFileSync("convert", ["-size", SCREEN, "gradient:#7d93a8-#d9c3a5", background ?? ""]);
      this.helper("display", ["-immutable", "-backdrop", "-background", "#7d93a8", background ?? ""]);
    } catch {
      // Pictures are plainer without it.
    }
  }

  private helper(program: string, args: string[]): void {
    const child = spawn(program, args, { env: this.env, stdio: "ignore" });
    child.on("error", () => {
      // Pictures are plainer without it; nothing else needs it.
    });
    this.children.push(child);
  }

  /** A picture of the whole screen. */
  picture(name: string): void {
    // Without a tooltip, and after the compositor has drawn.
    this.x("mousemove", "20", "20", "sleep", "0.5");
    execFileSync("import", ["-window", "root", join(SHOTS, `${name}.png`)], { env: this.env });
  }

  x(...args: string[]): string {
    return execFileSync("xdotool", args, { env: this.env }).toString();
  }

  /** Whether a window with a title like this is visible. */
  sees(title: string): boolean {
    try {
      return this.x("search", "--onlyvisible", "--name", title).trim() !== "";
    } catch {
      return false;
    }
  }

  /** Inodes of the sockets that a process has open. */
  socketsOf(pid: number): string[] {
    return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? [];
      } catch {
        return [];
      }
    });
  }

  /** Files that remember. */
  files(): string[] {
    const folder = join(this.home, "companion/memory");
    return existsSync(folder) ? readdirSync(folder).filter((name) => name !== ".lock") : [];
  }

  async app(): Promise<App> {
    const port = await freePort();
    const driver = spawn(DRIVER, [`--port=${port}`, "--host=127.0.0.1"], { env: this.env, stdio: "ignore" });
    this.children.push(driver);
    const app = new App(`http://127.0.0.1:${port}`, driver);
    await app.begin();
    return app;
  }

  async end(): Promise<void> {
    for (const child of this.children.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const gone = new Promise((done) => child.once("exit", done));
      child.kill("SIGKILL");
      await gone;
    }
    rmSync(this.home, { recursive: true, force: true });
  }
}

/** The key under which WebDriver hands elements over. */
const ELEMENT = "element-6066-11e4-a52e-4f735466cecf";

/** The program in its window. */
export class App {
  private session = "";
  pid = 0;

  constructor(
    private readonly address: string,
    private readonly driver: ChildProcess,
  ) {}

  private async ask<T>(method: string, path: string, body?: unknown): Promise<T> {
    const answer = await fetch(this.address + path, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const { value } = (await answer.json()) as { value: T & { error?: string; message?: string } };
    if (!answer.ok) throw new Error(`${method} ${path}: ${value.error} ${value.message}`);
    return value;
  }

  async begin(): Promise<void> {
    await until("the driver", () =>
      fetch(`${this.address}/status`).then(
        (answer) => answer.ok,
        () => false,
      ),
    );
    const before = new Set(programs());
    const capabilities = { alwaysMatch: { "webkitgtk:browserOptions": { binary: PROGRAM, args: [] } } };
    const { sessionId } = await this.ask<{ sessionId: string }>("POST", "/session", { capabilities });
    this.session = `/session/${sessionId}`;
    this.pid = programs().find((pid) => !before.has(pid)) ?? 0;
    await this.see(".figure-button");
    await until("the model", async () =>
      this.run("return document.querySelector('.figure-button').dataset.mood !== 'reading'"),
    );
  }

  /** Runs the body of a function in the page. */
  run<T>(script: string, ...args: unknown[]): Promise<T> {
    return this.ask("POST", `${this.session}/execute/sync`, { script, args });
  }

  async element(selector: string): Promise<string> {
    const found = await this.ask<Record<string, string>>("POST", `${this.session}/element`, {
      using: "css selector",
      value: selector,
    });
    return found[ELEMENT] ?? "";
  }

  async see(selector: string): Promise<void> {
    await until(selector, () => this.run<boolean>("return document.querySelector(arguments[0]) !== null", selector));
  }

  async gone(selector: string): Promise<void> {
    await until(`no ${selector}`, () =>
      this.run<boolean>("return document.querySelector(arguments[0]) === null", selector),
    );
  }

  async click(selector: string): Promise<void> {
    await this.see(selector);
    await this.ask("POST", `${this.session}/element/${await this.element(selector)}/click`, {});
  }

  async type(selector: string, text: string): Promise<void> {
    await this.see(selector);
    await this.ask("POST", `${this.session}/element/${await this.element(selector)}/value`, { text });
  }

  async openSettings(): Promise<void> {
    if (await this.run<boolean>("return document.querySelector('dialog[open]') !== null")) return;
    await this.click(".bar button:nth-last-of-type(2)");
    await this.see("dialog[open]");
  }

  async closeSettings(): Promise<void> {
    await this.click("dialog header button");
    await this.gone("dialog[open]");
  }

  /** Sets a field of the settings, as a reader would: its value, and the event that follows. */
  async set(field: string, value: string, event = "change"): Promise<void> {
    await this.openSettings();
    await this.see(field);
    await this.run(
      `const field = document.querySelector(arguments[0]);
       field.value = arguments[1];
       field.dispatchEvent(new Event(arguments[2], { bubbles: true }));`,
      field,
      value,
      event,
    );
  }

  /** Clicks on something in the settings. */
  async choose(control: string): Promise<void> {
    await this.openSettings();
    await this.see(control);
    await this.run("document.querySelector(arguments[0]).click()", control);
  }

  text(selector: string): Promise<string> {
    return this.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector);
  }

  /** Opens the bubble if it is closed. */
  async open(): Promise<void> {
    if (await this.run<boolean>("return document.querySelector('.bubble') === null"))
      await this.click(".figure-button");
    await this.see(".bubble textarea");
  }

  /** Says something and waits for the end of the answer. */
  async tell(text: string): Promise<string> {
    await this.open();
    await this.type("#message", text);
    await this.click(".composer button[type=submit]");
    await this.finished();
    return this.text(".manuscript .text");
  }

  async finished(): Promise<void> {
    await until("the end of the answer", () =>
      this.run<boolean>("return document.querySelector('.manuscript footer .facts') !== null"),
    );
  }

  /** Kills the program as a power failure would, and its driver. */
  async kill(): Promise<void> {
    process.kill(this.pid, "SIGKILL");
    await this.over();
  }

  /** Waits until the program has ended. */
  async over(): Promise<void> {
    await until("the end of the program", async () => !programs().includes(this.pid));
    this.driver.kill("SIGKILL");
  }
}

/** Processes of the program. */
function programs(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readlinkSync(`/proc/${pid}/exe`) === PROGRAM && !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
      } catch {
        return false;
      }
    })
    .map(Number);
}
