// The playground as `rwkv serve` has it: its files, how they are served, and that it opens, writes and breaks no rule of its own policy.
// test/long/playground.test.ts clicks through all of it.

import { request } from "node:http";
import { gzipSync } from "node:zlib";
import type { Browser } from "playwright";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { chromiumPath } from "./chromium.js";
import { builtFiles, goTo, launch, openPlayground, seriousFaults, untilWritten } from "./playground-pages.js";
import { type Served, served } from "./served.js";

let tales: Served;
beforeAll(async () => {
  tales = await served({ name: "rwkv-tales", apiKeys: ["secret"] });
});
afterAll(() => tales.close());

const script = builtFiles.find(({ name }) => /^assets\/index-.*\.js$/.test(name))!.name;

describe("files", () => {
  test("the page needs no key, and may run its own scripts alone", async () => {
    const response = await fetch(tales.url);
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("text/html; charset=utf-8");
    expect(response.headers.get("cache-control")).toBe("no-cache");
    expect(response.headers.get("cross-origin-embedder-policy")).toBe("require-corp");
    expect(response.headers.get("cross-origin-opener-policy")).toBe("same-origin");
    const policy = response.headers.get("content-security-policy")!;
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain("script-src 'self' 'wasm-unsafe-eval'");
    expect(policy).not.toContain("unsafe-inline");
    const html = await response.text();
    expect(html).toContain('name="rwkv-server" content="here"');
    expect(html).not.toMatch(/<script>|<style|https?:/);
  });

  test("files that are named by their content may be kept, and are not sent twice", async () => {
    const first = await fetch(`${tales.url}/${script}`);
    expect(first.headers.get("cache-control")).toBe("public, max-age=31536000, immutable");
    expect(first.headers.get("content-type")).toBe("text/javascript; charset=utf-8");
    expect(first.headers.get("cross-origin-embedder-policy")).toBe("require-corp");
    expect(first.headers.get("content-encoding")).toBe("gzip");
    const tag = first.headers.get("etag")!;
    const again = await fetch(`${tales.url}/${script}`, { headers: { "If-None-Match": tag } });
    expect([again.status, await again.text()]).toEqual([304, ""]);
    const page = await fetch(tales.url);
    const pageAgain = await fetch(tales.url, { headers: { "If-None-Match": page.headers.get("etag")! } });
    expect(pageAgain.status).toBe(304);
  });

  test("HEAD gives what GET would, and its length", async () => {
    const model = builtFiles.find(({ name }) => name.endsWith(".safetensors"))!;
    expect(model.path).toBe("embedded/model.safetensors"); // it is not packed twice
    const head = await fetch(`${tales.url}/${model.name}`, { method: "HEAD" });
    expect([head.status, head.headers.get("content-length"), (await head.arrayBuffer()).byteLength]).toEqual([
      200,
      "5432384",
      0,
    ]);
  });

  test.each([
    "/assets/../../package.json",
    "/assets/..%2f..%2fpackage.json",
    "/assets/%2e%2e/%2e%2e/package.json",
    "/assets/..\\..\\package.json",
    "/assets/constructor",
    "/files.json",
    "/playground/built/index.html",
  ])("nothing but the playground's files: %s", async (path) => {
    // Clients resolve such paths themselves, so this one sends it as it is.
    const status = await new Promise((resolve, reject) => {
      const { hostname, port } = new URL(tales.url);
      request({ hostname, port, path }, (response) => {
        response.resume();
        resolve(response.statusCode);
      })
        .on("error", reject)
        .end();
    });
    expect([400, 404]).toContain(status);
  });

  test("all scripts together are less than 250 kB", async () => {
    const names = builtFiles.map(({ name }) => name).filter((name) => name.endsWith(".js"));
    const bodies = await Promise.all(
      names.map(async (name) => new Uint8Array(await (await fetch(`${tales.url}/${name}`)).arrayBuffer())),
    );
    const sizes = bodies.map((body) => gzipSync(body).length);
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThan(250_000); // of all, whatever is loaded later
  });
});

describe.skipIf(!chromiumPath)("in Chromium", () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await launch();
  });
  afterAll(() => browser?.close());

  test("it opens, tells a tale, and continues a text, in a page that may use threads", async () => {
    // The server wants a key, which the page has not: it asks once, is refused, and takes its own model.
    const { page, complaints, scriptBytes } = await openPlayground(browser, tales.url);
    await page.waitForFunction(() => document.querySelector("[data-testid=tale]")!.textContent!.length > 60);
    expect(scriptBytes()).toBeGreaterThan(100_000); // the worker's are among them
    expect(scriptBytes()).toBeLessThan(160_000);
    expect(await page.evaluate(() => globalThis.crossOriginIsolated)).toBe(true);
    expect(await page.textContent("[data-testid=facts]")).toMatch(/RWKV-4.*2\.7 M.*wasmThreads\d/s);
    await goTo(page, "complete");
    await page.click("button[type=submit]");
    await page.waitForSelector("[data-at='20']");
    await untilWritten(page);
    await page.click("[data-at='3']");
    expect(await page.locator(".alternatives button").count()).toBe(8);
    expect(await seriousFaults(page)).toEqual([]);
    expect(complaints.filter((line) => !line.includes("401"))).toEqual([]);
    await page.context().close();
  });
});
