// The playground in a real Chromium, for tests: opened from a server, with everything that a browser complains of noted.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright";
import { chromiumArguments, chromiumPath } from "./chromium.js";
import type { ServedFile } from "./file-server.js";

const root = fileURLToPath(new URL("../", import.meta.url));

/** Files of the playground, as its build lists them. */
export const builtFiles: readonly { readonly name: string; readonly path: string; readonly digest: string }[] =
  JSON.parse(readFileSync(`${root}playground/built/files.json`, "utf8"));

export const launch = (): Promise<Browser> =>
  chromium.launch({ executablePath: chromiumPath as string, args: chromiumArguments });

const types: Readonly<Record<string, string>> = {
  html: "text/html",
  js: "text/javascript",
  css: "text/css",
  json: "application/json",
  svg: "image/svg+xml",
  wasm: "application/wasm",
  webmanifest: "application/manifest+json",
};

/** The playground's folder, as a plain web server has it: at /demo/. */
export function staticFiles(headers: Record<string, string> = {}): Record<string, ServedFile> {
  const served: Record<string, ServedFile> = {};
  for (const { name } of builtFiles) {
    const type = types[name.split(".").at(-1) as string] ?? "application/octet-stream";
    const file = {
      bytes: readFileSync(`${root}playground/built/${name}`),
      headers: { ...headers, "content-type": type },
    };
    served[`/demo/${name}`] = file;
    if (name === "index.html") served["/demo/"] = file;
  }
  return served;
}

export interface OpenedPage {
  readonly page: Page;
  /** Errors, warnings and refusals of the browser, and requests of other origins. */
  readonly complaints: string[];
  /** Bytes of scripts as they were sent so far, those of workers too. */
  scriptBytes(): number;
}

/** Opens the playground and waits until a model is there. @param expected origins that the test sends requests to */
export async function openPlayground(
  browser: Browser,
  url: string,
  { expected = [], ...options }: BrowserContextOptions & { expected?: readonly string[] } = {},
): Promise<OpenedPage> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  page.on("pageerror", (error) => void complaints.push(String(error)));
  const own = [new URL(url).origin, ...expected];
  context.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (!own.includes(origin) && !["blob:", "data:"].includes(protocol)) complaints.push(`request of ${request.url()}`);
  });
  let scriptBytes = 0;
  context.on("response", (response) => {
    if (response.url().endsWith(".js")) scriptBytes += Number(response.headers()["content-length"]);
  });
  await page.goto(url);
  await page.waitForSelector(".dot.local, .dot.server");
  return { page, complaints, scriptBytes: () => scriptBytes };
}

/** Goes to a view by its link. */
export async function goTo(page: Page, view: string): Promise<void> {
  await page.click(`nav a[href="#${view}"]`);
}

/** Waits until a text that is being written is complete. */
export async function untilWritten(page: Page): Promise<void> {
  await page.waitForSelector(".is-writing", { state: "detached" });
}

const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** What axe finds that is serious or worse, a line each. */
export async function seriousFaults(page: Page): Promise<string[]> {
  await page.evaluate(axeSource);
  const violations = await page.evaluate(async () => {
    const { axe } = globalThis as unknown as { axe: typeof import("axe-core") };
    return (await axe.run(document)).violations.map(({ id, impact, nodes }) => {
      return { id, impact, where: nodes.map(({ html }) => html.slice(0, 160)) };
    });
  });
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, impact, where }) => `${impact}: ${id}: ${where.join(" | ")}`);
}

/** Whether the page is wider than the screen. */
export function isTooWide(page: Page): Promise<boolean> {
  return page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
}
