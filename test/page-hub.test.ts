// Models by name in a page: read from the hub as they are, or kept in the origin's private file system, where a closed tab goes on. The hub
// is a command of vitest's, since a page cannot be a server (hub-commands.ts).

import {
  downloadModel,
  knownModels,
  load,
  modelUrl,
  openCheckpoint,
  removeStoredModel,
  storedModels,
  storeModel,
} from "rwkv";
import { afterEach, beforeEach, expect, test } from "vitest";
import { commands } from "vitest/browser";
import { readBytes } from "#rwkv/platform/browser/files";
import { fixture, maxDifference, readFloats, readJson } from "./environment.js";

const { tokens } = await readJson<{ tokens: number[] }>(fixture("tokens.json"));
const name = "hf:someone/some-rwkv/odd.pth";
const bigName = "hf:someone/some-rwkv/big.bin";
let endpoint: string;

beforeEach(async () => {
  endpoint = await commands.startHub();
  for (const { repository } of await storedModels()) {
    await removeStoredModel(/^(https?|local):/.test(repository) ? repository : `hf:${repository}`);
  }
});
afterEach(() => commands.stopHub());

async function checkLogits(options: Parameters<typeof load>[1], of = name): Promise<string> {
  const model = await load(of, { ...options, endpoint, threads: 1 });
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
  expect(await checkLogits({ cache: true, onProgress: (done, total) => void progress.push(done / total) })).toMatch(
    /^rwkv-models:\/someone%2Fsome-rwkv\/[0-9a-f]{40}\/odd\.pth$/,
  );
  expect(progress.at(-1)).toBe(1);
  const sent = await commands.hubSent();
  await checkLogits({ cache: true });
  expect(await commands.hubSent()).toBe(sent);
  const stored = await storedModels();
  expect(stored).toMatchObject([
    { repository: "someone/some-rwkv", file: "odd.pth", complete: true, revisions: ["main"] },
  ]);
  expect(stored[0]!.bytes).toBe(stored[0]!.size);
  // Without the hub it is still there.
  await commands.stopHub();
  const warnings: string[] = [];
  await checkLogits({ cache: true, onWarning: (line) => warnings.push(line) });
  expect(warnings[0]).toMatch(/using what was downloaded before$/);
  expect(await removeStoredModel(name)).toBe(stored[0]!.bytes);
  expect(await removeStoredModel(name)).toBeUndefined();
});

test("a model that is kept is placed while it comes, and is the same as from its whole file", async () => {
  const tale = "hf:someone/some-rwkv/tale.safetensors";
  const logitsOf = async (model: Awaited<ReturnType<typeof load>>) => {
    const [logits] = await model.forward([{ state: model.createState(), tokens: [1, 2, 3], logits: "all" }]);
    await model.dispose();
    return logits;
  };
  await commands.hubHold(4_500_000); // of 5.4 MB
  let share = 0;
  const onProgress = (done: number, total: number) => {
    share = done / total;
  };
  const stop = new AbortController();
  const begin = (signal?: AbortSignal) =>
    load(tale, { cache: true, endpoint, threads: 1, onProgress, ...(signal && { signal }) });
  const ended = begin(stop.signal);
  ended.catch(() => {});
  // The download alone is one half.
  await expect.poll(() => share).toBeGreaterThan(0.55);
  stop.abort(new Error("enough"));
  await expect(ended).rejects.toThrow("enough");
  share = 0;
  const loading = begin();
  loading.catch(() => {});
  await expect.poll(() => share).toBeGreaterThan(0.55);
  expect(await storedModels()).toMatchObject([{ complete: false }]);
  await commands.hubHold(null);
  const model = await loading;
  expect(model.info.source).toMatch(/^rwkv-models:.*\/tale\.safetensors$/);
  expect(await logitsOf(model)).toEqual(await logitsOf(await load(undefined, { threads: 1 })));
  const sent = await commands.hubSent();
  expect(await logitsOf(await begin())).toEqual(await logitsOf(await load(undefined, { threads: 1 })));
  expect(await commands.hubSent()).toBe(sent);
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
  expect(partial).toMatchObject({ file: "big.bin", complete: false, size: 9_000_000 });
  await commands.hubHold(null);
  const first: number[] = [];
  const [path, same] = await Promise.all([
    downloadModel(bigName, { endpoint, onProgress: (done) => void first.push(done), onWarning: () => {} }),
    downloadModel(bigName, { endpoint, onWarning: () => {} }),
  ]);
  // Whichever of the two did the download: it began with what was here, or came when all was.
  expect(first[0]).toBeGreaterThanOrEqual(partial!.bytes);
  expect(first.at(-1)).toBe(9_000_000);
  expect(same).toBe(path);
  const digest = await crypto.subtle.digest("SHA-256", (await readBytes(path)) as Uint8Array<ArrayBuffer>);
  expect(Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("")).toBe(
    await commands.hubSum(),
  );
});

test("bytes that are not the file are never used", async () => {
  await commands.hubDamage();
  await expect(downloadModel(bigName, { endpoint })).rejects.toThrow("they are not the file: expected the sha256");
  expect(await storedModels()).toMatchObject([{ complete: false, bytes: 0 }]);
});

test("a model of several files is kept with all of them", async () => {
  const source = await checkLogits({ cache: true }, "hf:someone/some-rwkv/sharded");
  expect(source).toMatch(/sharded\/model\.safetensors\.index\.json$/);
  const files = (await storedModels()).map(({ file, complete }) => [file, complete]).sort();
  expect(files).toEqual([
    ["sharded/config.json", true],
    ["sharded/model-00001-of-00002.safetensors", true],
    ["sharded/model-00002-of-00002.safetensors", true],
    ["sharded/model.safetensors.index.json", true],
  ]);
});

test("a file by its URL is kept, too, with the tokenizer beside it", async () => {
  // As it is spelled it would be the model in the package, which needs no keeping.
  const url = new URL("../embedded/model.safetensors?kept", import.meta.url).href;
  for (let round = 0; round < 2; round++) {
    const model = await load(url, { cache: true, threads: 1 });
    expect(model.info.source).toMatch(/^rwkv-models:.*\/model\.safetensors$/);
    expect(model.tokenizer.encode("Once upon a time").length).toBeLessThan(10);
    await model.dispose();
  }
  expect((await storedModels()).map(({ repository, file }) => [repository, file]).sort()).toEqual([
    [url, "model.safetensors"],
    [url, "tokenizer.json"],
  ]);
  expect(await removeStoredModel(url)).toBeGreaterThan(5_000_000);
  expect(await storedModels()).toEqual([]);
});

test("files of the user are kept under a name of their own, and replaced", async () => {
  const fileAt = async (url: string) =>
    new File([(await readBytes(url)) as Uint8Array<ArrayBuffer>], url.slice(url.lastIndexOf("/") + 1));
  const shards = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
  const all = [...shards, "model.safetensors.index.json"].map((part) => fileAt(fixture(`odd-hugging-face/${part}`)));
  const progress: number[] = [];
  const stored = await storeModel(await Promise.all(all), { onProgress: (done, total) => progress.push(done / total) });
  expect([stored, progress.at(-1)]).toEqual(["local:model.safetensors.index.json", 1]);
  await checkLogits({}, stored);
  const odd = await fileAt(fixture("odd.pth"));
  const again = async () => storeModel([odd, new File(["{"], "tokenizer.json")]);
  expect([await again(), await again()]).toEqual(["local:odd.pth", "local:odd.pth"]);
  expect(await downloadModel("local:odd.pth")).toMatch(/^rwkv-models:\/local%3Aodd\.pth\/[\w-]+\/odd\.pth$/);
  // What was beside it is beside it here.
  await expect(load("local:odd.pth")).resolves.toHaveProperty("info.dtype", "f32");
  expect((await storedModels()).filter(({ repository }) => repository === "local:odd.pth")).toHaveLength(2);
  expect(await removeStoredModel("local:odd.pth")).toBe(odd.size + 1);
  await expect(load("local:odd.pth")).rejects.toThrow("local:odd.pth: not in this site's storage in the browser");
  const stop = new AbortController();
  const options = { signal: stop.signal, onProgress: () => stop.abort(new Error("enough")) };
  await expect(storeModel([odd, new File(["{"], "tokenizer.json")], options)).rejects.toThrow("enough");
  expect((await storedModels()).filter(({ repository }) => repository === "local:odd.pth")).toEqual([]);
  await expect(storeModel([])).rejects.toThrow("expected an array of files");
  await expect(storeModel([new File(["x"], "a.txt")])).rejects.toThrow("no model");
  await expect(storeModel([odd, new File(["x"], "b.pth")])).rejects.toThrow("several models");
});

/** Begins a download of big.bin, and ends it when some of it is here. @returns the bytes that are */
async function beginBig(of: string): Promise<number> {
  await commands.hubHold(6_000_000);
  const stop = new AbortController();
  const running = downloadModel(of, { signal: stop.signal });
  running.catch(() => {});
  await expect.poll(async () => (await storedModels())[0]?.bytes).toBeGreaterThan(0);
  stop.abort(new Error("enough"));
  await expect(running).rejects.toThrow("enough");
  await commands.hubHold(null);
  return (await storedModels())[0]!.bytes;
}

async function checkBig(path: string): Promise<void> {
  const digest = await crypto.subtle.digest("SHA-256", (await readBytes(path)) as Uint8Array<ArrayBuffer>);
  const hex = Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
  expect(hex).toBe(await commands.hubSum());
}

const bigUrl = () => `${endpoint}/someone/some-rwkv/resolve/main/big.bin`;

test("a file of a size that no browser has room for is refused at once, and nothing of it stays", async () => {
  await commands.hubStorage({ size: 9e15 });
  await expect(downloadModel(bigUrl())).rejects.toThrow("but the browser gives this site only");
  expect(await storedModels()).toEqual([]);
});

test("of a file whose version nothing tells, what was begun before is downloaded anew", async () => {
  await commands.hubStorage({ isReserved: true });
  await beginBig(bigUrl());
  await commands.hubChange();
  await checkBig(await downloadModel(bigUrl()));
});

test("a file by its URL goes on where its date is the same, and is downloaded anew where it is another", async () => {
  const lastModified = "Thu, 01 Jan 2026 00:00:00 GMT";
  await commands.hubStorage({ isReserved: true, lastModified });
  const here = await beginBig(bigUrl());
  const progress: number[] = [];
  await checkBig(await downloadModel(bigUrl(), { onProgress: (done) => void progress.push(done) }));
  expect(progress[0]).toBe(here);
  expect(await removeStoredModel(bigUrl())).toBe(9_000_000);
  await beginBig(bigUrl());
  await commands.hubChange();
  await commands.hubStorage({ isReserved: true, lastModified: "Fri, 02 Jan 2026 00:00:00 GMT" });
  await checkBig(await downloadModel(bigUrl()));
});

test("a part of another size than that asked for is no part of the file", async () => {
  await commands.hubStorage({ isReserved: true, isShort: true });
  await expect(downloadModel(bigUrl())).rejects.toThrow(
    "expected a part of 4194304 bytes, but the server has one of 5",
  );
});

test("what is being downloaded is not removed", async () => {
  await commands.hubHold(6_000_000);
  const running = downloadModel(bigName, { endpoint });
  running.catch(() => {});
  await expect.poll(async () => (await storedModels())[0]?.bytes).toBeGreaterThan(0);
  await expect(removeStoredModel(bigName)).rejects.toThrow(
    "big.bin: is being downloaded; it can be removed when that has ended",
  );
  await expect(removeStoredModel("hf:someone/some-rwkv")).rejects.toThrow("is being downloaded");
  await commands.hubHold(null);
  await checkBig(await running);
  expect(await removeStoredModel(bigName)).toBe(9_000_000);
});

test("of a file in two revisions the one that is named is removed", async () => {
  const old = "hf:someone/some-rwkv@refs/pr/1";
  for (const file of ["big.bin", "odd.pth"]) await downloadModel(`${old}/${file}`, { endpoint });
  await commands.hubChange();
  for (const file of ["big.bin", "odd.pth"]) await downloadModel(`hf:someone/some-rwkv/${file}`, { endpoint });
  const revisions = async () =>
    (await storedModels()).map(({ file, revisions }) => [file, ...revisions].join(" ")).sort();
  expect(await revisions()).toEqual(["big.bin main", "big.bin refs/pr/1", "odd.pth refs/pr/1 main"]);
  expect(await removeStoredModel(`${old}/big.bin`)).toBe(9_000_000);
  // What another revision stands for, too, stays as that.
  expect(await removeStoredModel(`${old}/odd.pth`)).toBe(0);
  expect(await removeStoredModel(`${old}/odd.pth`)).toBeUndefined();
  expect(await revisions()).toEqual(["big.bin main", "odd.pth main"]);
  expect(await removeStoredModel(bigName)).toBe(9_000_000);
});

test("a branch is the content that came last, and what it was before does not come back when that is removed", async () => {
  const at = "0123456789abcdef0123456789abcdef01234567";
  const revisions = async () =>
    (await storedModels()).map(({ file, revisions }) => [file, ...revisions].join(" ")).sort();
  await downloadModel(`hf:someone/some-rwkv@${at}/big.bin`, { endpoint });
  const first = await downloadModel(bigName, { endpoint });
  await commands.hubChange();
  const second = await downloadModel(bigName, { endpoint });
  expect(second).not.toBe(first);
  expect(await revisions()).toEqual([`big.bin ${at}`, "big.bin main"]);
  await commands.stopHub();
  // Without the hub, what it had last.
  expect(await downloadModel(bigName, { endpoint, onWarning: () => {} })).toBe(second);
  expect(await removeStoredModel(`${bigName.replace("/big", "@main/big")}`)).toBe(9_000_000);
  expect(await revisions()).toEqual([`big.bin ${at}`]);
});

test("of files that were being stored when their tab was closed nothing stays", async () => {
  const files = (fill: number) => [
    new File([new Uint8Array(5_000_000).fill(fill)], "m.pth"),
    new File(["{}"], "tokenizer.json"),
  ];
  await storeModel(files(1));
  const paths = async () => (await storedModels()).map(({ path }) => path);
  const before = await paths();
  const folders = async () => {
    const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("rwkv-models");
    let count = 0;
    for await (const _ of root.keys()) count++;
    return count;
  };
  expect(await folders()).toBe(2);
  // As if the tab were closed then: what was written is not taken back.
  const { removeEntry } = FileSystemDirectoryHandle.prototype;
  const stop = new AbortController();
  FileSystemDirectoryHandle.prototype.removeEntry = async () => Promise.reject(new Error("closed"));
  const onProgress = (done: number) => done > 4_000_000 && stop.abort(new Error("closed"));
  try {
    await expect(storeModel(files(2), { signal: stop.signal, onProgress })).rejects.toThrow("closed");
  } finally {
    FileSystemDirectoryHandle.prototype.removeEntry = removeEntry;
  }
  expect(await folders()).toBe(4);
  expect((await readBytes(await downloadModel("local:m.pth")))[0]).toBe(1);
  expect(await paths()).toEqual(before);
  expect(await folders()).toBe(2);
});

test("files of the user that are stored twice at once are those of the last, and the old stay until the new are there", async () => {
  const files = (fill: number) => [
    new File([new Uint8Array(5_000_000).fill(fill)], "m.pth"),
    new File(["{}"], "tokenizer.json"),
  ];
  const stored = async () => (await readBytes(await downloadModel("local:m.pth")))[0];
  const list = async () => (await storedModels()).map(({ file, complete }) => [file, complete]).sort();
  const whole = [
    ["m.pth", true],
    ["tokenizer.json", true],
  ];
  expect(await Promise.all([storeModel(files(1)), storeModel(files(2))])).toEqual(["local:m.pth", "local:m.pth"]);
  expect(await list()).toEqual(whole);
  await storeModel(files(3));
  const stop = new AbortController();
  const ended = storeModel(files(4), { signal: stop.signal, onProgress: () => stop.abort(new Error("enough")) });
  await expect(ended).rejects.toThrow("enough");
  expect([await stored(), await list()]).toEqual([3, whole]);
  const { estimate } = navigator.storage;
  navigator.storage.estimate = async () => ({ quota: 7_000_000, usage: 5_000_000 });
  try {
    await expect(storeModel(files(5))).rejects.toThrow(
      "m.pth: needs 6 MB, but the browser gives this site only 2 MB more",
    );
  } finally {
    navigator.storage.estimate = estimate;
  }
  expect([await stored(), await list()]).toEqual([3, whole]);
});

test("a URL that does not answer can be left, and what may not be read beside a model is not read", async () => {
  await commands.hubStorage({ isSilent: true });
  const stop = new AbortController();
  const running = downloadModel(bigUrl(), { signal: stop.signal });
  running.catch(() => {});
  await expect.poll(() => commands.hubAsked("HEAD")).toBeGreaterThan(1);
  stop.abort(new Error("enough"));
  await expect(running).rejects.toThrow("enough");
  await commands.hubStorage({});
  await commands.hubForbidTokenizer();
  const warnings: string[] = [];
  await checkBig(await downloadModel(bigUrl(), { onWarning: (line) => warnings.push(line) }));
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).toMatch(/tokenizer\.json.*403.*; the model is kept without it/);
});

test("a model is removed by its URL as it was spelled, and options that are none are refused", async () => {
  const { pathname } = new URL("../embedded/model.safetensors", import.meta.url);
  await downloadModel(`${pathname}?spelled`);
  expect(await removeStoredModel(`${pathname}?spelled`)).toBeGreaterThan(5_000_000);
  expect(await storedModels()).toEqual([]);
  await expect(removeStoredModel("models/none.pth")).resolves.toBeUndefined();
  await expect(modelUrl(name, null as never)).rejects.toThrow("options: expected an object");
});

test("the header of a model by name can be looked at before anything is downloaded", async () => {
  const url = await modelUrl(name, { endpoint });
  expect(url).toBe(`${endpoint}/someone/some-rwkv/resolve/main/odd.pth`);
  const checkpoint = await openCheckpoint(url);
  expect(checkpoint.format).toBe("pth");
  await checkpoint.close();
  expect(await modelUrl("hf:someone/some-rwkv/sharded", { endpoint })).toMatch(/model\.safetensors\.index\.json$/);
  await expect(modelUrl("nothing")).rejects.toThrow("the name of a model on the hub");
  expect(await storedModels()).toEqual([]);
});

test("errors say what was tried", async () => {
  await expect(load("hf:someone/some-rwkv/none.pth", { endpoint, cache: true })).rejects.toThrow(
    "no such file in this repository",
  );
  await expect(load("rwkv7-g1-9b", { endpoint })).rejects.toThrow("no model of this name");
  await expect(load("hf:x", { endpoint })).rejects.toThrow("expected hf:owner/repo/file");
  expect(knownModels.length).toBeGreaterThan(10);
});
