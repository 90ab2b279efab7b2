// The playground's conversations by clicking, in Chromium: in the page, and with servers that write.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Page } from "playwright";
import { describe, expect, onTestFinished, test } from "vitest";
import { chromiumPath } from "../chromium.js";
import { serveFiles } from "../file-server.js";
import { temporaryFolder } from "../fixture-files.js";
import { answering, goTo, say, sharedPlayground, staticFiles, untilWritten } from "../playground-pages.js";
import { served } from "../served.js";

/** How many messages each conversation has that the browser's database holds. */
const keptMessages = (page: Page): Promise<number[]> =>
  page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open("rwkv-playground");
        opening.onerror = () => reject(opening.error);
        opening.onsuccess = () => {
          const all = opening.result.transaction("conversations").objectStore("conversations").getAll();
          all.onerror = () => reject(all.error);
          all.onsuccess = () => {
            opening.result.close();
            resolve(all.result.map(({ messages }) => Object.keys(messages).length));
          };
        };
      }),
  );

describe.skipIf(!chromiumPath)("the playground's conversations", () => {
  const shared = sharedPlayground();
  const { opened } = shared;
  const messages = (page: Page) => page.locator(".message");
  const lastAnswer = (page: Page) => page.locator(".message.assistant").last();

  test("a conversation: asked, answered again, changed, continued, stopped, forked, kept", async () => {
    const { page, complaints } = await opened();
    await goTo(page, "chat");
    expect(await page.textContent(".notice")).toContain("tells tales");
    await say(page, "Who lives in the wood?");
    expect(await messages(page).count()).toBe(2);
    const first = await lastAnswer(page).locator(".text").textContent();
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
    // The model ends some answers before they have begun, but not all.
    expect((await page.locator(".message.assistant .text").allTextContents()).join("").length).toBeGreaterThan(5);
    // A fork is another conversation that ends at the message.
    await messages(page).nth(1).locator("button:has-text('Fork here')").click();
    await expect.poll(() => messages(page).count()).toBe(2);
    expect(await messages(page).nth(1).locator(".text").textContent()).toBe(first);
    await say(page, "Tell me more of that.");
    expect(await messages(page).count()).toBe(4);
    // Both are kept, also when the page is opened anew.
    await expect.poll(() => keptMessages(page)).toContain(4);
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
    const deleting = page.locator(".conversations li [aria-label^='Delete']").first();
    await answering(page, false, () => deleting.click());
    expect(await page.locator(".conversations li").count()).toBe(4);
    expect(await answering(page, true, () => deleting.click())).toMatch(/^Delete the conversation ".+"\?$/);
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

  test("a thought is folded, code is copied by a click, and a conversation is saved as a text", async () => {
    const { page } = await opened(shared.url, { permissions: ["clipboard-read", "clipboard-write"] });
    await goTo(page, "chat");
    const messagesOf = {
      a: { role: "user", text: "code" },
      b: { role: "assistant", parent: "a", thought: "A sum, then.", text: "```\n1 + 1\n```" },
    };
    const file = { conversations: [{ id: "x", title: "Sums", leaf: "b", messages: messagesOf }] };
    await page.click("button:has-text('Conversations')");
    const upload = { name: "x.json", mimeType: "application/json", buffer: Buffer.from(JSON.stringify(file)) };
    await page.locator("dialog[open] input[type=file]").setInputFiles(upload);
    const thought = page.locator(".thought p");
    expect(await thought.isVisible()).toBe(false);
    await page.click(".thought summary");
    expect(await thought.textContent()).toBe("A sum, then.");
    await page.click(".code button");
    await page.waitForSelector(".code button:has-text('Copied')");
    expect(await page.evaluate(() => navigator.clipboard.readText())).toBe("1 + 1");
    await page.click("button:has-text('Conversations')");
    const downloading = page.waitForEvent("download");
    await page.click("button:has-text('As Markdown')");
    const download = await downloading;
    const path = join(await temporaryFolder(), "saved.md");
    await download.saveAs(path);
    expect(download.suggestedFilename()).toMatch(/\.md$/);
    expect(await readFile(path, "utf8")).toMatch(/```\n1 \+ 1\n```/);
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
    // Servers do not ask again where the model ends an answer before it has begun, as this one does in one of six.
    const answer = () => lastAnswer(page).locator(".text").textContent();
    for (let attempt = 0; attempt < 20 && (await answer()) === ""; attempt++) {
      await lastAnswer(page).locator("button:has-text('Again')").click();
      await lastAnswer(page)
        .locator(`.versions:has-text("${attempt + 2}/${attempt + 2}")`)
        .waitFor();
      await untilWritten(page);
    }
    expect((await answer())!.length).toBeGreaterThan(0);
    await goTo(page, "complete");
    await page.click("button[type=submit]");
    await page.waitForSelector("[data-at='12']");
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
