// The playground in a real Chromium, for tests: opened from a server, with everything that a browser complains of noted.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { type Browser, type BrowserContext, type BrowserContextOptions, chromium, type Page } from "playwright";
import { afterAll, beforeAll, onTestFinished } from "vitest";
import { chromiumArguments, chromiumPath } from "./chromium.js";
import type { ServedFile } from "./file-server.js";
import { type Served, served } from "./served.js";

const root = fileURLToPath(new URL("../", import.meta.url));

/** Files of the playground, as its build lists them. */
export const builtFiles: readonly { readonly name: string; readonly path: string; readonly digest: string }[] =
  JSON.parse(readFileSync(`${root}playground/built/files.json`, "utf8"));

export const launch = (args: readonly string[] = chromiumArguments): Promise<Browser> =>
  chromium.launch({ executablePath: chromiumPath as string, args: [...args] });

/** What the tests of a file share: a browser, and a server of the model in the package. */
export interface Shared {
  /** The server's URL. */
  readonly url: string;
  /** Opens the playground in a context of its own, which is closed when the test has finished. */
  opened(url?: string, options?: Parameters<typeof openPlayground>[2]): Promise<OpenedPage>;
}

/** Starts them before the tests of a file, and ends them afterwards. */
export function sharedPlayground(args?: readonly string[]): Shared {
  let browser: Browser;
  let tales: Served;
  beforeAll(async () => {
    [browser, tales] = await Promise.all([launch(args), served({ name: "rwkv-tales" })]);
  });
  afterAll(() => Promise.all([browser?.close(), tales?.close()]));
  return {
    get url() {
      return tales.url;
    },
    async opened(url = tales.url, options = {}) {
      const opened = await openPlayground(browser, url, options);
      onTestFinished(() => opened.context.close());
      return opened;
    },
  };
}

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
  readonly context: BrowserContext;
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
  context.setDefaultTimeout(120_000); // machines that do much else need patience
  // Texts end by themselves before long.
  await context.addInitScript(() => {
    if (location.protocol !== "about:") localStorage.setItem("rwkv.maxTokens", "50");
  });
  const complaints: string[] = [];
  context.on("console", (message) => {
    // What Chromium says where a page asks for a GPU and there is none.
    if (message.text() === "No available adapters.") return;
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  context.on("weberror", (error) => void complaints.push(String(error.error())));
  const own = [new URL(url).origin, ...expected];
  context.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (!own.includes(origin) && !["blob:", "data:"].includes(protocol)) complaints.push(`request of ${request.url()}`);
  });
  let scriptBytes = 0;
  context.on("response", (response) => {
    if (response.url().endsWith(".js")) scriptBytes += Number(response.headers()["content-length"]);
  });
  return { page: await openTab(context, url), context, complaints, scriptBytes: () => scriptBytes };
}

/** Opens the playground in another tab, and waits until a model is there. */
export async function openTab(context: BrowserContext, url: string): Promise<Page> {
  const page = await context.newPage();
  await page.goto(url);
  await page.waitForSelector(".dot.local, .dot.server");
  return page;
}

/** Goes to a view by its link. */
export async function goTo(page: Page, view: string): Promise<void> {
  await page.click(`nav a[href="#${view}"]`);
}

/** Opens the dialog of models. */
export async function chooseModel(page: Page): Promise<void> {
  await page.click("[data-testid=model]");
  await page.waitForSelector("dialog[open] [data-testid=hub] option:nth-child(2)", { state: "attached" });
}

/** Waits until the model of this name writes. */
export async function untilLoaded(page: Page, name: string): Promise<void> {
  await page.waitForSelector(`[data-testid=model]:has-text('${name}') .dot.local`);
}

/** Waits until a text that is being written is complete. */
export async function untilWritten(page: Page): Promise<void> {
  await page.waitForSelector(".is-writing", { state: "detached" });
}

/** Clicks something that asks first, and answers. @returns the question */
export async function answering(page: Page, answer: boolean, click: () => Promise<void>): Promise<string> {
  const asking = page.waitForEvent("dialog").then(async (dialog) => {
    await (answer ? dialog.accept() : dialog.dismiss());
    return dialog.message();
  });
  await click();
  return asking;
}

/** Says something in the chat, and waits for the whole answer. */
export async function say(page: Page, text: string): Promise<void> {
  const before = await page.locator(".message").count();
  await page.fill(".composer textarea", text);
  await page.click(".composer [type=submit]");
  await page.locator(`.message:nth-child(${before + 2})`).waitFor();
  await page.waitForSelector(".composer [type=submit]");
  await untilWritten(page);
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
