// All of the playground by clicking, in Chromium: on `rwkv serve`, and as files on a plain web server; isolated and not; with a phone's
// screen and a large one; without a network after its first visit.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Browser, Page } from "playwright";
import { load } from "rwkv";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { chromiumPath, isolationHeaders } from "../chromium.js";
import { serveFiles } from "../file-server.js";
import { temporaryFolder } from "../fixture-files.js";
import { largeCheckpoint } from "../large-checkpoint.js";
import {
  goTo,
  isTooWide,
  launch,
  type OpenedPage,
  openPlayground,
  seriousFaults,
  staticFiles,
  untilWritten,
} from "../playground-pages.js";
import { type Served, served } from "../served.js";

const embedded = (name: string) => fileURLToPath(new URL(`../../embedded/${name}`, import.meta.url));
const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));
const views = ["start", "chat", "complete", "inside", "train", "bench"] as const;

describe.skipIf(!chromiumPath)("the playground", () => {
  let browser: Browser;
  let tales: Served;
  beforeAll(async () => {
    browser = await launch();
    tales = await served({ name: "rwkv-tales" });
  });
  afterAll(async () => {
    await browser?.close();
    await tales?.close();
  });

  async function opened(url = tales.url, options: Parameters<typeof openPlayground>[2] = {}): Promise<OpenedPage> {
    const page = await openPlayground(browser, url, options);
    onTestFinished(() => page.page.context().close());
    return page;
  }

  async function say(page: Page, text: string): Promise<void> {
    await page.fill(".composer textarea", text);
    await page.click(".composer [type=submit]");
    await page.waitForSelector(".composer [type=submit]");
    await untilWritten(page);
  }
  const messages = (page: Page) => page.locator(".message");
  const lastAnswer = (page: Page) => page.locator(".message.assistant").last();

  test("a conversation: asked, answered again, changed, continued, stopped, forked, kept", async () => {
    const { page, complaints } = await opened();
    await goTo(page, "chat");
    expect(await page.textContent(".notice")).toContain("tells tales");
    await say(page, "Who lives in the wood?");
    expect(await messages(page).count()).toBe(2);
    const first = await lastAnswer(page).locator(".text").textContent();
    expect(first!.length).toBeGreaterThan(5);
    await say(page, "And then?");
    // The state of all that was said before was kept.
    expect(await lastAnswer(page).locator(".figures").textContent()).toMatch(/read \d+ of \d+ tokens/);
    await lastAnswer(page).locator("button:has-text('Again')").click();
    await page.waitForSelector(".message.assistant:last-child .versions");
    await untilWritten(page);
    expect(await lastAnswer(page).locator(".versions").textContent()).toContain("2/2");
    await lastAnswer(page).locator("[aria-label='Previous version']").click();
    expect(await lastAnswer(page).locator(".versions").textContent()).toContain("1/2");
    const before = await lastAnswer(page).locator(".text").textContent();
    await lastAnswer(page).locator("button:has-text('Continue')").click();
    await untilWritten(page);
    await page.waitForSelector(".message.assistant:last-child .actions");
    expect((await lastAnswer(page).locator(".text").textContent())!.startsWith(before!)).toBe(true);
    await messages(page).nth(2).locator("button:has-text('Change')").click();
    await page.fill(".editor textarea", "Was it a fox?");
    await page.click(".editor [type=submit]");
    await page.waitForSelector(".composer [type=submit]");
    await untilWritten(page);
    expect(await messages(page).nth(2).textContent()).toContain("Was it a fox?");
    expect(await messages(page).nth(2).locator(".versions").textContent()).toContain("2/2");
    // A fork is another conversation that ends at the message.
    await messages(page).nth(1).locator("button:has-text('Fork here')").click();
    await expect.poll(() => messages(page).count()).toBe(2);
    expect(await messages(page).nth(1).locator(".text").textContent()).toBe(first);
    await say(page, "Tell me more of that.");
    expect(await messages(page).count()).toBe(4);
    // Both are kept, also when the page is opened anew.
    await page.waitForTimeout(800);
    await page.reload();
    await page.waitForSelector(".dot.local");
    await page.click("button:has-text('Conversations')");
    expect(await page.locator(".conversations li").count()).toBe(2);
    const downloading = page.waitForEvent("download");
    await page.click("button:has-text('Save all to a file')");
    const path = join(await temporaryFolder(), "all.json");
    await (await downloading).saveAs(path);
    expect(JSON.parse(await readFile(path, "utf8")).conversations).toHaveLength(2);
    await page.locator("dialog[open] input[type=file]").setInputFiles(path);
    await expect.poll(() => messages(page).count()).toBe(4);
    await page.click("button:has-text('Conversations')");
    expect(await page.locator(".conversations li").count()).toBe(4);
    await page.locator(".conversations li [aria-label^='Delete']").first().click();
    expect(await page.locator(".conversations li").count()).toBe(3);
    expect(complaints).toEqual([]);
  });

  test("an answer that is stopped stays as it is", async () => {
    const { page, complaints } = await opened();
    await goTo(page, "chat");
    await page.click("button:has-text('Settings')");
    await page.selectOption("dialog[open] label:has-text('Preset') select", "creative");
    await page.fill("dialog[open] textarea", "You are a king.");
    await page.keyboard.press("Escape");
    // An answer may be over sooner than a test can click, so the page itself clicks as soon as there is something to stop.
    await page.evaluate(() => {
      new MutationObserver(() => {
        const buttons = [...document.querySelectorAll<HTMLButtonElement>(".composer button")];
        buttons.find(({ textContent }) => textContent?.includes("Stop"))?.click();
      }).observe(document.body, { childList: true, subtree: true });
    });
    for (let attempt = 0; attempt < 10; attempt++) {
      await page.fill(".composer textarea", `Tell me all of it, ${attempt}.`);
      await page.click(".composer [type=submit]");
      await page.waitForSelector(".composer [type=submit]");
      if ((await lastAnswer(page).textContent())!.includes("stopped")) break;
    }
    expect(await lastAnswer(page).textContent()).toContain("stopped");
    expect(complaints).toEqual([]);
  });

  test("what models write is shown, never run", async () => {
    const { page, complaints } = await opened();
    await goTo(page, "chat");
    const text = [
      "# Heading\n\n**bold** `code` ~~gone~~ [page](https://example.org) [bad](javascript:alert(1)) [data](data:text/html,x)",
      "<script>globalThis.hurt = 1</script><img src=x onerror='globalThis.hurt = 1'><iframe src='https://example.org'></iframe>",
      "![picture](https://example.org/x.png)\n\n<div onclick='x'>\n\n| a | b |\n|---|---|\n| 1 | <svg onload=x> |",
      "```js\nalert(1)\n```\n\n- [x] done\n- <b>not</b>\n\n1. one\n2. two\n\n> said\n\n<style>*{display:none}</style>",
      `${"[".repeat(2000)}${"*".repeat(500)}${"> ".repeat(200)}x`,
    ].join("\n\n");
    const file = {
      conversations: [
        {
          id: "x",
          title: "<img src=x onerror=alert(1)>",
          leaf: "b",
          messages: {
            a: { role: "user", text },
            b: { role: "assistant", parent: "a", text },
          },
        },
      ],
    };
    await page.click("button:has-text('Conversations')");
    await page.locator("dialog[open] input[type=file]").setInputFiles({
      name: "hostile.json",
      mimeType: "application/json",
      buffer: Buffer.from(JSON.stringify(file)),
    });
    await page.waitForSelector(".markdown h3");
    const found = await page.evaluate(() => {
      const all = [...document.querySelectorAll(".messages *")];
      return {
        forbidden: all.filter((element) => /^(script|img|iframe|style|object|embed|form|svg)$/i.test(element.tagName))
          .length,
        handlers: all.flatMap((element) => element.getAttributeNames()).filter((name) => name.startsWith("on")),
        links: all.flatMap((element) => element.getAttribute("href") ?? []),
        code: document.querySelector(".code pre")?.textContent,
        cells: document.querySelectorAll(".markdown td").length,
      };
    });
    expect(found).toEqual({
      forbidden: 0,
      handlers: [],
      links: ["https://example.org", "https://example.org/x.png"],
      code: "alert(1)",
      cells: 2,
    });
    expect(await page.evaluate(() => "hurt" in globalThis)).toBe(false);
    expect(complaints).toEqual([]);
    await page.click("button:has-text('Conversations')");
    for (const wrong of [
      "{",
      "[]",
      '{"conversations":[{"id":1}]}',
      '{"conversations":[{"id":"a","title":"b","messages":{"c":{"role":"x"}}}]}',
    ]) {
      await page.locator("dialog[open] input[type=file]").setInputFiles({
        name: "wrong.json",
        mimeType: "application/json",
        buffer: Buffer.from(wrong),
      });
      await page.waitForSelector("dialog[open] [role=alert]:has-text('expected')");
    }
  });

  test("code is copied by a click", async () => {
    const { page } = await opened(tales.url, { permissions: ["clipboard-read", "clipboard-write"] });
    await goTo(page, "chat");
    const messagesOf = {
      a: { role: "user", text: "code" },
      b: { role: "assistant", parent: "a", text: "```\n1 + 1\n```" },
    };
    const file = { conversations: [{ id: "x", title: "t", leaf: "b", messages: messagesOf }] };
    await page.click("button:has-text('Conversations')");
    const upload = { name: "x.json", mimeType: "application/json", buffer: Buffer.from(JSON.stringify(file)) };
    await page.locator("dialog[open] input[type=file]").setInputFiles(upload);
    await page.click(".code button");
    await page.waitForSelector(".code button:has-text('Copied')");
    expect(await page.evaluate(() => navigator.clipboard.readText())).toBe("1 + 1");
  });

  test("a text forks at a token, by the mouse and by the keyboard", async () => {
    const { page, complaints } = await opened();
    await goTo(page, "complete");
    await page.fill("main textarea", "Once upon a time there was a king who");
    await page.click("button[type=submit]");
    await page.waitForSelector("[data-at='30']");
    await page.click("form button:has-text('Stop')");
    await untilWritten(page);
    const tokens = () => page.locator("[data-at]").allTextContents();
    const before = await tokens();
    await page.locator("[data-at='5']").hover();
    const alternatives = page.locator(".alternatives li");
    expect(await alternatives.count()).toBe(8);
    expect(await page.textContent(".alternatives .note")).toMatch(/probability \d/);
    await page.locator("[data-at='5']").click();
    const other = page.locator(".alternatives button:not(.is-chosen)").first();
    const chosen = (await other.locator("code").textContent())!.replaceAll("␣", " ").replaceAll("↵", "\n");
    await other.click();
    await page.waitForSelector("[data-at='12']");
    await page.click("form button:has-text('Stop')", { timeout: 1500 }).catch(() => {});
    await untilWritten(page);
    const after = await tokens();
    expect(after.slice(0, 5)).toEqual(before.slice(0, 5));
    expect(after[5]).toBe(chosen);
    await page.click("[aria-label='Previous text']");
    expect((await tokens()).slice(0, before.length)).toEqual(before);
    await page.locator("[data-at='0']").focus();
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    expect(await page.evaluate(() => document.activeElement?.getAttribute("data-at"))).toBe("2");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.activeElement?.closest(".alternatives"));
    await page.keyboard.press("Escape");
    expect(await page.evaluate(() => document.activeElement?.getAttribute("data-at"))).toBe("2");
    expect(complaints).toEqual([]);
  });

  test("models from files: chosen and dropped, with a tokenizer, and what is wrong with others", async () => {
    const { page, complaints } = await opened();
    await page.click("[data-testid=model]");
    const files = page.locator("[data-testid=files]");
    await files.setInputFiles([embedded("model.safetensors"), embedded("tokenizer.json")]);
    await page.waitForSelector("[data-testid=fitting]");
    const fitting = await page.textContent("[data-testid=fitting]");
    expect(fitting).toMatch(
      /model\.safetensors.*safetensors.*2\.7 M.*tokenizer\.json.*as stored: 5\.\d MB, fits.*q4: 1\.\d MB/s,
    );
    await page.click("[data-testid=fitting] input[value=q8]");
    await page.click("[data-testid=fitting] [type=submit]");
    await page.waitForSelector("[data-testid=model]:has-text('model.safetensors')");
    await expect.poll(() => page.textContent("[data-testid=facts]")).toContain("q8");
    await page.waitForFunction(() => document.querySelector("[data-testid=tale]")!.textContent!.length > 60);
    // A file dropped onto the page.
    const bytes = [...(await readFile(fixture("odd.pth")))];
    await page.evaluate((content) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(content)], "odd.pth"));
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
    }, bytes);
    await page.waitForSelector("[data-testid=fitting]:has-text('odd.pth')");
    await page.click("[data-testid=fitting] [type=submit]");
    await page.waitForSelector("[role=alert]:has-text('no tokenizer')");
    await page.click("[data-testid=model]");
    await files.setInputFiles({ name: "broken.pth", mimeType: "", buffer: Buffer.from("PK\x03\x04 and nothing else") });
    await page.waitForSelector("dialog [role=alert]:has-text('broken.pth: zip archive without its end record')");
    await files.setInputFiles(embedded("tokenizer.json"));
    await page.waitForSelector("dialog [role=alert]:has-text('No model among these files')");
    await page.click("dialog section:has-text('The model in this page') button");
    await page.waitForSelector("[data-testid=model]:has-text('rwkv-tales')");
    expect(complaints).toEqual([]);
  });

  test("models by address: loaded, cancelled, not there", async () => {
    const cors = { "access-control-allow-origin": "*", "access-control-expose-headers": "content-range" };
    const bytes = await largeCheckpoint();
    let isSilent = false;
    const elsewhere = await serveFiles({
      "/m/model.safetensors": { bytes: await readFile(embedded("model.safetensors")), headers: cors },
      "/m/tokenizer.json": { bytes: await readFile(embedded("tokenizer.json")), headers: cors },
      // Once its header was read, it is as if the line were cut.
      "/slow/large.pth": { bytes, headers: cors, answer: () => isSilent },
    });
    const { page } = await opened(tales.url, { expected: [new URL(elsewhere.url).origin] });
    const look = async (url: string) => {
      await page.click("[data-testid=model]");
      await page.fill("dialog input[inputmode=url] >> nth=0", url);
      await page.click("dialog button:has-text('Look at it')");
    };
    await look(`${elsewhere.url}m/model.safetensors`);
    await page.click("[data-testid=fitting] [type=submit]");
    await page.waitForSelector("[data-testid=model]:has-text('model.safetensors')");
    await look(`${elsewhere.url}none.pth`);
    await page.waitForSelector("dialog [role=alert]:has-text('none.pth')");
    await page.keyboard.press("Escape");
    await look(`${elsewhere.url}slow/large.pth`);
    await page.waitForSelector("[data-testid=fitting]:has-text('large.pth')");
    isSilent = true;
    await page.click("[data-testid=fitting] [type=submit]");
    await page.click(".loading button:has-text('Cancel')", { timeout: 20_000 });
    await page.waitForSelector("[data-testid=model]:has-text('rwkv-tales')");
  });

  test("a server elsewhere writes, with its key", async () => {
    const other = await served({ name: "other-model", apiKeys: ["secret"], corsOrigins: ["*"] }, { key: "secret" });
    onTestFinished(() => other.close());
    const files = await serveFiles(staticFiles());
    const { page } = await opened(`${files.url}demo/`, { expected: [other.url] });
    const connect = async (key: string) => {
      await page.fill("dialog section:last-of-type input[inputmode=url]", other.url);
      await page.fill("dialog input[type=password]", key);
      await page.click("dialog button:has-text('Connect')");
    };
    await page.click("[data-testid=model]");
    await connect("wrong");
    await page.waitForSelector("dialog [role=alert]:has-text('status 401')");
    await connect("secret");
    await page.waitForSelector("[data-testid=model]:has-text('other-model')");
    await goTo(page, "chat");
    await say(page, "Hello");
    expect((await lastAnswer(page).locator(".text").textContent())!.length).toBeGreaterThan(0);
    await goTo(page, "complete");
    await page.click("button[type=submit]");
    await page.waitForSelector("[data-at='12']");
    await page.click("form button:has-text('Stop')", { timeout: 1500 }).catch(() => {});
    await untilWritten(page);
    await page.click("[data-at='4']");
    expect(await page.locator(".alternatives li").count()).toBeGreaterThan(4);
    await goTo(page, "inside");
    expect(await page.textContent(".notice")).toContain("in this page");
  });

  test("the page of a server with a model of its own writes with it", async () => {
    const own = await served({ name: "my-model" });
    onTestFinished(() => own.close());
    const { page, complaints } = await opened(own.url);
    expect(await page.textContent("[data-testid=model]")).toContain("my-model");
    await page.waitForFunction(() => document.querySelector("[data-testid=tale]")!.textContent!.length > 60);
    expect(complaints).toEqual([]);
  });

  test("inside: maps of each layer, anew as one types", async () => {
    const { page, complaints } = await opened();
    await goTo(page, "inside");
    await page.waitForSelector("[data-testid=explanation]");
    expect(await page.locator(".token-map").count()).toBe(4);
    await page.fill("main textarea", "The fox and the crow");
    await page.waitForSelector("[data-testid=explanation] th:has-text('crow')");
    await page.fill("main textarea", "the ".repeat(80));
    await page.waitForSelector("[role=alert]:has-text('At most 64 tokens')");
    expect(complaints).toEqual([]);
  });

  test("a model is trained, writes, and is a file that Node loads", async () => {
    const { page, complaints } = await opened();
    await goTo(page, "train");
    await page.fill(
      "main textarea",
      "The cat sat on the mat, and so did the dog. Then the cat went home. ".repeat(120),
    );
    await page.selectOption("main select >> nth=0", "10");
    await page.click("main [type=submit]");
    await page.waitForSelector("[data-testid=curve] .line");
    await page.waitForSelector("[data-testid=trained]", { timeout: 60_000 });
    await page.click("[data-testid=trained] .primary");
    await page.waitForSelector("[data-testid=written]");
    await untilWritten(page);
    expect(await page.textContent("[data-testid=written]")).toMatch(/cat|dog|mat/);
    const folder = await temporaryFolder();
    for (const name of ["model.pth", "tokenizer.json"]) {
      const downloading = page.waitForEvent("download");
      await page.click(`button:has-text('Download ${name}')`);
      await (await downloading).saveAs(join(folder, name));
    }
    const model = await load(join(folder, "model.pth"));
    expect(await model.generate("The cat", { maxTokens: 20, temperature: 0 }).text()).toMatch(/sat|mat|went|dog/);
    await model.dispose();
    expect(complaints).toEqual([]);
  });

  test("bench: measures, and gives its figures as text", async () => {
    const { page } = await opened(tales.url, { permissions: ["clipboard-read", "clipboard-write"] });
    await goTo(page, "bench");
    await page.click("main .primary");
    await page.waitForSelector("[data-testid=bench]", { timeout: 60_000 });
    await page.click("button:has-text('Copy as text')");
    await page.waitForSelector("button:has-text('Copied')");
    const text = await page.evaluate(() => navigator.clipboard.readText());
    expect(text).toMatch(/decode: [\d.]+ tokens\/s; ms a token: [\d.]+ median, [\d.]+ p90, [\d.]+ p99/);
    expect(text).toMatch(/prompt of 512 tokens: [\d.]+ tokens\/s/);
  });

  describe.each([390, 1280])("on a screen %i wide", (width) => {
    test.each(["light", "dark"] as const)(
      "axe finds nothing serious, and nothing is too wide: %s",
      async (colorScheme) => {
        const { page, complaints } = await opened(tales.url, { viewport: { width, height: 844 }, colorScheme });
        for (const language of ["en", "zh"]) {
          await page.selectOption(".choices select >> nth=0", language);
          for (const view of views) {
            await goTo(page, view);
            if (view === "complete") {
              await page.click("button[type=submit]");
              await page.waitForSelector("[data-at='8']");
              await page.click("[data-at='3']");
            }
            if (view === "chat" && language === "en") await say(page, "Hello");
            if (view === "inside") await page.waitForSelector("[data-testid=explanation]");
            expect([view, language, await seriousFaults(page)]).toEqual([view, language, []]);
            expect([view, language, await isTooWide(page)]).toEqual([view, language, false]);
          }
          await page.click("[data-testid=model]");
          expect(["dialog", language, await seriousFaults(page)]).toEqual(["dialog", language, []]);
          await page.keyboard.press("Escape");
        }
        expect(complaints).toEqual([]);
      },
    );
  });

  test("files on a plain server: on one thread at first, with threads from the second visit, and offline", async () => {
    const files = await serveFiles(staticFiles());
    const { page, complaints } = await opened(`${files.url}demo/`);
    const tale = () =>
      page.waitForFunction(() => document.querySelector("[data-testid=tale]")!.textContent!.length > 60);
    await tale();
    expect(await page.evaluate(() => globalThis.crossOriginIsolated)).toBe(false);
    expect(await page.textContent("[data-testid=facts]")).toContain("wasmThreads1");
    await page.evaluate(async () => void (await navigator.serviceWorker.ready));
    await page.context().setOffline(true);
    await page.reload();
    await page.waitForSelector(".dot.local");
    await tale();
    // The service worker adds the headers that threads need.
    expect(await page.evaluate(() => globalThis.crossOriginIsolated)).toBe(true);
    await goTo(page, "inside");
    await page.waitForSelector("[data-testid=explanation]");
    expect(complaints.filter((line) => !/ERR_INTERNET_DISCONNECTED/.test(line))).toEqual([]);
  });

  test("files on a server that isolates them", async () => {
    const files = await serveFiles(staticFiles(isolationHeaders));
    const { page, complaints } = await opened(`${files.url}demo/`);
    expect(await page.evaluate(() => globalThis.crossOriginIsolated)).toBe(true);
    expect(await page.textContent("[data-testid=facts]")).toMatch(/wasmThreads[2-9]/);
    expect(complaints).toEqual([]);
  });

  test("by the keyboard alone: to the content, through the views, a message sent", async () => {
    const { page } = await opened();
    await page.keyboard.press("Tab");
    expect(await page.evaluate(() => document.activeElement?.className)).toBe("skip");
    await page.keyboard.press("Enter");
    await expect.poll(() => page.evaluate(() => document.activeElement?.id)).toBe("main");
    await page.focus('nav a[href="#chat"]');
    await page.keyboard.press("Enter");
    await expect.poll(() => page.evaluate(() => document.activeElement?.id)).toBe("main");
    await page.focus(".composer textarea");
    await page.keyboard.type("Hello");
    await page.keyboard.press("Enter");
    await page.waitForSelector(".message.assistant");
    await untilWritten(page);
    // What reads the screen is told of the answer twice, not of its tokens.
    expect(await page.locator(".messages [role=status], .messages [aria-live]").allTextContents()).toEqual(
      (await page.locator(".messages button [role=status]").allTextContents()).map((text) => text),
    );
  });
});
