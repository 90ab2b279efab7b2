// The playground's models by clicking, in Chromium: by name from a hub, by address, from files; kept in the browser, gone on with in another
// tab, removed.

import { readdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type { Page } from "playwright";
import { describe, expect, onTestFinished, test } from "vitest";
import { chromiumPath, webgpuArguments } from "../chromium.js";
import { serveFiles } from "../file-server.js";
import { type HubServer, repository, startHub } from "../hub-server.js";
import { largeCheckpoint } from "../large-checkpoint.js";
import { answering, chooseModel, goTo, openTab, sharedPlayground, untilLoaded } from "../playground-pages.js";
import { sparseServed } from "../sparse-model.js";

const embedded = (name: string) => fileURLToPath(new URL(`../../embedded/${name}`, import.meta.url));
const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));
const model = await readFile(embedded("model.safetensors"));
const tokenizer = await readFile(embedded("tokenizer.json"));

/** The least bytes of a chunk that is kept (src/platform/browser/kept-files.ts). */
const chunk = 2 ** 22;

async function hubWith(files: Record<string, Uint8Array>): Promise<HubServer> {
  const hub = await startHub(files);
  onTestFinished(() => hub.close());
  return hub;
}

/** In the dialog of models, asks a hub for a model. */
async function look(page: Page, hub: HubServer, name: string): Promise<void> {
  const part = page.locator("[data-testid=hub]");
  if ((await part.locator("details").getAttribute("open")) === null) await part.locator("summary").click();
  await part.locator("details input").fill(hub.endpoint);
  await part.locator("input[type=text]").first().fill(name);
  await part.locator("button:has-text('Look at it')").click();
}

const kept = (page: Page) => page.locator("[data-testid=kept] li");
const fitting = (page: Page) => page.locator("[data-testid=fitting]");
const announced = (page: Page) => page.textContent("[data-testid=announced]");
const untilTold = (page: Page) =>
  page.waitForFunction(() => document.querySelector("[data-testid=tale]")!.textContent!.length > 60);

/** Names and sizes of the chunks that the page's origin keeps. */
const keptChunks = (page: Page): Promise<[string, number][]> =>
  page.evaluate(async () => {
    const chunks: [string, number][] = [];
    const root = await navigator.storage.getDirectory();
    for await (const [, models] of root as unknown as AsyncIterable<[string, FileSystemDirectoryHandle]>) {
      for await (const [, folder] of models as unknown as AsyncIterable<[string, FileSystemDirectoryHandle]>) {
        for await (const [name, file] of folder as unknown as AsyncIterable<[string, FileSystemFileHandle]>) {
          if (/^\d+$/.test(name)) chunks.push([name, (await file.getFile()).size]);
        }
      }
    }
    return chunks;
  });

describe.skipIf(!chromiumPath)("the playground's models", () => {
  const shared = sharedPlayground();
  const { opened } = shared;

  test("by name: what fits is said first, a closed tab's download goes on in another, and it is kept until it is deleted", async () => {
    const hub = await hubWith({ "model.safetensors": model, "tokenizer.json": tokenizer });
    const { page, context, complaints } = await opened(shared.url, { expected: [hub.endpoint, hub.storage] });
    await chooseModel(page);
    await look(page, hub, "hf:someone/none");
    await page.waitForSelector("[data-testid=hub] [role=alert]:has-text('hf:someone/none')");
    expect(hub.sent()).toBe(0);

    await look(page, hub, `hf:${repository}`);
    expect(await fitting(page).textContent()).toMatch(/model\.safetensors.*2\.7 M.*as stored: 5\.\d MB, fits/);
    await fitting(page).locator("input[value=q8]").click();
    // The header alone has come until now; from here on the second chunk never does.
    hub.onStorage = ({ headers }) => headers.range?.startsWith(`bytes=${chunk}-`) ?? false;
    await fitting(page).locator("button:has-text('Download 5.4 MB and load')").click();
    await page.waitForSelector("[data-testid=keeping]:has-text('Fetching model.safetensors')");
    // The model that was there goes on writing.
    expect(await page.locator(".dot.local").count()).toBe(1);
    await expect.poll(() => keptChunks(page)).toContainEqual(["0", chunk]);
    await expect.poll(() => announced(page)).toBe("Fetching model.safetensors: 75 %");
    await page.close();

    const tab = await openTab(context, shared.url);
    await chooseModel(tab);
    expect(await kept(tab).textContent()).toMatch(/model\.safetensors4\.\d MB of 5\.5 MB so far · someone\/some-rwkv/);
    const before = hub.requests.length;
    hub.onStorage = undefined;
    await kept(tab).locator("button:has-text('Go on')").click();
    await untilLoaded(tab, "model.safetensors");
    await untilTold(tab);
    expect(await announced(tab)).toBe("model.safetensors is loaded");
    // As it was chosen in the tab that is closed.
    expect(await tab.textContent("[data-testid=facts]")).toMatch(/RWKV-4.*2\.7 M.*q8/);
    const later = hub.requests.slice(before).filter((line) => line.startsWith("storage GET"));
    expect(later.map((line) => line.split(" ").at(-1))).toEqual([`${chunk}-${model.length - 1}`]);

    // It is loaded from the browser's storage, in another type, without the hub.
    await hub.close();
    await chooseModel(tab);
    expect(await kept(tab).textContent()).toMatch(/model\.safetensors5\.5 MB · someone\/some-rwkv/);
    await kept(tab).locator("button:has-text('Load')").click();
    expect(await fitting(tab).locator("input[value=q8]").isChecked()).toBe(true);
    await fitting(tab).locator("input[value=q4]").click();
    await fitting(tab).locator("[type=submit]").click();
    await expect.poll(() => tab.textContent("[data-testid=facts]")).toContain("q4");
    await untilTold(tab);
    await chooseModel(tab);
    const deleting = () => kept(tab).locator("button:has-text('Delete')").click();
    await answering(tab, false, deleting);
    expect(await kept(tab).count()).toBe(1);
    expect(await answering(tab, true, deleting)).toBe("Delete model.safetensors (5.5 MB) from this browser?");
    await expect.poll(() => kept(tab).count()).toBe(0);
    expect(await announced(tab)).toBe("model.safetensors was deleted");
    expect(await keptChunks(tab)).toEqual([]);
    expect(complaints.filter((line) => !/status of 40[14]/.test(line))).toEqual([]);
  });

  test.each([
    [
      undefined,
      ["5.9 GB, fits as q8 (3.1 GB)", "27 GB, may fit as q4 (7.5 GB)"],
      "may be more memory",
      [/may be/, true],
    ],
    [16, ["5.9 GB, fits", "27 GB, fits as q4 (7.5 GB)"], undefined, [/fits$/, true]],
    [8, ["5.9 GB, fits", "27 GB, may fit as q4 (7.5 GB)"], "may be more memory", [/fits$/, true]],
    [2, ["5.9 GB, may fit as q4 (1.7 GB)", "27 GB, does not fit here"], "larger than the memory", [/more than/, false]],
  ] as const)(
    "of a device of %s GiB it is said what fits, before more than a header is fetched",
    async (...expected) => {
      const [deviceMemory, [large, larger], doubt, [stored, mayLoad]] = expected;
      const elsewhere = await serveFiles({ "/large.safetensors": sparseServed("7:32x2560x65536") });
      const { page, complaints } = await opened(shared.url, { expected: [new URL(elsewhere.url).origin] });
      await page.evaluate((value) => Object.defineProperty(navigator, "deviceMemory", { value }), deviceMemory);
      await chooseModel(page);
      const option = (name: string) => page.textContent(`[data-testid=hub] option[value='${name}']`);
      expect(await option("rwkv7-world-2.9b")).toBe(`rwkv7-world-2.9b: ${large}`);
      expect(await option("rwkv7-g1-13.3b")).toBe(`rwkv7-g1-13.3b: about ${larger}`);
      await page.selectOption("[data-testid=hub] select", "rwkv7-g1-13.3b");
      const notice = page.locator("[data-testid=hub] .notice");
      if (doubt === undefined) expect(await notice.count()).toBe(0);
      else expect(await notice.textContent()).toContain(doubt);
      await page.fill("[data-testid=url] input", `${elsewhere.url}large.safetensors`);
      await page.click("[data-testid=url] button:has-text('Look at it')");
      await fitting(page).locator("label:has-text('as stored')").click();
      expect(await fitting(page).locator("label:has-text('as stored')").textContent()).toMatch(stored);
      expect(await fitting(page).locator("[type=submit]").isEnabled()).toBe(mayLoad);
      expect(await fitting(page).locator(".notice").count()).toBe(deviceMemory === undefined ? 1 : 0);
      expect(elsewhere.requests.length).toBeLessThan(6);
      expect(complaints).toEqual([]);
    },
  );

  test("a download that fails can be tried again, and one that is cancelled keeps what has come", async () => {
    const hub = await hubWith({ "odd.pth": await readFile(fixture("odd.pth")), "tales.safetensors": model });
    const { page } = await opened(shared.url, { expected: [hub.endpoint, hub.storage] });
    await chooseModel(page);
    await look(page, hub, `${repository}/odd.pth`);
    await fitting(page).waitFor();
    hub.onHub = (_, response) => {
      response.writeHead(403, { "x-error-code": "GatedRepo" }).end();
      return true;
    };
    await fitting(page).locator("[type=submit]").click();
    await page.waitForSelector(".is-failed:has-text('odd.pth could not be fetched')");
    hub.onHub = undefined;
    await page.click(".is-failed button:has-text('Try again')");
    await untilLoaded(page, "odd.pth");

    await chooseModel(page);
    await look(page, hub, `hf:${repository}/tales.safetensors`);
    await fitting(page).waitFor();
    hub.onStorage = ({ headers }) => !headers.range?.startsWith("bytes=0-");
    await fitting(page).locator("[type=submit]").click();
    await expect.poll(() => keptChunks(page)).toContainEqual(["0", chunk]);
    await page.click("[data-testid=keeping] button:has-text('Cancel')");
    await page.waitForSelector("[data-testid=keeping]", { state: "detached" });
    await chooseModel(page);
    await expect.poll(() => kept(page).last().textContent()).toMatch(/tales\.safetensors.*of .* so far/);
  });

  test("from files: chosen and dropped, with a tokenizer, in shards, and what is wrong with others", async () => {
    const { page, context, complaints } = await opened();
    await chooseModel(page);
    const files = page.locator("[data-testid=files]");
    await files.setInputFiles([embedded("model.safetensors"), embedded("tokenizer.json")]);
    expect(await fitting(page).textContent()).toMatch(
      /model\.safetensors.*safetensors.*2\.7 M.*tokenizer\.json.*as stored: 5\.\d MB, fits.*q4: 1\.\d MB/s,
    );
    await fitting(page).locator("input[value=q8]").click();
    await fitting(page).locator("[type=submit]").click();
    await untilLoaded(page, "model.safetensors");
    await expect.poll(() => page.textContent("[data-testid=facts]")).toContain("q8");
    await untilTold(page);
    // It was kept, with its tokenizer.
    await page.close();
    const tab = await openTab(context, shared.url);
    await chooseModel(tab);
    expect(await kept(tab).textContent()).toMatch(/^model\.safetensors5\.5 MB/);
    await kept(tab).locator("button:has-text('Load')").click();
    await fitting(tab).locator("[type=submit]").click();
    await untilLoaded(tab, "model.safetensors");
    await untilTold(tab);
    // A file dropped onto the page, which is not to be kept.
    const bytes = [...(await readFile(fixture("odd.pth")))];
    await tab.evaluate((content) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(content)], "odd.pth"));
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
    }, bytes);
    await fitting(tab).locator("text=odd.pth").waitFor();
    await fitting(tab).locator("[type=checkbox]").uncheck();
    await fitting(tab).locator("[type=submit]").click();
    await tab.waitForSelector("[role=alert]:has-text('no tokenizer')");
    await chooseModel(tab);
    expect(await kept(tab).count()).toBe(1);
    // Shards lie beside each other only in the browser's storage.
    const shards = readdirSync(fixture("odd-hugging-face")).map((name) => fixture(`odd-hugging-face/${name}`));
    await tab.locator("[data-testid=files]").setInputFiles(shards);
    await tab.click("button:has-text('into this browser')");
    await fitting(tab).locator("text=model.safetensors.index.json").waitFor();
    await fitting(tab).locator("[type=submit]").click();
    await untilLoaded(tab, "model.safetensors.index.json");
    await chooseModel(tab);
    const others = tab.locator("[data-testid=files]");
    await others.setInputFiles({
      name: "broken.pth",
      mimeType: "",
      buffer: Buffer.from("PK\x03\x04 and nothing else"),
    });
    await tab.waitForSelector("dialog [role=alert]:has-text('broken.pth: zip archive without its end record')");
    await others.setInputFiles(embedded("tokenizer.json"));
    await tab.waitForSelector("dialog [role=alert]:has-text('No model among these files')");
    await tab.click("dialog section:has-text('The model in this page') button");
    await untilLoaded(tab, "rwkv-tales");
    expect(complaints).toEqual([]);
  });

  test("a look that failed is taken again when it is asked for again", async () => {
    const hub = await hubWith({ "odd.pth": await readFile(fixture("odd.pth")) });
    const { page } = await opened(shared.url, { expected: [hub.endpoint, hub.storage] });
    await chooseModel(page);
    hub.onHub = (_, response) => {
      response.writeHead(403, { "x-error-code": "GatedRepo" }).end();
      return true;
    };
    await look(page, hub, `hf:${repository}/odd.pth`);
    await page.waitForSelector("[data-testid=hub] [role=alert]:has-text('403')");
    hub.onHub = undefined;
    await page.click("[data-testid=hub] button:has-text('Look at it')");
    await fitting(page).waitFor();
  });

  test("a tokenizer of any name is kept with its model, and what is none is not taken for one", async () => {
    const { page } = await opened();
    await chooseModel(page);
    const files = page.locator("[data-testid=files]");
    const chosen = (name: string, buffer: Buffer) => ({ name, mimeType: "", buffer });
    await files.setInputFiles([chosen("tales.safetensors", model), chosen("README.txt", Buffer.from("hello"))]);
    await fitting(page).waitFor();
    expect(await fitting(page).textContent()).not.toContain("README.txt");
    await files.setInputFiles([chosen("tales.safetensors", model), chosen("tokenizer (1).json", tokenizer)]);
    await fitting(page).locator("text=tokenizer (1).json").waitFor();
    await fitting(page).locator("[type=submit]").click();
    await untilLoaded(page, "tales.safetensors");
    await untilTold(page);
  });

  test("what turns out to be no model is not kept", async () => {
    const { page } = await opened();
    const header = JSON.stringify({ weight: { dtype: "F32", shape: [2, 2], data_offsets: [0, 16] } });
    const length = Buffer.alloc(8);
    length.writeUInt32LE(header.length);
    const buffer = Buffer.concat([length, Buffer.from(header), Buffer.alloc(16)]);
    await chooseModel(page);
    await page.locator("[data-testid=files]").setInputFiles({ name: "other.safetensors", mimeType: "", buffer });
    await fitting(page).locator("[type=submit]").click();
    await page.waitForSelector(
      ".is-failed:has-text('other.safetensors could not be loaded'):has-text('What was fetched of it was deleted.')",
    );
    expect(await keptChunks(page)).toEqual([]);
    await chooseModel(page);
    expect(await kept(page).count()).toBe(0);
  });

  test("a model waits until what is being done is complete, or the user wants it at once", async () => {
    const { page } = await opened();
    const train = async () => {
      await goTo(page, "train");
      await page.fill(
        "main textarea",
        "The cat sat on the mat, and so did the dog. Then the cat went home. ".repeat(120),
      );
      await page.selectOption("main select >> nth=0", "600");
      await page.click("main [type=submit]");
      await page.waitForSelector("[data-testid=curve] .line");
      await chooseModel(page);
      await page.locator("[data-testid=files]").setInputFiles(fixture("odd.pth"));
      await fitting(page).locator("[type=checkbox]").uncheck();
      await fitting(page).locator("[type=submit]").click();
      await page.waitForSelector("[data-testid=waiting]:has-text('odd.pth is loaded as soon as')");
      expect(await page.textContent("[data-testid=model]")).toBe("rwkv-tales");
    };
    await train();
    await page.click("[data-testid=waiting] button:has-text('Cancel')");
    await page.waitForSelector("[data-testid=waiting]", { state: "detached" });
    await page.click("button:has-text('Finish now')");
    await page.waitForSelector("[data-testid=trained]");
    expect(await page.textContent("[data-testid=model]")).toBe("rwkv-tales");
    await train();
    await page.click("button:has-text('Finish now')");
    await untilLoaded(page, "odd.pth");
    await chooseModel(page);
    await page.click("dialog section:has-text('The model in this page') button");
    await untilLoaded(page, "rwkv-tales");
    await train();
    await page.click("[data-testid=waiting] button:has-text('Load it now')");
    await untilLoaded(page, "odd.pth");
    await page.waitForSelector("button:has-text('Finish now')");
  });

  test("what lies beside two models of a repository stays as long as one of them does", async () => {
    const files = { "model.safetensors": model, "pytorch_model.bin": await readFile(fixture("odd.pth")) };
    const hub = await hubWith({ ...files, "tokenizer.json": tokenizer });
    const { page } = await opened(shared.url, { expected: [hub.endpoint, hub.storage] });
    const fetch = async (file: string) => {
      await chooseModel(page);
      await look(page, hub, `hf:${repository}`);
      await fitting(page).waitFor();
      await fitting(page).locator("[type=submit]").click();
      await untilLoaded(page, file);
    };
    await fetch("model.safetensors");
    hub.files.delete("model.safetensors");
    await fetch("pytorch_model.bin");
    await chooseModel(page);
    await expect.poll(() => kept(page).count()).toBe(2);
    const deleting = (name: string) => kept(page).locator(`button[aria-label='Delete: ${name}']`).click();
    await answering(page, true, () => deleting("pytorch_model.bin"));
    await expect.poll(() => kept(page).count()).toBe(1);
    await page.keyboard.press("Escape");
    await page.reload();
    await page.waitForSelector(".dot.local");
    await chooseModel(page);
    await kept(page).locator("button:has-text('Load')").click();
    await fitting(page).locator("[type=submit]").click();
    await untilLoaded(page, "model.safetensors");
    await untilTold(page);
    await chooseModel(page);
    await answering(page, true, () => deleting("model.safetensors"));
    await expect.poll(() => keptChunks(page)).toEqual([]);
  });

  test("of several models in a repository each is listed and deleted alone", async () => {
    const shards = readdirSync(fixture("odd-hugging-face"));
    const read = async (name: string) => [name, await readFile(fixture(`odd-hugging-face/${name}`))] as const;
    const sharded = Object.fromEntries(await Promise.all(shards.map(read)));
    const hub = await hubWith({ ...sharded, "other.pth": await readFile(fixture("odd.pth")) });
    const { page } = await opened(shared.url, { expected: [hub.endpoint, hub.storage] });
    const asked = [
      [`hf:${repository}`, "model.safetensors.index.json"],
      [`hf:${repository}/other.pth`, "other.pth"],
    ] as const;
    for (const [name, file] of asked) {
      await chooseModel(page);
      await look(page, hub, name);
      await fitting(page).waitFor();
      await fitting(page).locator("[type=submit]").click();
      await untilLoaded(page, file);
    }
    await chooseModel(page);
    await expect.poll(() => kept(page).locator("strong").allTextContents()).toEqual(asked.map(([, file]) => file));
    await answering(page, true, () => kept(page).first().locator("button:has-text('Delete')").click());
    await expect.poll(() => kept(page).locator("strong").allTextContents()).toEqual(["other.pth"]);
  });

  test("a model in shards goes on when it was cancelled between two of them", async () => {
    const shards = readdirSync(fixture("odd-hugging-face"));
    const read = async (name: string) => [name, await readFile(fixture(`odd-hugging-face/${name}`))] as const;
    const hub = await hubWith(Object.fromEntries(await Promise.all(shards.map(read))));
    const { page } = await opened(shared.url, { expected: [hub.endpoint, hub.storage] });
    await chooseModel(page);
    await look(page, hub, `hf:${repository}`);
    await fitting(page).waitFor();
    hub.onHub = ({ method, url }) => method === "GET" && url?.includes("00002-of-00002") === true;
    const before = hub.requests.length;
    await fitting(page).locator("[type=submit]").click();
    const isAsked = () => hub.requests.slice(before).some((line) => /^hub GET .*00002-of/.test(line));
    await expect.poll(isAsked).toBe(true);
    await chooseModel(page);
    await expect.poll(() => kept(page).locator("button:disabled").allTextContents()).toEqual(["Go on", "Delete"]);
    await page.keyboard.press("Escape");
    await page.click("[data-testid=keeping] button:has-text('Cancel')");
    await page.waitForSelector("[data-testid=keeping]", { state: "detached" });
    hub.onHub = undefined;
    await chooseModel(page);
    await kept(page).locator("button:has-text('Go on')").click();
    await untilLoaded(page, "model.safetensors.index.json");
    await chooseModel(page);
    await kept(page).locator("button:has-text('Load')").waitFor();
  });

  test("by address: kept with its tokenizer, cancelled, not there", async () => {
    const cors = { "access-control-allow-origin": "*", "access-control-expose-headers": "content-range" };
    const bytes = await largeCheckpoint();
    let isSilent = false;
    const elsewhere = await serveFiles({
      "/m/model.safetensors": { bytes: model, headers: cors },
      "/m/tokenizer.json": { bytes: tokenizer, headers: cors },
      // Once its header was read, it is as if the line were cut.
      "/slow/large.pth": { bytes, headers: cors, answer: () => isSilent },
    });
    const { page } = await opened(shared.url, { expected: [new URL(elsewhere.url).origin] });
    const lookAt = async (url: string) => {
      await chooseModel(page);
      await page.fill("[data-testid=url] input", url);
      await page.click("[data-testid=url] button:has-text('Look at it')");
    };
    await lookAt(`${elsewhere.url}m/model.safetensors`);
    await fitting(page).locator("[type=submit]").click();
    await untilLoaded(page, "model.safetensors");
    await untilTold(page);
    await lookAt(`${elsewhere.url}none.pth`);
    await page.waitForSelector("dialog [role=alert]:has-text('none.pth')");
    expect(await kept(page).textContent()).toContain(`${elsewhere.url}m/model.safetensors`);
    await page.keyboard.press("Escape");
    await lookAt(`${elsewhere.url}slow/large.pth`);
    await fitting(page).locator("text=large.pth").waitFor();
    await fitting(page).locator("[type=checkbox]").uncheck();
    isSilent = true;
    await fitting(page).locator("[type=submit]").click();
    await page.click(".loading button:has-text('Cancel')");
    await untilLoaded(page, "rwkv-tales");
  });
});

describe.skipIf(!chromiumPath)("where there is a GPU", () => {
  const { opened } = sharedPlayground(webgpuArguments);

  test("it computes when it is chosen, in a model's dialog and beside its measure; a software one is never taken unasked", async () => {
    const { page, complaints } = await opened();
    const facts = () => page.textContent("[data-testid=facts]");
    await goTo(page, "bench");
    await page.selectOption("main [data-testid=backend]", "webgpu");
    await goTo(page, "start");
    await page.waitForSelector("[data-testid=facts]:has-text('Backendwebgpu')");
    await untilTold(page);
    await chooseModel(page);
    await page.locator("[data-testid=files]").setInputFiles(fixture("odd.pth"));
    await fitting(page).locator("[data-testid=backend]").selectOption("auto");
    await fitting(page).locator("[type=checkbox]").uncheck();
    await fitting(page).locator("[type=submit]").click();
    await untilLoaded(page, "odd.pth");
    await expect.poll(facts).toContain("Backendwasm");
    expect(complaints).toEqual([]);
  });
});
