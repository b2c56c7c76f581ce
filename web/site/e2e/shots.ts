/** The pictures of docs/wasm.md: `npm run shots:site`, after `cargo xtask web`. */
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, beforeAll, it } from "vitest";
import { launch, open } from "../../e2e/harness.ts";
import { type Served, serveSite } from "./serve.ts";

const ROOT = new URL("../../../", import.meta.url).pathname;

let browser: Browser;
let site: Served;

beforeAll(async () => {
  site = await serveSite();
  browser = await launch();
});

afterAll(async () => {
  await browser?.close();
  site?.stop();
});

interface Shot {
  name: string;
  options: BrowserContextOptions;
  /** What is done from the first sight to the picture. */
  steps: (page: Page) => Promise<void>;
}

async function tell(page: Page, text: string): Promise<void> {
  await page.keyboard.press("Alt+Comma");
  await page.locator("#seed").fill("7");
  await page.locator("#max-tokens").fill("300");
  await page.keyboard.press("Escape");
  await page.locator("#message").fill(text);
  await page.locator("button[type=submit].primary").click();
  await page.locator("article footer").last().waitFor();
  await page.waitForTimeout(500);
}

const extract = (choice: string, text: string) => async (page: Page) => {
  await page.keyboard.press("Alt+Comma");
  await page.locator(".models select").selectOption(choice);
  await page.keyboard.press("Escape");
  await page.locator("#utterance").fill(text);
  await page
    .locator(".finding .facts", { hasText: "ms" })
    .or(page.locator(".finding .facts", { hasText: "ミリ秒" }))
    .waitFor();
  await page.waitForTimeout(300);
};

const SHOTS: Shot[] = [
  {
    name: "site-story",
    options: { viewport: { width: 1280, height: 860 } },
    steps: (page) => tell(page, "One day, a little robot named Bo found a key in the grass."),
  },
  {
    name: "site-ja",
    options: { viewport: { width: 1280, height: 860 }, colorScheme: "dark", locale: "ja-JP" },
    steps: async (page) => {
      await page.keyboard.press("Alt+Comma");
      await page.locator(".models input[type=file]").setInputFiles(`${ROOT}models/tiny-ja-ttt.gguf`);
      await page.waitForFunction("document.querySelector('.models select').value === 'tiny-ja-ttt.gguf'");
      await page.keyboard.press("Escape");
      await tell(page, "吾輩は猫である。名前はまだ無い。");
    },
  },
  {
    name: "site-extract",
    options: { viewport: { width: 1280, height: 860 } },
    steps: extract("/en", "book a table for four at 7 pm in paris"),
  },
  {
    name: "site-extract-phone",
    options: {
      viewport: { width: 360, height: 740 },
      deviceScaleFactor: 2,
      hasTouch: true,
      isMobile: true,
      locale: "ja-JP",
      colorScheme: "dark",
    },
    steps: extract("/ja", "夏目漱石つてどんな人?"),
  },
];

it.each(SHOTS)("$name", async ({ name, options, steps }) => {
  const { page } = await open(browser, site.url, { reducedMotion: "reduce", ...options });
  await page.locator(".examples").waitFor({ timeout: 20_000 });
  await steps(page);
  await page.screenshot({ path: `${ROOT}docs/img/${name}.png` });
  await page.context().close();
});
