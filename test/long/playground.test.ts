// The playground's views by clicking, in Chromium: on `rwkv serve`, and as files on a plain web server; isolated and not; with a phone's screen
// and a large one; without a network after its first visit. Its conversations and models have tests of their own beside this one.

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { load } from "rwkv";
import { describe, expect, test } from "vitest";
import { chromiumPath, isolationHeaders } from "../chromium.js";
import { serveFiles } from "../file-server.js";
import { temporaryFolder } from "../fixture-files.js";
import {
  chooseModel,
  goTo,
  isTooWide,
  say,
  seriousFaults,
  sharedPlayground,
  staticFiles,
  untilLoaded,
  untilWritten,
} from "../playground-pages.js";

const embedded = (name: string) => fileURLToPath(new URL(`../../embedded/${name}`, import.meta.url));
const views = ["start", "chat", "complete", "inside", "train", "bench"] as const;

describe.skipIf(!chromiumPath)("the playground", () => {
  const shared = sharedPlayground();
  const { opened } = shared;

  test("a text forks at a token, by the mouse and by the keyboard", async () => {
    const { page, complaints } = await opened();
    await goTo(page, "complete");
    await page.fill("main textarea", "Once upon a time there was a king who");
    await page.click("button[type=submit]");
    await page.waitForSelector("[data-at='12']");
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
    await page.waitForSelector("[data-at='6']");
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
    await page.waitForSelector("[data-testid=trained]");
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
    const { page } = await opened(shared.url, { permissions: ["clipboard-read", "clipboard-write"] });
    await goTo(page, "bench");
    await page.click("main .primary");
    await page.waitForSelector("[data-testid=bench]");
    await page.click("button:has-text('Copy as text')");
    await page.waitForSelector("button:has-text('Copied')");
    const text = await page.evaluate(() => navigator.clipboard.readText());
    expect(text).toMatch(/decode: [\d.]+ tokens\/s; ms a token: [\d.]+ median, [\d.]+ p90, [\d.]+ p99/);
    expect(text).toMatch(/prompt of 512 tokens: [\d.]+ tokens\/s/);
  });

  test("axe finds nothing serious, and nothing is too wide, in two sizes, colours and languages", async () => {
    const { page, complaints } = await opened();
    // Each pair of a size, colours and a language is looked at by axe.
    const looks = [
      { width: 390, colorScheme: "light", language: "en" },
      { width: 390, colorScheme: "dark", language: "zh" },
      { width: 1280, colorScheme: "light", language: "zh" },
      { width: 1280, colorScheme: "dark", language: "en" },
    ] as const;
    const checkLooks = async (what: string) => {
      for (const look of looks) {
        const { width, colorScheme, language } = look;
        await page.setViewportSize({ width, height: 844 });
        await page.emulateMedia({ colorScheme });
        await page.evaluate((wanted) => {
          const select = document.querySelector<HTMLSelectElement>(".choices select")!;
          select.value = wanted;
          select.dispatchEvent(new Event("change", { bubbles: true }));
        }, language);
        await page.waitForSelector(`html[lang^=${language}]`, { state: "attached" });
        expect([what, look, await seriousFaults(page)]).toEqual([what, look, []]);
        expect([what, look, await isTooWide(page)]).toEqual([what, look, false]);
      }
    };
    for (const view of views) {
      await goTo(page, view);
      if (view === "start") await untilWritten(page);
      if (view === "chat") await say(page, "Hello");
      if (view === "complete") {
        await page.click("button[type=submit]");
        await page.waitForSelector("[data-at='8']");
        await untilWritten(page);
        await page.click("[data-at='3']");
      }
      if (view === "inside") await page.waitForSelector("[data-testid=explanation]");
      await checkLooks(view);
    }
    await chooseModel(page);
    // With a model that is kept, one whose header is looked at, and one that could not be fetched.
    await page
      .locator("[data-testid=files]")
      .setInputFiles([embedded("model.safetensors"), embedded("tokenizer.json")]);
    await page.click("[data-testid=fitting] [type=submit]");
    await untilLoaded(page, "model.safetensors");
    await chooseModel(page);
    await page.click("[data-testid=kept] li button >> nth=0");
    await page.waitForSelector("[data-testid=fitting]");
    await page.selectOption("[data-testid=hub] select", "rwkv7-g1-13.3b");
    await page.click("[data-testid=hub] summary");
    await checkLooks("dialog");
    expect(complaints).toEqual([]);
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
});
