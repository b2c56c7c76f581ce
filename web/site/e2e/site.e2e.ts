/** The static site in a browser: everything that a visitor does, without a server of ours. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { accessibilityFindings, launch, open, PICTURES } from "../../e2e/harness.ts";
import { type Served, serveSite } from "./serve.ts";

const ROOT = new URL("../../../", import.meta.url).pathname;

let browser: Browser;
let server: Served;
let url: string;

beforeAll(async () => {
  server = await serveSite();
  url = server.url;
  browser = await launch();
});

afterAll(async () => {
  await browser?.close();
  server?.stop();
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
    await page.keyboard.press("Alt+Comma");
    const stored = page.locator(".models select option");
    await stored.filter({ hasText: "tiny-ja-ttt.gguf (" }).waitFor({ state: "attached" });
    expect(await stored.evaluateAll((all) => all.map((option) => (option as HTMLOptionElement).value))).not.toContain(
      "broken.gguf",
    );
    expect(problems).toEqual([]);
    await page.context().close();
  });

  it("an answer that its length cuts within a character has whole ones", async () => {
    const { page, problems } = await open(browser, url, { locale: "ja-JP" });
    await ready(page);
    await page.keyboard.press("Alt+Comma");
    await page.locator(".models input[type=file]").setInputFiles(`${ROOT}models/tiny-ja-ttt.gguf`);
    await expect.poll(() => page.locator(".models select").inputValue()).toBe("tiny-ja-ttt.gguf");
    await page.locator("#seed").fill("1");
    await page.keyboard.press("Escape");
    const program = process.env.BITNET ?? `${ROOT}target/debug/bitnet`;
    let divided = 0;
    for (const tokens of [3, 5, 7, 8, 10]) {
      await page.keyboard.press("Alt+Comma");
      await page.locator("#max-tokens").fill(String(tokens));
      await page.keyboard.press("Escape");
      await page.keyboard.press("Alt+KeyN");
      const text = await tell(page, "吾輩は猫である。");
      const args = ["run", "-q", "-m", `${ROOT}models/tiny-ja-ttt.gguf`, "--json", "--seed", "1", "-n", String(tokens)];
      const native = execFileSync(program, [...args, "-p", "吾輩は猫である。"], { encoding: "utf8" });
      const said = JSON.parse(native) as { text: string; incomplete?: number[] };
      expect(text.replace(/\s+/g, " ").trim()).toBe(`吾輩は猫である。${said.text}`.replace(/\s+/g, " ").trim());
      expect(text).not.toContain("\ufffd");
      if (said.incomplete !== undefined) divided += 1;
    }
    expect(divided).toBeGreaterThan(0);
    expect(problems).toEqual([]);
    await page.context().close();
  });

  it("names the intent of a sentence while it is typed, and is there after a reload, without a network too", async () => {
    const { page, problems } = await open(browser, url);
    await ready(page);
    await page.keyboard.press("Alt+Comma");
    await page.locator(".models select").selectOption("/en");
    await page.keyboard.press("Escape");
    const sentence = page.locator("#utterance");
    await sentence.waitFor();
    await sentence.pressSequentially("play some jazz by miles davis");
    await expect.poll(() => page.locator(".finding .intent").innerText()).toMatch(/^PlayMusic\s+9\d/);
    const marks = page.locator(".marked mark");
    await expect.poll(() => marks.allInnerTexts()).toEqual(["jazz", "miles davis"]);
    expect(await page.locator(".marked small").allInnerTexts()).toEqual(["genre", "artist"]);
    expect(await page.locator(".finding .slots tbody tr").allInnerTexts()).toEqual([
      "genre\tjazz",
      "artist\tmiles davis",
    ]);
    const ranked = page.locator(".ranked .name");
    expect([(await ranked.allInnerTexts()).length, await ranked.first().innerText()]).toEqual([5, "PlayMusic"]);
    await expect.poll(() => page.locator(".finding .facts").innerText()).toMatch(/^\d+(\.\d+)? ms per call/);
    expect(await accessibilityFindings(page)).toEqual([]);
    await page.screenshot({ path: `${PICTURES}/site-extract.png` });
    // What it does not know is said to be so.
    await page.locator(".extract .task select").selectOption("clinc150");
    await sentence.fill("how many legs does a spider have in minecraft");
    await page.locator(".finding .scope").waitFor();
    expect(await page.locator(".marked mark").count()).toBe(0);
    // Kept in this browser.
    await page.evaluate("navigator.serviceWorker.ready");
    await page.context().setOffline(true);
    await page.reload();
    await sentence.fill("book a table for four at 7 pm in paris");
    await expect.poll(() => page.locator(".finding .intent").innerText()).toMatch(/^BookRestaurant/);
    await page.getByRole("button", { name: "Back to the texts" }).click();
    await options(page, 8);
    expect((await tell(page, "The dog")).length).toBeGreaterThan(10);
    expect(problems).toEqual([]);
    await page.context().close();
  });

  it("an extractor that is dropped marks Japanese, on a phone and in the dark", async () => {
    const { page, problems } = await open(browser, url, {
      locale: "ja-JP",
      colorScheme: "dark",
      viewport: { width: 360, height: 740 },
    });
    await ready(page);
    const bytes = readFileSync(`${ROOT}models/intent/extractor-ja.gguf`).toString("base64");
    await page.evaluate((base64) => {
      const data = new DataTransfer();
      data.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], "my extractor.gguf"));
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
    }, bytes);
    await page.locator("#utterance").fill("青空文庫つて知ってる?");
    await expect.poll(() => page.locator(".marked mark").allInnerTexts()).toEqual(["青空文庫"]);
    expect(await page.locator(".marked small").innerText()).toBe("topic");
    await expect.poll(() => page.locator(".finding .facts").innerText()).toMatch(/ミリ秒/);
    expect(await accessibilityFindings(page)).toEqual([]);
    expect(await page.evaluate("document.documentElement.scrollWidth")).toBe(360);
    await page.screenshot({ path: `${PICTURES}/site-extract-ja.png` });
    await page.reload();
    await page.locator("#utterance").waitFor();
    await page.keyboard.press("Alt+Comma");
    expect(await page.locator(".models select").inputValue()).toBe("my extractor.gguf");
    await page.getByRole("button", { name: "このブラウザーから削除" }).click();
    await expect.poll(() => page.locator(".models select").inputValue()).toBe("");
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
    const right = (element: Element) => element.getBoundingClientRect().right;
    const panel = await page.getByRole("dialog").evaluate(right);
    for (const name of ["select", "input"]) {
      expect(await page.locator(`.models ${name}`).evaluate(right), name).toBeLessThan(panel);
    }
    await page.screenshot({ path: `${PICTURES}/site-settings-${colorScheme}.png` });
    await page.context().close();
  });
});
