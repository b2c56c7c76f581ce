import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { accessibilityFindings, launch, open, PICTURES, type Served, serve, streamOf } from "./harness.ts";

let browser: Browser;
let server: Served;

beforeAll(async () => {
  [browser, server] = await Promise.all([launch(), serve("--template", "chatml")]);
});

afterAll(async () => {
  await browser?.close();
  await server?.stop();
});

const field = (page: Page) => page.getByRole("textbox", { name: /Your message|Your part|メッセージ|あなたが書く部分/ });
const begin = (page: Page, kind: RegExp) => page.getByRole("button", { name: kind }).first().click();
const idle = (page: Page) => page.getByRole("button", { name: /^(Stop|停止)$/ }).waitFor({ state: "detached" });
const turns = (page: Page) => page.locator("article.turn.assistant .prose");

/** Sends a text in a chat and waits for its answer. */
async function ask(page: Page, text: string): Promise<string> {
  await field(page).fill(text);
  await page.keyboard.press("Enter");
  await page.locator("article.turn.assistant footer").last().waitFor();
  return turns(page).last().innerText();
}

describe("the page", () => {
  it("loads under its policy, tells a story word by word, stops, and is there after a reload", async () => {
    const { page, problems } = await open(browser, server.url);
    await begin(page, /New story/);
    await page.getByRole("heading", { name: "How does it begin?" }).waitFor();
    await field(page).fill("Once upon a time");
    await page.keyboard.press("Enter");
    const story = page.locator(".manuscript .text");
    await expect.poll(() => story.innerText()).toMatch(/^Once upon a time.{10}/s);
    const early = await story.innerText();
    await expect.poll(async () => (await story.innerText()).length).toBeGreaterThan(early.length);
    await page.keyboard.press("Escape");
    await idle(page);
    const told = await story.innerText();
    expect(told.startsWith(early)).toBe(true);
    await page.reload();
    await story.waitFor();
    expect(await story.innerText()).toBe(told);
    // The model goes on without another word of the reader.
    await page.getByRole("button", { name: "Continue" }).click();
    await expect.poll(async () => (await story.innerText()).length).toBeGreaterThan(told.length + 20);
    await page.getByRole("button", { name: "Stop" }).click();
    await idle(page);
    expect(problems).toEqual([]);
    await page.screenshot({ path: `${PICTURES}/story.png` });
    await page.context().close();
  });

  it("shows speed, memory and inner loss of the session", async () => {
    const { page, problems } = await open(browser, server.url);
    await begin(page, /New story/);
    await field(page).fill("There was a girl named Lily and a boy named Tom.");
    await page.keyboard.press("Enter");
    await page.locator(".manuscript footer").waitFor();
    const gauges = page.getByRole("complementary", { name: "Gauges" });
    await expect.poll(() => gauges.innerText()).toMatch(/[\d.,]+\s+tokens\/s/);
    const text = await gauges.innerText();
    expect(text).toMatch(/[\d.,]+ KiB\s+[\d,]+ tokens/);
    expect(text).toContain("however long the text gets");
    await gauges.getByRole("img", { name: /The inner loss is at \d+% of/ }).waitFor();
    await gauges.getByRole("img", { name: /layers of attention/ }).waitFor();
    expect(problems).toEqual([]);
    await page.context().close();
  });

  it("forks: another answer and another question are branches, and the old ones stay", async () => {
    const { page, problems } = await open(browser, server.url);
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByLabel("Longest answer").fill("12");
    await page.getByLabel("Instruction").fill("You are brief.");
    await page.keyboard.press("Escape");
    const first = await ask(page, "A cat?");
    await page.getByRole("button", { name: "Another answer" }).click();
    await page.getByRole("group", { name: "Branch 2 of 2" }).waitFor();
    await idle(page);
    await page.getByRole("button", { name: "Previous branch" }).click();
    expect(await turns(page).last().innerText()).toBe(first);
    await ask(page, "And a dog?");
    await page.locator("article.turn.user").first().getByRole("button", { name: "Edit" }).click();
    await page.getByRole("textbox", { name: "New wording" }).fill("A bird?");
    await page.getByRole("button", { name: "Save and answer" }).click();
    await page.locator("article.turn.assistant footer").last().waitFor();
    expect(await page.locator("article.turn.user .said").allInnerTexts()).toEqual(["A bird?"]);
    await page.getByRole("button", { name: "Previous branch" }).click();
    expect(await page.locator("article.turn.user .said").allInnerTexts()).toEqual(["A cat?", "And a dog?"]);
    expect(problems).toEqual([]);
    await page.context().close();
  });

  it("stops at a reload, and a conversation comes back from its file", async () => {
    const { page, problems } = await open(browser, server.url);
    await begin(page, /New story/);
    await field(page).fill("The sun was");
    await page.keyboard.press("Enter");
    const story = page.locator(".manuscript .text");
    await expect.poll(() => story.innerText()).toMatch(/^The sun was.{10}/s);
    await page.reload();
    await page.locator(".manuscript footer").waitFor();
    // Whether or not the model had come to an end: that the page went is not an error.
    expect(await page.getByRole("alert").count()).toBe(0);
    const told = await story.innerText();
    expect(told.length).toBeGreaterThan(20);
    await page.getByRole("button", { name: "Settings" }).click();
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("button", { name: "Save as a file" }).click(),
    ]);
    const path = await download.path();
    await page
      .locator("input[type=file]")
      .setInputFiles({ name: "x.json", mimeType: "application/json", buffer: Buffer.from("{}") });
    await page.getByText("This file does not hold a conversation.").waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: /^Delete/ }).click();
    await page.getByRole("heading", { name: "How does it begin?" }).waitFor();
    await page.getByRole("button", { name: "Settings" }).click();
    await page.locator("input[type=file]").setInputFiles(path);
    await story.waitFor();
    expect(await story.innerText()).toBe(told);
    expect(problems).toEqual([]);
    await page.context().close();
  });

  it("keeps a schema and marks what came of it", async () => {
    const { page, problems } = await open(browser, server.url);
    await page.keyboard.press("Alt+Comma");
    await page.getByRole("radio", { name: "A JSON Schema" }).check();
    await page.getByLabel("Schema", { exact: true }).fill("{");
    await page.getByText("This is not JSON yet.").waitFor();
    const schema = {
      type: "object",
      properties: { n: { type: "integer", minimum: 1, maximum: 99 } },
      required: ["n"],
      additionalProperties: false,
    };
    await page.getByLabel("Schema", { exact: true }).fill(JSON.stringify(schema));
    await page.keyboard.press("Escape");
    await ask(page, "How many?");
    await page.getByText("Matches the schema").waitFor();
    expect(JSON.parse(await page.locator("article.turn.assistant code").innerText())).toHaveProperty("n");
    expect(problems).toEqual([]);
    await page.context().close();
  });

  it("does not send what an input method composes", async () => {
    const { page, problems } = await open(browser, server.url, { locale: "ja-JP" });
    expect(await page.locator("html").getAttribute("lang")).toBe("ja");
    await field(page).waitFor();
    await field(page).focus();
    const devtools = await page.context().newCDPSession(page);
    await devtools.send("Input.imeSetComposition", { text: "にほんご", selectionStart: 4, selectionEnd: 4 });
    await page.keyboard.press("Enter");
    await page.waitForTimeout(150);
    expect(await page.locator("article.turn").count()).toBe(0);
    await devtools.send("Input.insertText", { text: "日本語で話して" });
    expect(await field(page).inputValue()).toContain("日本語で話して");
    await page.keyboard.press("Shift+Enter");
    expect(await page.locator("article.turn").count()).toBe(0);
    await page.keyboard.press("Enter");
    await page.locator("article.turn.user").waitFor();
    expect(await page.locator("article.turn.user .said").innerText()).toContain("日本語で話して");
    await page.locator("article.turn.assistant footer").waitFor();
    expect(problems).toEqual([]);
    await page.screenshot({ path: `${PICTURES}/japanese.png` });
    await page.context().close();
  });

  it("executes nothing of what a model writes", async () => {
    const { page, problems } = await open(browser, server.url);
    const ok = "https://ok.example";
    const hostile = [
      "<script>window.hit = 1</script>",
      '<img src="/x" onerror="window.hit = 1">',
      '<iframe srcdoc="<script>parent.hit = 1</script>"></iframe>',
      '<svg onload="window.hit = 1"><style>body { display: none }</style></svg>',
      "[click](javascript:window.hit=1) [data](data:text/html,x) ![p](https://evil.example/p.png)",
      "<https://ok.example> [ok](https://ok.example)",
      '```html\n<script>window.hit = 1</script>\n```\n| a |\n|---|\n| <b onclick="window.hit=1">x</b> |',
      '<a href="javascript:window.hit=1" id="trap">trap</a> <form action="https://evil.example"><input></form>',
    ];
    await page.route("**/v1/chat/completions", (route) =>
      route.fulfill({ contentType: "text/event-stream", body: streamOf([...hostile.join("\n\n")]) }),
    );
    await ask(page, hostile.join("\n"));
    for (const part of ["<script>window.hit = 1</script>", "<iframe srcdoc=", "<form action="]) {
      expect(await turns(page).last().innerText()).toContain(part);
    }
    const inside = page.locator("article.turn");
    expect(
      await inside.locator("script, img, iframe, object, embed, style, form:not(.editor), [onclick], [onload]").count(),
    ).toBe(0);
    const links = await inside.locator("a").evaluateAll((all) => all.map((a) => a.getAttribute("href")));
    // An address is followed only if the reader does, wherever it stands.
    const [picture, ...others] = links;
    expect([picture, others]).toEqual(["https://evil.example/p.png", [ok, ok, "https://evil.example"]]);
    expect(await page.evaluate("window.hit")).toBeUndefined();
    expect(problems).toEqual([]);
    // The policy holds for the page itself as well.
    await page.evaluate(
      "{ const s = document.createElement('script'); try { s.textContent = 'window.hit = 2' } catch {} document.head.append(s) }",
    );
    expect(await page.evaluate("window.hit")).toBeUndefined();
    await page.context().close();
  });

  it("says what to do when something fails", async () => {
    const { page } = await open(browser, server.url);
    await field(page).waitFor();
    const refuse = (status: number, code: string, message: string) =>
      page.route(
        "**/v1/chat/completions",
        (route) => route.fulfill({ status, json: { error: { message, code, type: "x", param: null } } }),
        { times: 1 },
      );
    await refuse(429, "rate_limit_exceeded", "the server is busy");
    await ask(page, "Hello");
    await page.getByText("All places are taken.").waitFor();
    await page.route(
      "**/v1/chat/completions",
      (route) =>
        route.fulfill({
          contentType: "text/event-stream",
          body: 'data: {"choices":[{"delta":{"content":"half"}}]}\n\n',
        }),
      { times: 1 },
    );
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByText("The connection broke off.").waitFor();
    expect(await turns(page).last().innerText()).toContain("half");
    await page.route("**/v1/chat/completions", (route) => route.abort(), { times: 1 });
    await page.getByRole("button", { name: "Try again" }).last().click();
    await page.getByText("The server does not answer.").waitFor();
    await page.context().close();
  });

  it("asks for the key once and keeps it for the tab", async () => {
    const locked = await serve("--api-key", "a secret", "--template", "chatml");
    try {
      const { page } = await open(browser, locked.url);
      await page.getByLabel("API key").fill("wrong");
      await page.keyboard.press("Enter");
      await page.getByText("The server did not accept this key.").waitFor();
      expect(await accessibilityFindings(page)).toEqual([]);
      // Without the key there is nothing behind the question.
      for (let i = 0; i < 3; i += 1) await page.keyboard.press("Escape");
      await page.getByLabel("API key").fill("a secret");
      await page.getByRole("button", { name: "Connect" }).click();
      await page.getByRole("dialog").waitFor({ state: "detached" });
      expect(await ask(page, "Hello")).not.toBe("");
      await page.reload();
      await page.getByText("tiny-stories-ttt").first().waitFor();
      expect(await page.getByRole("dialog").count()).toBe(0);
      const other = await page.context().newPage();
      await other.goto(locked.url);
      await other.getByLabel("API key").waitFor();
      expect(await page.evaluate("JSON.stringify(localStorage)")).not.toContain("a secret");
      await page.context().close();
    } finally {
      await locked.stop();
    }
  });

  it("is not there with --no-page, and the API is", async () => {
    const plain = await serve("--no-page");
    try {
      const status = async (path: string) => (await fetch(plain.url + path)).status;
      expect(await Promise.all(["assets/app.js", "v1/models", "bitnet/info"].map(status))).toEqual([404, 200, 200]);
      // Clients of Ollama's interface ask here whether there is a server.
      expect(await (await fetch(plain.url)).text()).toBe("bitnet is running");
    } finally {
      await plain.stop();
    }
  });

  it("tells a story where the model cannot chat", async () => {
    const plain = await serve();
    try {
      const { page, problems } = await open(browser, plain.url);
      await page.getByRole("heading", { name: "How does it begin?" }).waitFor();
      expect(problems).toEqual([]);
      await page.context().close();
    } finally {
      await plain.stop();
    }
  });
});

describe("for everyone", () => {
  const looks = [
    { name: "light-en", colorScheme: "light", locale: "en-GB" },
    { name: "dark-ja", colorScheme: "dark", locale: "ja-JP" },
  ] as const;
  it.each(looks)("axe-core has no serious finding: $name", async ({ name, colorScheme, locale }) => {
    const { page } = await open(browser, server.url, { colorScheme, locale });
    await field(page).waitFor();
    await page.locator(".examples").waitFor();
    expect(await accessibilityFindings(page)).toEqual([]);
    await page.screenshot({ path: `${PICTURES}/welcome-${name}.png` });
    await page.route("**/v1/chat/completions", (route) => {
      const text = "# T\n\n**a** `b` [c](https://a.example)\n\n- x\n\n```js\nlet a;\n```\n\n| a |\n|---|\n| 1 |";
      return route.fulfill({ contentType: "text/event-stream", body: streamOf([text]) });
    });
    await ask(page, "Hello");
    expect(await accessibilityFindings(page)).toEqual([]);
    await page.keyboard.press("Alt+Comma");
    await page.getByRole("dialog").waitFor();
    expect(await accessibilityFindings(page)).toEqual([]);
    await page.screenshot({ path: `${PICTURES}/settings-${name}.png` });
    await page.keyboard.press("Escape");
    // A story with tools within its text, and the sheets of a narrow window.
    await page.setViewportSize({ width: 400, height: 800 });
    await page.locator(".bar .menu").click();
    expect(await accessibilityFindings(page)).toEqual([]);
    await page
      .getByRole("dialog")
      .getByRole("button", { name: /New story|新しい物語/ })
      .click();
    await page.route("**/v1/completions", (route) =>
      route.fulfill({ contentType: "text/event-stream", body: streamOf([" there was a cat."]) }),
    );
    await field(page).fill("Once upon a time");
    await page.keyboard.press("Enter");
    await page.locator(".manuscript footer").waitFor();
    expect(await accessibilityFindings(page)).toEqual([]);
    await page.locator(".strip").click();
    await page.getByRole("dialog").waitFor();
    expect(await accessibilityFindings(page)).toEqual([]);
    await page.context().close();
  });

  it.each([360, 768, 1280, 3840])("nothing is cut off at %d pixels", async (width) => {
    const { page, problems } = await open(browser, server.url, {
      viewport: { width, height: Math.round(width * 0.6) + 300 },
    });
    await page.route("**/v1/chat/completions", (route) => {
      const text = `${"A long line of words. ".repeat(20)}\n\n${"x".repeat(300)}\n\n\`\`\`\n${"y".repeat(300)}\n\`\`\`\n\n| ${"wide | ".repeat(30)}\n|${"---|".repeat(30)}`;
      return route.fulfill({ contentType: "text/event-stream", body: streamOf([text]) });
    });
    await ask(page, "z".repeat(300));
    const [scroll, client] = (await page.evaluate(
      "[document.documentElement.scrollWidth, document.documentElement.clientWidth]",
    )) as [number, number];
    expect(scroll).toBeLessThanOrEqual(client);
    const over = await page.evaluate(
      "[...document.querySelectorAll('main *')].filter((e) => !e.closest('pre, .table, .hidden') && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))",
    );
    expect(over).toEqual([]);
    expect(problems).toEqual([]);
    await page.screenshot({ path: `${PICTURES}/width-${width}.png` });
    await page.context().close();
  });

  it("everything can be done with the keyboard", async () => {
    const { page } = await open(browser, server.url);
    await field(page).waitFor();
    const names: string[] = [];
    await page.evaluate("document.activeElement?.blur()");
    for (let i = 0; i < 16; i += 1) {
      await page.keyboard.press("Tab");
      names.push(
        (await page.evaluate(
          "(document.activeElement?.getAttribute('aria-label') || document.activeElement?.textContent || document.activeElement?.id || '').trim()",
        )) as string,
      );
    }
    const order = [
      "Skip to the text",
      "日本語",
      "Settings",
      "New chat",
      "New story",
      "Why is the sky blue?",
      "message",
    ];
    const places = order.map((name) => names.indexOf(name));
    expect(
      places.every((p) => p >= 0),
      names.join(" | "),
    ).toBe(true);
    expect(places).toEqual([...places].sort((a, b) => a - b));
    await page.context().close();
  });
});
