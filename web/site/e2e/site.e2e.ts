/** The static site in a browser: everything that a visitor does, without a server of ours. */
import { execFileSync } from "node:child_process";
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { accessibilityFindings, launch, open, PICTURES } from "../../e2e/harness.ts";

const ROOT = new URL("../../../", import.meta.url).pathname;
const SITE = `${ROOT}target/site`;
const TYPES: Record<string, string> = {
  ".css": "text/css",
  ".html": "text/html",
  ".js": "text/javascript",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};

let browser: Browser;
let server: Server;
let url: string;

/** Any static server: files of a folder, below a path of its own. */
beforeAll(async () => {
  if (!existsSync(`${SITE}/index.html`)) throw new Error("target/site is missing: cargo xtask web");
  server = createServer((request, response) => {
    const path = new URL(request.url ?? "/", "http://x").pathname.replace(/^\/somewhere/, "");
    const file = join(SITE, normalize(path).replace(/\/$/, "/index.html"));
    if (!statSync(file, { throwIfNoEntry: false })?.isFile()) return void response.writeHead(404).end();
    response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream" });
    createReadStream(file).pipe(response);
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/somewhere/`;
  browser = await launch();
});

afterAll(async () => {
  await browser?.close();
  server?.closeAllConnections();
  server?.close();
});

const field = (page: Page) => page.locator("#message");
const story = (page: Page) => page.locator(".manuscript .text");
const idle = (page: Page) => page.getByRole("button", { name: /^(Stop|停止)$/ }).waitFor({ state: "detached" });

/** Options that make a text repeatable and short. */
async function options(page: Page, tokens: number): Promise<void> {
  await page.keyboard.press("Alt+Comma");
  await page.locator("#seed").fill("7");
  await page.locator("#max-tokens").fill(String(tokens));
  await page.keyboard.press("Escape");
}

/** The text of the story, without the tools in it. */
async function told(page: Page): Promise<string> {
  return story(page).evaluate((element) => {
    const copy = element.cloneNode(true) as HTMLElement;
    for (const tool of copy.querySelectorAll("button, .tools")) tool.remove();
    return copy.textContent ?? "";
  });
}

async function tell(page: Page, text: string): Promise<string> {
  await field(page).fill(text);
  await page.keyboard.press("Enter");
  await page.locator("article footer").last().waitFor();
  await idle(page);
  return told(page);
}

/** Waits for the model: the beginnings are shown once it is there. */
async function ready(page: Page): Promise<void> {
  await page.locator(".examples").waitFor({ timeout: 20_000 });
}

describe("the site", () => {
  it("tells a story word by word, stops, and is there after a reload", async () => {
    const { page, problems } = await open(browser, url);
    await ready(page);
    await field(page).fill("Once upon a time");
    await page.keyboard.press("Enter");
    await expect.poll(() => told(page)).toMatch(/^Once upon a time.{10}/s);
    const early = await told(page);
    await page.keyboard.press("Escape");
    await idle(page);
    const text = await told(page);
    expect(text.startsWith(early)).toBe(true);
    expect(await page.getByRole("complementary").last().innerText()).toMatch(/wasm simd128|tokens\/s/);
    await page.screenshot({ path: `${PICTURES}/site-story.png` });
    await page.reload();
    await story(page).waitFor();
    expect(await told(page)).toBe(text);
    expect(problems).toEqual([]);
    await page.context().close();
  });

  it("has the text of the native program", async () => {
    const { page, problems } = await open(browser, url);
    await ready(page);
    await options(page, 60);
    const text = await tell(page, "Once upon a time");
    const program = process.env.BITNET ?? `${ROOT}target/debug/bitnet`;
    const model = `${ROOT}crates/bitnet/models/tiny-stories-ttt.gguf`;
    const args = ["run", "-q", "-m", model, "--json", "--seed", "7", "-n", "60", "-p", "Once upon a time"];
    const native = JSON.parse(execFileSync(program, args, { encoding: "utf8" })) as { text: string };
    expect(text.replace(/\s+/g, " ").trim()).toBe(`Once upon a time${native.text}`.replace(/\s+/g, " ").trim());
    expect(problems).toEqual([]);
    await page.context().close();
  });

  it("works without a network after the first visit", async () => {
    const { page, problems } = await open(browser, url);
    await ready(page);
    await page.evaluate("navigator.serviceWorker.ready");
    await expect.poll(() => page.evaluate("caches.keys().then((k) => k.length)")).toBeGreaterThanOrEqual(3);
    await page.context().setOffline(true);
    await page.reload();
    await ready(page);
    await options(page, 20);
    expect((await tell(page, "The dog")).length).toBeGreaterThan(10);
    await page.screenshot({ path: `${PICTURES}/site-offline.png` });
    expect(problems).toEqual([]);
    await page.context().close();
  });

  it("takes a file that is dropped, in Japanese, and has it after a reload", async () => {
    const { page, problems } = await open(browser, url, { locale: "ja-JP", colorScheme: "dark" });
    await ready(page);
    await page.keyboard.press("Alt+Comma");
    await page.locator(".models input[type=file]").setInputFiles(`${ROOT}models/tiny-ja-ttt.gguf`);
    await expect.poll(() => page.locator(".models select").inputValue()).toBe("tiny-ja-ttt.gguf");
    await page.keyboard.press("Escape");
    await page.reload();
    await ready(page);
    await options(page, 40);
    const text = await tell(page, "吾輩は猫である。");
    expect(text.startsWith("吾輩は猫である。")).toBe(true);
    expect(text.slice(8).match(/[ぁ-んァ-ヶ一-龠]/g)?.length).toBeGreaterThan(5);
    await page.screenshot({ path: `${PICTURES}/site-japanese.png` });
    // A drop anywhere on the page; a file that is not a model is an error that says so, and the page goes on.
    await page.evaluate(() => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(1000)], "broken.gguf"));
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
    });
    await page.getByRole("alert").first().waitFor();
    await page.reload();
    await page.locator("article").first().waitFor();
    expect(problems).toEqual([]);
    await page.context().close();
  });

  it("shows markup in a text as text", async () => {
    const { page, problems } = await open(browser, url);
    await ready(page);
    await options(page, 8);
    const hostile = '<img src=x onerror="window.hit = 1"><script>window.hit = 1</script> [a](javascript:window.hit=1)';
    const text = await tell(page, hostile);
    expect(text).toContain("<script>window.hit = 1</script>");
    expect(await page.evaluate("window.hit")).toBeUndefined();
    expect(await page.locator("article script, article img, .manuscript script, .manuscript img").count()).toBe(0);
    expect(problems).toEqual([]);
    await page.context().close();
  });

  it.each(["light", "dark"] as const)("axe-core has no serious finding: %s", async (colorScheme) => {
    const { page } = await open(browser, url, { colorScheme });
    await ready(page);
    expect(await accessibilityFindings(page)).toEqual([]);
    await page.keyboard.press("Alt+Comma");
    await page.locator(".models").waitFor();
    expect(await accessibilityFindings(page)).toEqual([]);
    await page.screenshot({ path: `${PICTURES}/site-settings-${colorScheme}.png` });
    await page.context().close();
  });
});
