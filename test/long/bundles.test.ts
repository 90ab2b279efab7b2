// The package in applications that Vite, webpack and esbuild have built, in Chromium: the embedded model is found with its
// tokenizer, its kernels and its workers; in isolated pages, in others, and in workers.

import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { type Browser, chromium } from "playwright";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { createApplication, startViteServer, withEsbuild, withVite, withWebpack } from "../bundles/bundlers.js";
import { chromiumArguments, chromiumPath, isolationHeaders } from "../chromium.js";
import { type ServedFile, serveFiles } from "../file-server.js";
import { largeCheckpoint } from "../large-checkpoint.js";

let folder: string;
let browser: Browser;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rwkv-bundles-"));
  await createApplication(folder);
  if (chromiumPath) browser = await chromium.launch({ executablePath: chromiumPath, args: chromiumArguments });
});
afterAll(async () => {
  await browser?.close();
  await rm(folder, { recursive: true, force: true });
});

const types: Record<string, string> = {
  html: "text/html",
  js: "text/javascript",
  wasm: "application/wasm",
  json: "application/json",
};

/** Serves a folder's files under a path, and others, as a plain web server does. */
async function serveFolder(path: string, headers: Record<string, string>, others: Record<string, ServedFile> = {}) {
  const served = { ...others };
  for (const entry of await readdir(path, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = join(entry.parentPath, entry.name);
    const type = types[entry.name.split(".").at(-1) as string] ?? "application/octet-stream";
    const bytes = await readFile(file);
    served[`/below/${relative(path, file)}`] = { bytes, headers: { ...headers, "content-type": type } };
  }
  return serveFiles(served);
}

interface Outcome {
  tokens: number[];
  text: string;
  same: string;
  threads: number;
  vocabulary: number;
  warnings: string[];
  isolated: boolean;
  error?: string;
}

async function openPage(url: string) {
  const page = await browser.newPage();
  onTestFinished(() => page.close());
  const complaints: string[] = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  page.on("pageerror", (error) => void complaints.push(String(error)));
  await page.goto(url);
  await page.waitForFunction(() => "inPage" in globalThis);
  return { page, complaints };
}

/** Opens the application and uses the model in the page and in a worker of it. */
async function use(url: string, isolated: boolean) {
  const { page, complaints } = await openPage(url);
  for (const where of ["inPage", "inWorker"] as const) {
    const call = (name: string) => (globalThis as unknown as Record<string, () => Promise<Outcome>>)[name]!();
    const outcome = await page.evaluate(call, where);
    expect(outcome).toMatchObject({ vocabulary: 2048, threads: isolated ? 2 : 1, isolated, warnings: [] });
    expect(outcome.tokens).toEqual([33155, 45, 40213]);
    expect(outcome.text.length).toBeGreaterThan(20);
    expect(outcome.same).toBe(outcome.text);
    // What is left is the worker that the application started.
    await expect.poll(() => page.workers().length).toBeLessThanOrEqual(where === "inWorker" ? 1 : 0);
  }
  expect(complaints).toEqual([]);
}

const kinds = [
  ["isolated", isolationHeaders],
  ["not isolated", {}],
] as const;

describe.skipIf(!chromiumPath).each([
  ["Vite 7", withVite("Vite 7")],
  ["Vite 8", withVite("Vite 8")],
  ["webpack", withWebpack],
  ["esbuild", withEsbuild],
] as const)("an application built by %s", (name, bundle) => {
  const output = () => join(folder, `out-${name}`);
  beforeAll(() => bundle(folder, output()));

  test.each(kinds)("in a page that is %s", async (kind, headers) => {
    const server = await serveFolder(output(), headers);
    await use(`${server.url}below/index.html`, kind === "isolated");
  });

  // By one bundler: what it does to a file that is fetched while it runs is nothing.
  test.runIf(name === "Vite 8").each(kinds)(
    "a model of 86 MB from a web server, in a page that is %s",
    async (kind, headers) => {
      const bytes = await largeCheckpoint();
      const server = await serveFolder(output(), headers, { "/models/large.pth": { bytes, headers } });
      const { page } = await openPage(`${server.url}below/index.html`);
      const outcome = await page.evaluate(
        (url) => (globalThis as unknown as { loadUrl(url: string): Promise<{ progress: number[] }> }).loadUrl(url),
        "../models/large.pth",
      );
      expect(outcome).toMatchObject({ layers: 12, finite: true });
      expect(outcome).toHaveProperty("threads", kind === "isolated" ? expect.any(Number) : 1);
      expect(outcome.progress.length).toBeGreaterThan(20);
      expect(outcome.progress.at(-1)).toBe(1);
      expect(server.requests.filter((line) => line.includes("large.pth")).length).toBeLessThanOrEqual(20);
    },
  );
});

describe.skipIf(!chromiumPath).each(["Vite 7", "Vite 8"] as const)("the development server of %s", (version) => {
  test.each(kinds)("in a page that is %s", async (kind, headers) => {
    const { url, close } = await startViteServer(version, folder, headers);
    onTestFinished(close);
    await use(url, kind === "isolated");
  });
});

test.skipIf(!chromiumPath)("an isolated page that may not start workers computes by itself, and says why", async () => {
  const output = join(folder, "out-without-workers");
  await withEsbuild(folder, output);
  const policy = "script-src 'self' 'wasm-unsafe-eval'; worker-src 'none'";
  const server = await serveFolder(output, { ...isolationHeaders, "content-security-policy": policy });
  const { page } = await openPage(`${server.url}below/index.html`);
  const outcome = await page.evaluate(() => (globalThis as unknown as { inPage(): Promise<Outcome> }).inPage());
  expect(outcome).toMatchObject({ isolated: true, threads: 1, vocabulary: 2048 });
  expect(outcome.text.length).toBeGreaterThan(20);
  expect(outcome.warnings.join()).toMatch(/a compute thread failed \(.+\); computing on the calling thread/);
});
