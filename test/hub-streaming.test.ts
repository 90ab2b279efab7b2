// Models by name that are loaded while they are downloaded: the hub holds back some of a file until the test has seen that what came before
// was placed. What was made of bytes counts only when they are the file's.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type LoadOptions, load, type Model, storedModels, writePth, writeSafetensors } from "rwkv";
import { afterAll, beforeAll, beforeEach, expect, onTestFinished, test } from "vitest";
import { embeddedTokenizer } from "#platform/files";
import { syntheticCheckpoint } from "#rwkv/bench/synthetic-checkpoint";
import { bytesSource } from "#rwkv/byte-source";
import { tensorPieces } from "#rwkv/checkpoints/read-tensor";
import { readZipDirectory } from "#rwkv/checkpoints/zip-directory";
import { rwkv7 } from "#rwkv/models/rwkv7";
import { alignedZip } from "./aligned-zip.js";
import { rwkv } from "./command.js";
import { freshHome, hubWith } from "./hub-home.js";
import { etagOf, type HubServer, repository } from "./hub-server.js";
import { isThorough } from "./thorough.js";

const mebibyte = 2 ** 20;
const tokens = [3, 1, 4, 1, 5, 9, 2, 6, 299, 0];
let home: string;
beforeEach(async () => {
  home = await freshHome();
});

/** One model of 8 MB in each format; in GGUF, whose blocks are laid out anew, of half of that. */
const formats = ["pth", "safetensors", "gguf"] as const;
const files = {} as Record<(typeof formats)[number], Buffer>;
let folder: string;
const pathOf = (name: string) => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rwkv-test-"));
  const size = rwkv7.newSize({ layers: 6, width: 192, vocabulary: 2048 });
  const { tensors } = syntheticCheckpoint({ name: "synthetic", definition: rwkv7, size }, "bf16");
  const written = [...tensors.values()].map((tensor) => ({
    name: tensor.name,
    dtype: "bf16" as const,
    shape: tensor.shape,
    bytes: () => tensorPieces(tensor, "bf16"),
  }));
  await writePth(pathOf("model.pth"), written);
  await writeSafetensors(pathOf("model.safetensors"), written);
  const { code, stderr } = await rwkv(["convert", pathOf("model.pth"), pathOf("model.gguf"), "--dtype", "Q8_0"]);
  expect(stderr + code).toMatch(/0$/);
  for (const format of formats) files[format] = await readFile(pathOf(`model.${format}`));
});
afterAll(() => rm(folder, { recursive: true }));

const nameOf = (format: string) => `hf:${repository}/model.${format}`;
const blobsOf = () => join(home, "hub", `models--${repository.replace("/", "--")}`, "blobs");

async function logitsOf(model: Model): Promise<Float32Array> {
  const [logits] = await model.forward([{ state: model.createState(), tokens, logits: "all" }]);
  return logits as Float32Array;
}

/** What a model by path computes. */
async function expectedLogits(path: string, options: LoadOptions): Promise<Float32Array> {
  const model = await load(path, { ...options, onWarning: () => {} });
  try {
    return await logitsOf(model);
  } finally {
    await model.dispose();
  }
}

/** Loads a model by name, and ends it when the test ends. */
function beginLoad(name: string, options: LoadOptions = {}) {
  const progress = { share: 0, isSettled: false };
  const onProgress = (done: number, total: number) => {
    progress.share = done / total;
  };
  const loading = load(name, { onWarning: () => {}, ...options, onProgress });
  const settled = () => {
    progress.isSettled = true;
  };
  loading.then(settled, settled);
  onTestFinished(async () => (await loading.catch(() => undefined))?.dispose());
  return { loading, progress };
}

/** Holds back a MiB before the last chunk of a file, so that its end, where a .pth has its directory, comes. */
function holdBack(hub: HubServer, { length }: Uint8Array): void {
  hub.heldTo = Math.floor((length - 1) / mebibyte) * mebibyte;
  hub.heldFrom = hub.heldTo - mebibyte;
}
function letGo(hub: HubServer): void {
  hub.heldFrom = Number.POSITIVE_INFINITY;
}

/** The download alone is one half: past that, weights were placed while some of the file was held back. */
const whilePlacing = (progress: { share: number }) =>
  expect.poll(() => progress.share, { interval: 5 }).toBeGreaterThan(0.55);

const ways: readonly LoadOptions[] = [
  { backend: "wasm", threads: 2 },
  { backend: "native", dtype: "q8" },
  { backend: "native", dtype: "f32" },
];

// Each format in one way, and by the long tests in all.
const pairs = formats.flatMap((format, i) => {
  return ways.filter((_, j) => isThorough || i === j).map((options) => [format, options] as const);
});
test.each(pairs)(
  "a %s is placed while it comes, and is the same as from its whole file: %j",
  async (format, options) => {
    const bytes = files[format];
    const hub = await hubWith({ [`model.${format}`]: bytes });
    holdBack(hub, bytes);
    const { loading, progress } = beginLoad(nameOf(format), options);
    await whilePlacing(progress);
    expect(await storedModels()).toMatchObject([{ complete: false }]);
    expect(progress.isSettled).toBe(false);
    letGo(hub);
    const model = await loading;
    expect(progress.share).toBe(1);
    expect(hub.sent()).toBe(bytes.length);
    expect(await logitsOf(model)).toEqual(await expectedLogits(pathOf(`model.${format}`), options));
    expect(model.info.source).toBe((await storedModels())[0]!.path);
    expect(readdirSync(blobsOf())).toEqual([etagOf(bytes)]);
  },
);

test.runIf(existsSync("/proc/self/maps"))("what is mapped of a whole file is mapped of one that has come", async () => {
  await hubWith({ "model.safetensors": files.safetensors });
  const mapped = () => readFileSync("/proc/self/maps", "utf8").includes(etagOf(files.safetensors));
  const model = await load(nameOf("safetensors"), { backend: "native", onWarning: () => {} });
  expect(mapped()).toBe(true);
  expect(await logitsOf(model)).toEqual(await expectedLogits(pathOf("model.safetensors"), { backend: "native" }));
  await model.dispose();
  expect(mapped()).toBe(false);
});

test("a connection that is cut is gone on with, and a storage without ranges will do", async () => {
  const hub = await hubWith({ "model.pth": files.pth, "model.safetensors": files.safetensors });
  let cut = 0;
  hub.onStorage = ({ headers }, response) => {
    const [first, last] = /(\d+)-(\d+)/
      .exec(headers.range as string)!
      .slice(1)
      .map(Number) as [number, number];
    if (first === 0 || cut > 2 || last - first < 200_000) return false;
    cut++;
    response.writeHead(206, { "content-range": `bytes ${first}-${last}/${files.pth.length}` });
    response.write(files.pth.subarray(first, first + 100_000), () => response.destroy());
    return true;
  };
  const options = { backend: "wasm", threads: 1 } as const;
  expect(await logitsOf(await beginLoad(nameOf("pth"), options).loading)).toEqual(
    await expectedLogits(pathOf("model.pth"), options),
  );
  expect(cut).toBe(3);
  hub.onStorage = undefined;
  hub.ranges = false;
  hub.heldFrom = 6 * mebibyte;
  const { loading, progress } = beginLoad(nameOf("safetensors"), options);
  await whilePlacing(progress);
  letGo(hub);
  expect(await logitsOf(await loading)).toEqual(await expectedLogits(pathOf("model.safetensors"), options));
});

/** The same file with another value in its last tensor. */
function damaged(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const changed = new Uint8Array(bytes);
  changed[changed.length - 100]! ^= 1;
  return changed;
}

test("bytes that are not the file are no model, and do not stay", async () => {
  const sent = damaged(files.safetensors);
  const hub = await hubWith({ "damaged.safetensors": sent });
  const told = { "x-repo-commit": hub.commit, "x-linked-etag": `"${etagOf(files.safetensors)}"` };
  hub.onHub = ({ method }, response) =>
    method === "HEAD" && !!response.writeHead(200, { ...told, "x-linked-size": sent.length }).end();
  hub.heldFrom = sent.length - 10;

  const { loading, progress } = beginLoad(`hf:${repository}/damaged.safetensors`, { dtype: "q8" });
  await whilePlacing(progress);
  letGo(hub);
  await expect(loading).rejects.toThrow(
    `they are not the file: expected the sha256 ${etagOf(files.safetensors)}, found ${etagOf(sent)}`,
  );
  expect(await storedModels()).toMatchObject([{ complete: false, bytes: 0 }]);
});

/** Begins to load a model, and ends that when some of the file is here. @returns the path of its bytes */
async function beginAndEnd(hub: HubServer, name: string, bytes: Uint8Array): Promise<string> {
  holdBack(hub, bytes);
  const stop = new AbortController();
  const { loading, progress } = beginLoad(name, { backend: "wasm", threads: 1, signal: stop.signal });
  await whilePlacing(progress);
  stop.abort(new Error("enough"));
  await expect(loading).rejects.toThrow(/^enough$/);
  letGo(hub);
  return join(blobsOf(), `${etagOf(bytes)}.rwkv.incomplete`);
}

test("a load that is aborted leaves what has come, and the next one goes on with it", async () => {
  const hub = await hubWith({ "model.pth": files.pth });
  await beginAndEnd(hub, nameOf("pth"), files.pth);
  expect((await storedModels())[0]!.bytes).toBeGreaterThan(4 * mebibyte);
  const sent = hub.sent();
  await beginLoad(nameOf("pth")).loading;
  // Of the part that was held back what had come of its chunk comes twice.
  expect(hub.sent() - sent).toBeLessThanOrEqual(4 * mebibyte);
  expect(readdirSync(blobsOf())).toEqual([etagOf(files.pth)]);
});

test("what was here before and is not the file is downloaded anew, and the model is that of the right bytes", async () => {
  const hub = await hubWith({ "model.safetensors": files.safetensors });
  const path = await beginAndEnd(hub, nameOf("safetensors"), files.safetensors);
  const here = await readFile(path);
  await writeFile(
    path,
    here.map((byte, i) => (i > 2 * mebibyte && i < 2.5 * mebibyte ? byte ^ 1 : byte)),
  );
  const options = { backend: "native", dtype: "q8" } as const;
  const model = await beginLoad(nameOf("safetensors"), options).loading;
  expect(await logitsOf(model)).toEqual(await expectedLogits(pathOf("model.safetensors"), options));
  expect(Buffer.compare(await readFile(model.info.source), files.safetensors)).toBe(0);
});

test("two loads at once are one download", async () => {
  const hub = await hubWith({ "model.pth": files.pth });
  holdBack(hub, files.pth);
  const warnings: string[] = [];
  const first = beginLoad(nameOf("pth"), { dtype: "q8" });
  await whilePlacing(first.progress);
  const second = beginLoad(nameOf("pth"), { dtype: "q8", onWarning: (line) => warnings.push(line) });
  await expect.poll(() => warnings.join()).toContain("another download of it is under way");
  letGo(hub);
  const [one, other] = await Promise.all([first.loading, second.loading]);
  expect(hub.sent()).toBe(files.pth.length);
  expect(await logitsOf(one)).toEqual(await logitsOf(other));
});

test("commands load a model while it is downloaded, and tell what is wrong with their options before it has come", async () => {
  const hub = await hubWith({ "model.pth": files.pth });
  holdBack(hub, files.pth);
  const command = (...args: string[]) =>
    rwkv(["generate", "x", "--model", nameOf("pth"), "--max-tokens", "3", ...args]);
  const refused = await command("--tokenizer", "nothing.json");
  expect(refused.code).toBe(1);
  expect(refused.stderr).toMatch(/^downloading model\.pth: 7\.7 MB.*\nerror: .*nothing\.json/);
  const options = ["--tokenizer", embeddedTokenizer, "--dtype", "q8", "--trials", "1", "--seed", "1"];
  letGo(hub);
  const downloaded = await command(...options);
  expect(downloaded.code).toBe(0);
  expect(downloaded.stderr).toMatch(/^downloading model\.pth: 7\.7 MB, of which .* are here\n/);
  expect(downloaded.stdout).not.toBe("");
  expect(downloaded.stdout).toBe((await command(...options)).stdout);
});

test("a process that is killed while it loads loses little, and what it leaves is gone on with", async () => {
  const hub = await hubWith({ "model.pth": files.pth });
  holdBack(hub, files.pth);
  const script = `
    import { load } from "rwkv";
    await load(process.argv[1], { backend: "wasm", onProgress: (done, total) => done / total > 0.55 && console.log("placed") });
  `;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", script, nameOf("pth")], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout, "data");
  child.kill("SIGKILL");
  await once(child, "close");
  expect((await storedModels())[0]!.bytes).toBeGreaterThan(4 * mebibyte);
  letGo(hub);
  const options = { backend: "wasm", threads: 1 } as const;
  const model = await beginLoad(nameOf("pth"), options).loading;
  expect(await logitsOf(model)).toEqual(await expectedLogits(pathOf("model.pth"), options));
});

test("what is wrong with options is told at once; what is wrong with a file, when it is known to be the file", async () => {
  const other = new Uint8Array(4 * mebibyte).fill(7);
  const hub = await hubWith({ "model.safetensors": files.safetensors, "other.pth": other });
  hub.heldFrom = 5 * mebibyte;
  await expect(load(nameOf("safetensors"), { tokenizer: "nothing.json" })).rejects.toThrow("nothing.json");
  expect(await storedModels()).toMatchObject([{ file: "model.safetensors", complete: false }]);
  hub.heldFrom = 3 * mebibyte;
  const { loading, progress } = beginLoad(`hf:${repository}/other.pth`);
  await expect.poll(async () => (await storedModels()).at(-1)?.bytes).toBeGreaterThanOrEqual(mebibyte);
  expect(progress.isSettled).toBe(false);
  letGo(hub);
  await expect(loading).rejects.toThrow(/other\.pth: neither a PyTorch/);
  expect((await storedModels()).filter(({ complete }) => complete)).toMatchObject([{ file: "other.pth" }]);
});

// Behind an entry there may be anything, so where it is computed to be it need not be.
test.each([8, 64])(
  "a .pth that is laid out in another way loads all the same: %i bytes behind an entry",
  async (gap) => {
    const entries = await readZipDirectory(bytesSource("model.pth", files.pth));
    const all = [...entries.values()].map(({ name, offset, size }) => ({
      name,
      bytes: files.pth.subarray(offset, offset + size),
      gap: name.endsWith("/data/40") ? gap : 0,
    }));
    const bytes = alignedZip(all);
    const path = pathOf(`gap-${gap}.pth`);
    await writeFile(path, bytes);
    await hubWith({ "gap.pth": bytes });
    for (const options of [{ backend: "native" }, { backend: "wasm", threads: 1 }] as const) {
      await rm(join(home, "hub"), { recursive: true, force: true });
      const model = await beginLoad(`hf:${repository}/gap.pth`, options).loading;
      expect(await logitsOf(model)).toEqual(await expectedLogits(pathOf("model.pth"), options));
    }
  },
);
