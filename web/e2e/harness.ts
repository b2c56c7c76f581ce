/** A server and a browser for the tests, and what they share. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";

const root = new URL("../../", import.meta.url).pathname;
/** Where pictures of each run lie. */
export const PICTURES = `${root}target/web`;

export interface Served {
  url: string;
  stop(): Promise<void>;
}

/** Starts `bitnet serve` on a free port, with the built-in model unless `args` name another. */
export async function serve(...args: string[]): Promise<Served> {
  const program = process.env.BITNET ?? `${root}target/debug/bitnet`;
  if (!existsSync(program)) throw new Error(`${program} is missing: cargo build --workspace --bins`);
  const env = { ...process.env };
  for (const name of ["BITNET_MODEL", "BITNET_LOG", "BITNET_API_KEY"]) delete env[name];
  const child = spawn(program, ["serve", "--port", "0", "-t", "1", "--grace", "0", ...args], {
    stdio: ["ignore", "pipe", "ignore"],
    env,
  });
  const url = await firstLine(child);
  const stop = () =>
    new Promise<void>((resolve) => {
      if (child.exitCode !== null) return resolve();
      child.once("exit", () => resolve());
      child.kill("SIGTERM");
    });
  return { url, stop };
}

async function firstLine(child: ChildProcess): Promise<string> {
  if (!child.stdout) throw new Error("no stdout");
  for await (const line of createInterface({ input: child.stdout })) {
    const url = /http:\/\/[^/\s]+/.exec(line)?.[0];
    if (url) return `${url}/`;
  }
  throw new Error("the server does not say where it listens");
}

export async function launch(): Promise<Browser> {
  mkdirSync(PICTURES, { recursive: true });
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  return chromium.launch({
    executablePath,
    args: ["--no-sandbox", "--disable-dev-shm-usage", "--font-render-hinting=none"],
  });
}

/** A page of its own storage; what it complains about is collected. */
export async function open(
  browser: Browser,
  url: string,
  options: BrowserContextOptions = {},
): Promise<{ page: Page; problems: string[] }> {
  const context = await browser.newContext({ locale: "en-GB", viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  const problems: string[] = [];
  page.on("pageerror", (error) => problems.push(`error: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error") problems.push(`console: ${message.text()}`);
  });
  page.on("dialog", (dialog) => {
    problems.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("blob:"))
      problems.push(`request: ${request.url()}`);
  });
  // While the page is being written, its files need not be compiled into the server for each change.
  if (process.env.PAGE_FROM_FOLDER) await fromFolder(page, url);
  await page.goto(url);
  await page.locator("main, dialog").first().waitFor();
  return { page, problems };
}

async function fromFolder(page: Page, url: string): Promise<void> {
  const folder = `${root}crates/bitnet-server/page/`;
  for (const name of ["index.html", "assets/app.js", "assets/app.css"]) {
    await page.route(url + name.replace("index.html", ""), async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, body: readFileSync(folder + name) });
    });
  }
}

/** The findings of axe-core that are serious or worse, as short texts. */
export async function accessibilityFindings(page: Page): Promise<string[]> {
  const path = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
  await page.evaluate(readFileSync(path, "utf8"));
  const found = (await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")) as {
    violations: { id: string; impact: string; nodes: { html: string; failureSummary: string }[] }[];
  };
  return found.violations
    .filter((v) => v.impact === "serious" || v.impact === "critical")
    .map((v) => `${v.id}: ${v.nodes.map((n) => `${n.html} ${n.failureSummary}`).join("; ")}`);
}

/** The body of a stream in the server's form. */
export function streamOf(pieces: string[]): string {
  const events = pieces.map((text) => ({
    choices: [{ index: 0, text, delta: { content: text }, finish_reason: null }],
  }));
  const end = { choices: [{ index: 0, text: "", delta: {}, finish_reason: "stop" }] };
  return `${[...events, end].map((e) => `data: ${JSON.stringify(e)}\n\n`).join("")}data: [DONE]\n\n`;
}
