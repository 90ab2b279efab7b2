// Models by name in a page: read from the hub as they are, or kept in the origin's private file system, where a closed tab goes on. The hub
// is a command of vitest's, since a page cannot be a server (hub-commands.ts).

import { downloadModel, knownModels, load, removeStoredModel, storedModels } from "rwkv";
import { afterEach, beforeEach, expect, test } from "vitest";
import { commands } from "vitest/browser";
import { fixture, maxDifference, readFloats, readJson } from "./environment.js";

const { tokens } = await readJson<{ tokens: number[] }>(fixture("tokens.json"));
const name = "hf:someone/some-rwkv/odd.pth";
const bigName = "hf:someone/some-rwkv/big.bin";
let endpoint: string;

beforeEach(async () => {
  endpoint = await commands.startHub();
  for (const { repository } of await storedModels()) await removeStoredModel(`hf:${repository}`).catch(() => {});
});
afterEach(() => commands.stopHub());

async function checkLogits(options: Parameters<typeof load>[1]): Promise<string> {
  const model = await load(name, { ...options, endpoint, threads: 1 });
  const [logits] = await model.forward([{ state: model.createState(), tokens, logits: "all" }]);
  const { source } = model.info;
  await model.dispose();
  expect(maxDifference(logits!, await readFloats(fixture("odd.logits.f32")))).toBeLessThan(2e-5);
  return source;
}

test("a model by name is read from the hub, and nothing is kept", async () => {
  expect(await checkLogits({})).toBe(`${endpoint}/someone/some-rwkv/resolve/main/odd.pth`);
  expect(await storedModels()).toEqual([]);
});

test("with the cache it is downloaded once, has its own name, and is listed and removed", async () => {
  const progress: number[] = [];
  expect(await checkLogits({ cache: true, onProgress: (done, total) => void progress.push(done / total) })).toBe(
    "odd.pth",
  );
  expect(progress.at(-1)).toBe(1);
  const sent = await commands.hubSent();
  expect(await checkLogits({ cache: true })).toBe("odd.pth");
  expect(await commands.hubSent()).toBe(sent);
  const stored = await storedModels();
  expect(stored).toMatchObject([
    { repository: "someone/some-rwkv", file: "odd.pth", complete: true, revisions: ["main"] },
  ]);
  // Without the hub it is still there.
  await commands.stopHub();
  const warnings: string[] = [];
  await checkLogits({ cache: true, onWarning: (line) => warnings.push(line) });
  expect(warnings[0]).toMatch(/using what was downloaded before$/);
  expect(await removeStoredModel(name)).toBe(stored[0]!.bytes);
  expect(await removeStoredModel(name)).toBeUndefined();
});

test("a download that was ended goes on where it was, in any tab, and two at once are one", async () => {
  await commands.hubHold(6_000_000);
  const stop = new AbortController();
  const running = downloadModel(bigName, { endpoint, signal: stop.signal });
  running.catch(() => {});
  while (!(await storedModels()).some(({ bytes }) => bytes > 0))
    await new Promise((resolve) => setTimeout(resolve, 20));
  stop.abort(new Error("enough"));
  await expect(running).rejects.toThrow("enough");
  const [partial] = await storedModels();
  expect(partial).toMatchObject({ file: "big.bin", complete: false });
  await commands.hubHold(null);
  const first: number[] = [];
  const [file, same] = (await Promise.all([
    downloadModel(bigName, { endpoint, onProgress: (done) => void first.push(done), onWarning: () => {} }),
    downloadModel(bigName, { endpoint, onWarning: () => {} }),
  ])) as [File, File];
  // Whichever of the two did the download: it began with what was here, or came when all was.
  expect(first[0]).toBeGreaterThanOrEqual(partial!.bytes);
  expect(first.at(-1)).toBe(9_000_000);
  expect([file.name, file.size, same.size]).toEqual(["big.bin", 9_000_000, 9_000_000]);
  const digest = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
  expect(Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("")).toBe(
    await commands.hubSum(),
  );
});

test("bytes that are not the file are never used", async () => {
  await commands.hubDamage();
  await expect(downloadModel(bigName, { endpoint })).rejects.toThrow("they are not the file: expected the sha256");
  expect(await storedModels()).toMatchObject([{ complete: false, bytes: 0 }]);
});

test("a file by its URL is kept, too", async () => {
  const url = fixture("odd-bf16.pth");
  for (let round = 0; round < 2; round++) {
    const model = await load(url, { cache: true, threads: 1 });
    expect(model.info).toMatchObject({ source: "odd-bf16.pth", dtype: "bf16" });
    await model.dispose();
  }
  expect(await storedModels()).toMatchObject([{ repository: url, complete: true }]);
  expect(await removeStoredModel(url)).toBeGreaterThan(0);
});

test("errors say what was tried", async () => {
  await expect(load("hf:someone/some-rwkv/none.pth", { endpoint, cache: true })).rejects.toThrow(
    "no such file in this repository",
  );
  await expect(load("rwkv7-g1-9b", { endpoint })).rejects.toThrow("no model of this name");
  await expect(load("hf:x", { endpoint })).rejects.toThrow("expected hf:owner/repo/file");
  expect(knownModels.length).toBeGreaterThan(10);
});
