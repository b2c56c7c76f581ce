/** The pictures of docs/page.md: `npm run shots`. */
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, beforeAll, it } from "vitest";
import { launch, open, type Served, serve } from "./harness.ts";

const FOLDER = new URL("../../docs/img/", import.meta.url).pathname;
const MODELS = new URL("../../models/", import.meta.url).pathname;

let browser: Browser;
let learning: Served;
let attention: Served;

beforeAll(async () => {
  browser = await launch();
  learning = await serve("--template", "chatml");
  attention = await serve("-m", `${MODELS}tinystories-5m.gguf`, "--template", "chatml");
});

afterAll(async () => {
  await browser?.close();
  await learning?.stop();
  await attention?.stop();
});

interface Shot {
  name: string;
  server: () => Served;
  options: BrowserContextOptions;
  before?: (page: Page) => Promise<void>;
  text: string;
  after?: (page: Page) => Promise<void>;
}

const SHOTS: Shot[] = [
  {
    name: "page-story",
    server: () => learning,
    options: { viewport: { width: 1280, height: 860 } },
    text: "One day, a little robot named Bo found a key in the grass.",
  },
  {
    name: "page-dark-ja",
    server: () => attention,
    options: { viewport: { width: 1280, height: 860 }, colorScheme: "dark", locale: "ja-JP" },
    text: "Tom and his grandmother went to the sea.",
    // Beyond the first page of keys and values.
    after: async (page) => {
      await page.locator("#message").fill(" In the morning");
      await page.locator("button[type=submit].primary").click();
      await page.locator("button[type=submit].primary").waitFor();
      await page.locator("article footer").last().waitFor();
      await page.waitForTimeout(500);
    },
  },
  {
    name: "page-phone",
    server: () => learning,
    options: { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true },
    text: "It was raining, and Lily",
  },
  {
    name: "page-json",
    server: () => learning,
    options: { viewport: { width: 1600, height: 900 } },
    before: async (page) => {
      await page.keyboard.press("Alt+Comma");
      await page.getByRole("radio", { name: "A JSON Schema" }).check();
      await page.getByRole("button", { name: "Insert an example" }).click();
      await page.getByRole("button", { name: "Close" }).click();
    },
    text: "Invent a person.",
    after: async (page) => {
      await page.keyboard.press("Alt+Comma");
      await page.getByRole("dialog").waitFor();
    },
  },
];

it.each(SHOTS)("$name", async ({ name, server, options, before, text, after }) => {
  const { page } = await open(browser, server().url, { reducedMotion: "reduce", ...options });
  await page.locator(".examples").waitFor();
  await page.keyboard.press("Alt+Comma");
  await page.locator("#seed").fill("7");
  await page.locator("#max-tokens").fill("400");
  await page.keyboard.press("Escape");
  await before?.(page);
  if (!before) {
    const menu = page.locator(".bar .menu");
    if (await menu.isVisible()) await menu.click();
    await page
      .getByRole("button", { name: /New story|新しい物語/ })
      .last()
      .click();
  }
  await page.locator("#message").fill(text);
  await page.locator("button[type=submit].primary").click();
  await page.locator("article footer").last().waitFor();
  await page.waitForTimeout(500);
  await after?.(page);
  await page.screenshot({ path: `${FOLDER}${name}.png` });
  await page.context().close();
});
