import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type App, Desktop, PROGRAM, until } from "./harness.ts";

let desktop: Desktop;
let app: App;

beforeAll(async () => {
  desktop = await Desktop.start();
  app = await desktop.app();
});
afterEach(({ task }) => {
  if (task.result?.state === "fail") desktop.picture(`failed-${task.name.replace(/\W+/g, "-")}`);
});
afterAll(() => desktop.end());

const START = "Once upon a time there was a little dog";

/** A JSON Schema of a string that goes on until a tilde. */
const ENDLESS = {
  type: "object",
  properties: { text: { type: "string", pattern: "^[^~]*~$" } },
  required: ["text"],
  additionalProperties: false,
};

/** One of markup. */
const HOSTILE = {
  type: "object",
  properties: { said: { const: "<img src=x onerror=window.harmed=1><script>window.harmed=1</script>" } },
  required: ["said"],
  additionalProperties: false,
};

/** The conversations as the program keeps them. */
function kept(): {
  conversations: { nodes: Record<string, { text: string; status: string; result?: Record<string, number> }> }[];
} {
  const text = readFileSync(join(desktop.home, "companion/memory/texts.json"), "utf8");
  return JSON.parse(text.slice(text.indexOf("\n") + 1));
}

function lastResult(): Record<string, number> {
  const nodes = kept().conversations.flatMap(({ nodes }) => Object.values(nodes));
  return nodes.filter((node) => node.result !== undefined).at(-1)?.result ?? {};
}

describe("a companion", { timeout: 120_000 }, () => {
  let told = "";

  it("is a character in a small window, and opens by a click", async () => {
    const small = await app.run<number[]>("return [innerWidth, innerHeight]");
    expect(small).toEqual([150, 156]);
    desktop.picture("closed");
    await app.open();
    await until("a larger window", () => app.run("return innerWidth === 420 && innerHeight === 680"));
    await app.see(".welcome");
    desktop.picture("welcome");
  });

  it("answers as it computes, and shows how it feels", async () => {
    await app.open();
    await app.type("#message", START);
    // What is shown is written down at every change.
    await app.run(`
      window.seen = [];
      const note = () => {
        const mood = document.querySelector(".figure-button").dataset.mood;
        const text = document.querySelector(".manuscript .text")?.textContent ?? "";
        const last = window.seen.at(-1);
        if (!last || last[0] !== mood || last[1] !== text.length) window.seen.push([mood, text.length]);
      };
      new MutationObserver(note).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
    `);
    await app.click(".composer button[type=submit]");
    await app.finished();
    told = await app.text(".manuscript .text");
    expect(told.startsWith(START)).toBe(true);
    expect(told.length).toBeGreaterThan(START.length + 40);
    const seen = await app.run<[string, number][]>("return window.seen");
    const lengths = new Set(seen.map(([, length]) => length));
    expect(lengths.size, "it came piece by piece").toBeGreaterThan(2);
    expect(new Set(seen.map(([mood]) => mood))).toContain("speaking");
    desktop.picture("answer");
  });

  it("does not let a text become a part of the page, nor the page reach the network", async () => {
    let requests = 0;
    const server = createServer((_, answer) => {
      requests += 1;
      answer.end("x");
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    const address = server.address();
    const port = typeof address === "object" && address ? address.port : 0;
    const hostile = ` <img src="http://127.0.0.1:${port}/i" onerror="window.harmed=1"><script>window.harmed=1</script>`;
    expect(await app.tell(hostile)).toContain(hostile);
    // And from the model: a schema lets it write nothing else.
    await app.choose("input[name=json][value=schema]");
    await app.set("#schema", JSON.stringify(HOSTILE), "input");
    await app.closeSettings();
    expect(await app.tell(" He said: ")).toContain(HOSTILE.properties.said.const);
    await app.choose("input[name=json][value=off]");
    await app.closeSettings();
    const found = await app.run<unknown[]>(
      `const answers = [];
       try { document.body.insertAdjacentHTML("beforeend", "<b>x</b>"); answers.push("markup"); } catch (e) { answers.push("refused"); }
       const script = document.createElement("script");
       try { script.textContent = "window.harmed = 2"; document.body.append(script); } catch (e) { /* Trusted Types */ }
       const picture = document.createElement("img");
       picture.src = arguments[0];
       document.body.append(picture);
       fetch(arguments[0]).then(() => { window.harmed = 3; }, () => {});
       return [window.harmed ?? null, document.querySelectorAll(".bubble img, .bubble script").length, ...answers];`,
      `http://127.0.0.1:${port}/x`,
    );
    expect(found.slice(0, 2)).toEqual([null, 0]);
    await new Promise((done) => setTimeout(done, 300));
    expect([requests, await app.run("return window.harmed ?? null")]).toEqual([0, null]);
    server.close();
    told = await app.text(".manuscript .text");
  });

  it("cannot be asked by the page for more than its own commands", async () => {
    const refused = await app.run<string[]>(
      `return Promise.all(
         ["plugin:fs|read_text_file", "plugin:shell|open", "plugin:event|listen", "plugin:window|close", "load"].map((name) =>
           window.__TAURI_INTERNALS__.invoke(name, { path: "/etc/passwd" }).then(() => "allowed", (e) => JSON.stringify(e)),
         ),
       );`,
    );
    expect(refused.filter((answer) => answer === "allowed")).toEqual([]);
    expect(refused.slice(0, 4).every((answer) => /not allowed|not found/.test(answer))).toBe(true);
    expect(refused[4]).toContain("choose it in the settings");
  });

  it("remembers after it was killed", async () => {
    await until("its memory", async () => desktop.files().some((name) => name.endsWith(".state")));
    // The texts of the last answer are on the disk at its end, its state with them.
    await until("its text", async () => JSON.stringify(kept()).includes(JSON.stringify(told.slice(-30)).slice(1, -1)));
    await app.kill();
    app = await desktop.app();
    await app.open();
    expect(await app.text(".manuscript .text")).toBe(told);
    desktop.picture("remembers");
    const all = await app.tell(" The end of the day came and");
    expect(all.startsWith(told)).toBe(true);
    // Of the text so far nothing was read again but a last token.
    await until("the result", async () => (lastResult().cachedTokens ?? 0) > 0);
    const { promptTokens = 0, cachedTokens = 0 } = lastResult();
    expect(promptTokens - cachedTokens).toBeLessThan(12);
    expect(cachedTokens).toBeGreaterThan(60);
    told = all;
  });

  it("remembers what it was writing when it was killed", async () => {
    await app.open();
    // A text that only a tilde may end, which the model never writes.
    await app.set("#max-tokens", "100000");
    await app.choose("input[name=json][value=schema]");
    await app.set("#schema", JSON.stringify(ENDLESS), "input");
    await app.closeSettings();
    await app.click(".composer button[type=submit]");
    await until("a part of a text on the disk", async () => {
      const nodes = kept().conversations.flatMap(({ nodes }) => Object.values(nodes));
      return nodes.some((node) => node.status === "streaming" && node.text.length > 300);
    });
    await app.kill();
    app = await desktop.app();
    await app.open();
    const text = await app.text(".manuscript .text");
    expect(text.startsWith(told)).toBe(true);
    expect(text.length).toBeGreaterThan(told.length + 200);
    await app.see(".manuscript footer");
    told = text;
    await app.choose("input[name=json][value=off]");
    await app.set("#max-tokens", "200");
    await app.closeSettings();
  });

  it("is there once: a second start shows the first", async () => {
    if (await app.run<boolean>("return document.querySelector('.bubble') !== null")) await app.click(".figure-button");
    await app.gone(".bubble");
    const second = spawn(PROGRAM, { env: { ...desktop.env, TAURI_WEBVIEW_AUTOMATION: "" }, stdio: "ignore" });
    const code = await new Promise((done) => second.once("exit", done));
    expect(code).toBe(0);
    await app.see(".bubble");
  });

  it("opens and closes by keys from anywhere", async () => {
    await app.open();
    desktop.x("key", "ctrl+shift+space");
    await app.gone(".bubble");
    desktop.x("key", "ctrl+shift+space");
    await app.see(".bubble");
  });

  it("is moved by dragging, and stays there", async () => {
    if (await app.run<boolean>("return document.querySelector('.bubble') !== null")) await app.click(".figure-button");
    await until("the small window", () => app.run("return innerWidth === 150"));
    const place = () => {
      const text = desktop.x("search", "--onlyvisible", "--name", "^bitnet$", "getwindowgeometry", "--shell");
      return [Number(/X=(-?\d+)/.exec(text)?.[1]), Number(/Y=(-?\d+)/.exec(text)?.[1])] as const;
    };
    await until("the window at rest", async () => place()[0] > 800);
    const [x, y] = place();
    desktop.x("mousemove", `${x + 75}`, `${y + 90}`, "mousedown", "1");
    for (const step of [10, 60, 150, 260, 300]) {
      desktop.x("mousemove", `${x + 75 - step}`, `${y + 90 - Math.round(step / 2)}`, "sleep", "0.05");
    }
    desktop.x("mouseup", "1");
    await until("a new place", async () => place()[0] < x - 150);
    expect(await app.run("return document.querySelector('.bubble')")).toBe(null);
    // A click of the pointer; the driver still holds the button that the window manager saw released.
    const [left, top] = place();
    desktop.x("mousemove", `${left + 75}`, `${top + 90}`, "click", "1");
    await app.see(".bubble");
    await until("a larger window", () => app.run("return innerWidth === 420"));
    desktop.picture("moved");
    await until("the settings", async () =>
      readFileSync(join(desktop.home, "companion/settings.json"), "utf8").includes('"place": ['),
    );
  });

  it("shows a model's memory before it loads it, and the size of what it remembers", async () => {
    await app.open();
    await app.openSettings();
    await app.click(".choose-model");
    await app.see(".plan .primary");
    const plan = await app.text(".plan");
    expect(plan).toContain("Memory of tinystories-5m");
    expect(plan).toContain("it fits");
    desktop.picture("plan");
    await app.click(".plan .primary");
    await until("the other model", async () => (await app.text(".chosen")).includes("tinystories-5m"));
    await app.closeSettings();
    await app.click(".bar button[title='Begin something new']");
    await app.tell("Tom had a red ball");
    await app.openSettings();
    await until("two states", () => app.run("return document.querySelectorAll('.memory li').length >= 2"));
    const sizes = await app.run<string[]>(
      "return [...document.querySelectorAll('.memory li .note')].map((e) => e.textContent)",
    );
    expect(sizes.every((size) => /tokens, [\d.,]+ (KiB|MiB)/.test(size))).toBe(true);
    await app.run("document.querySelector('.memory').scrollIntoView()");
    desktop.picture("memory");
    await app.closeSettings();
  });

  it("exports a conversation with its state", async () => {
    await app.openSettings();
    await app.click(".export");
    await app.see(".memory [role=status]");
    const file = JSON.parse(readFileSync(join(desktop.home, "exported.json"), "utf8"));
    expect([file.format, file.version, file.state.backend]).toEqual(["bitnet-conversation", 1, "desktop"]);
    expect(Buffer.from(file.state.bytes, "base64").subarray(0, 8).toString()).toBe("BITNETSQ");
    expect(JSON.stringify(file.conversation)).toContain("Tom had a red ball");
    await app.closeSettings();
  });

  it("speaks Japanese", async () => {
    await app.set("#language", "ja");
    await until("Japanese", async () => (await app.text("dialog h2")) === "設定");
    expect(await app.run("return document.documentElement.lang")).toBe("ja");
    desktop.picture("settings-ja");
    await app.closeSettings();
    const text = await app.tell("トムは赤いボール");
    expect(text).toContain("トムは赤いボール");
    desktop.picture("answer-ja");
  });

  it("tells of damage, keeps the damaged files, and begins afresh", async () => {
    await until("the language on the disk", async () => JSON.stringify(kept()).includes("トムは赤いボール"));
    await app.kill();
    const memory = join(desktop.home, "companion/memory");
    for (const name of desktop.files()) {
      const bytes = readFileSync(join(memory, name));
      bytes[bytes.length - 10] = (bytes[bytes.length - 10] ?? 0) ^ 1;
      writeFileSync(join(memory, name), bytes);
    }
    writeFileSync(join(desktop.home, "companion/settings.json"), "{");
    app = await desktop.app();
    await app.open();
    await app.see(".told");
    desktop.picture("damaged");
    const notices = await app.text(".bubble");
    expect(notices).toContain("were damaged");
    expect(await app.run("return document.querySelector('.manuscript')")).toBe(null);
    expect(desktop.files().some((name) => name.endsWith(".damaged"))).toBe(true);
    await app.tell("Lily saw");
  });

  it("forgets everything", async () => {
    await app.openSettings();
    await app.click(".forget");
    await app.click(".forget-yes");
    await until("nothing", async () => !desktop.files().some((name) => /\.state|damaged/.test(name)));
    await app.closeSettings();
    await app.see(".welcome");
    desktop.picture("forgotten");
    const texts = kept();
    expect(JSON.stringify(texts)).not.toContain("Lily saw");
    await app.kill();
    app = await desktop.app();
    await app.open();
    await app.see(".welcome");
  });

  it("keeps everything when it is quit", async () => {
    const text = await app.tell("Max found a key");
    // The driver may lose the program before it hears the answer.
    await app.run("void window.__TAURI_INTERNALS__.invoke('quit')").catch(() => {});
    await app.over();
    expect(desktop.files().some((name) => name.endsWith(".state"))).toBe(true);
    app = await desktop.app();
    await app.open();
    expect(await app.text(".manuscript .text")).toBe(text);
  });

  it("has no port", async () => {
    await app.kill();
    // A driver would have the web view listen to it, so the program starts without one.
    const alone = spawn(PROGRAM, { env: { ...desktop.env, TAURI_WEBVIEW_AUTOMATION: "" }, stdio: "ignore" });
    const gone = new Promise((done) => alone.once("exit", done));
    const pid = alone.pid ?? 0;
    await until("its window", async () => desktop.sees("^bitnet$"));
    const listening = ["tcp", "tcp6"].flatMap((kind) =>
      readFileSync(`/proc/${pid}/net/${kind}`, "utf8")
        .split("\n")
        .slice(1)
        .filter((line) => line.trim().split(/\s+/)[3] === "0A")
        .map((line) => line.trim().split(/\s+/)[9] ?? ""),
    );
    expect(desktop.socketsOf(pid).length).toBeGreaterThan(0);
    expect(desktop.socketsOf(pid).filter((inode) => listening.includes(inode))).toEqual([]);
    desktop.picture("alone");
    alone.kill("SIGKILL");
    await gone;
  });
});
