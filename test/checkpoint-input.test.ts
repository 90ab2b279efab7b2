// What load takes: paths, URLs, bytes in every form; and what it says to anything else.

import { cp, mkdir, readFile, symlink } from "node:fs/promises";
import { basename, join } from "node:path";
import { pathToFileURL } from "node:url";
import { CheckpointError, type CheckpointInput, load, OptionError, openCheckpoint, readFloat32 } from "rwkv";
import { describe, expect, test } from "vitest";
import { fixture, temporaryFolder } from "./fixture-files.js";

const path = fixture("odd.pth");
const file = new Uint8Array(await readFile(path));
const buffer = file.slice().buffer;
const shared = new SharedArrayBuffer(file.length);
new Uint8Array(shared).set(file);
const padded = new Uint8Array(file.length + 13);
padded.set(file, 5);

async function logitsOf(input: CheckpointInput): Promise<number[]> {
  const model = await load(input, { backend: "reference" });
  const [logits] = await model.forward([{ state: model.createState(), tokens: [1, 2, 3] }]);
  const values = [...(logits as Float32Array)];
  await model.dispose();
  return values;
}

describe("a model is loaded from", () => {
  const inputs: Record<string, CheckpointInput> = {
    "a file: URL": pathToFileURL(path),
    "a file: URL as text": pathToFileURL(path).href,
    "an ArrayBuffer": buffer,
    "a SharedArrayBuffer": shared,
    "a view of shared memory": new Uint8Array(shared),
    "a part of a larger buffer": padded.subarray(5, 5 + file.length),
    "a DataView": new DataView(buffer),
    "a Blob": new Blob([file]),
    "a File": new File([file], "odd.pth"),
  };
  test.each(Object.entries(inputs))("%s", async (_, input) => {
    expect(await logitsOf(input)).toEqual(await logitsOf(path));
  });
});

test.each([
  ["a number", 123, "found 123"],
  ["null", null, "found null"],
  ["an object", { path }, "found an Object"],
  ["a promise that was not awaited", Promise.resolve(buffer), "found a Promise"],
  ["a response", new Response("x"), "found a Response"],
  ["nothing in quotes", "", 'found ""'],
  ["a function", () => path, "found "],
])("%s is no checkpoint, and the error says what is", async (_, input, found) => {
  for (const open of [load, openCheckpoint]) {
    const error = await open(input as never).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(OptionError);
    expect((error as Error).message).toContain("option input: expected the path or URL of a checkpoint, or its bytes");
    expect((error as Error).message).toContain(found);
  }
});

test("a URL of another kind is refused as an option", async () => {
  for (const url of ["ftp://127.0.0.1/model.pth", new URL("ftp://127.0.0.1/model.pth"), new URL("data:,x")]) {
    const error = await load(url).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(OptionError);
    expect((error as Error).message).toContain("a URL that begins with file:, http: or https:");
  }
});

test("a buffer that is transferred while it is read makes an error, not a crash", async () => {
  const own = file.slice().buffer;
  const loading = load(own);
  structuredClone(own, { transfer: [own] });
  await expect(loading).rejects.toThrow(
    new CheckpointError("bytes", "the buffer was transferred or resized while it was read"),
  );
});

test("a tensor that is read after its checkpoint was closed is an error that names the file", async () => {
  const checkpoint = await openCheckpoint(path);
  await checkpoint.close();
  await checkpoint.close();
  const reading = readFloat32(checkpoint.tensors.get("emb.weight")!);
  await expect(reading).rejects.toThrow(new CheckpointError(path, "was closed before it was read"));
});

describe("paths", () => {
  test("may have spaces, percent signs and any letters, and be symbolic links", async () => {
    const folder = join(await temporaryFolder(), "测试 Željko 100%");
    await mkdir(folder);
    const odd = join(folder, "RWKV-4-Raven-3B-v12-Eng49%-Chn49%-Jpn1%.pth");
    await cp(path, odd);
    const link = join(folder, "link.pth");
    await symlink(basename(odd), link);
    const expected = await logitsOf(path);
    for (const input of [odd, link, pathToFileURL(odd)]) {
      for (const backend of ["native", "wasm"] as const) {
        const model = await load(input, { backend, threads: 1 });
        expect(model.info.vocabulary).toBe(33);
        await model.dispose();
      }
      expect(await logitsOf(input)).toEqual(expected);
    }
  });

  test("that begin with ~ are not expanded, and the error says so", async () => {
    await expect(load("~/no-such-model.pth")).rejects.toThrow("~ was not expanded by the shell");
  });

  test("of a folder pass over hidden files and those of a training program", async () => {
    const folder = await temporaryFolder();
    await cp(path, join(folder, "rwkv.pth"));
    for (const name of ["._rwkv.pth", "optimizer.pt", "rng_state_0.pth", "training_args.bin"]) {
      await cp(fixture("tokens.json"), join(folder, name));
    }
    expect(await logitsOf(folder)).toEqual(await logitsOf(path));
  });
});
