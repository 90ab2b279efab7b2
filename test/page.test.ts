// The package in a page: run by vitest's browser project, in Chromium.

import { load, openCheckpoint, openTokenizer, writePth } from "rwkv";
import { expect, test } from "vitest";
import { fileSource } from "#platform/files";
import { hasRelaxedSimd } from "#rwkv/backends/wasm/compiled-kernels";
import { fixture, maxDifference, readFloats, readJson } from "./environment.js";

const { tokens } = await readJson<{ tokens: number[] }>(fixture("tokens.json"));

test("the page may share memory, and has relaxed SIMD: both builds are tested", () => {
  expect(globalThis.crossOriginIsolated).toBe(true);
  expect(hasRelaxedSimd()).toBe(true);
});

test("the embedded model loads from where the package is served, and writes words", async () => {
  const model = await load();
  expect(model.info).toMatchObject({ backend: "wasm", version: "4", vocabulary: 2048 });
  const options = { maxTokens: 60, seed: 7, temperature: 0.5 };
  const text = await model.generate("Once upon a time there was a", options).text();
  expect(text).toMatch(/ (the|and|was|had|to) /);
  expect(await model.generate("Once upon a time there was a", options).text()).toBe(text);
  await model.dispose();
});

test("the World vocabulary in the package is found from where the package is served", async () => {
  const tokenizer = await openTokenizer("world");
  expect(tokenizer.encode("Hello, world")).toEqual([33155, 45, 40213]);
  expect(tokenizer.decode([33155, 45, 40213])).toBe("Hello, world");
});

test.each(["q8", "q4"] as const)("weights are quantized in the page: %s", async (dtype) => {
  const model = await load(fixture("odd.pth"), { dtype });
  const reference = await load(fixture("odd.pth"), { dtype, backend: "reference" });
  const [a, b] = await Promise.all(
    [model, reference].map((m) => m.forward([{ state: m.createState(), tokens, logits: "all" }])),
  );
  expect(model.info.dtype).toBe(dtype);
  expect(maxDifference(a![0]!, b![0]!)).toBeLessThan(2e-3);
  await model.dispose();
});

test("a model takes several memories, one after the other", async () => {
  const model = await load(fixture("odd.pth"), { strategy: "wasm *1 -> wasm", threads: 1 });
  expect(model.info).toMatchObject({ backend: "wasm", strategy: "wasm *1 -> wasm *1" });
  const [logits] = await model.forward([{ state: model.createState(), tokens, logits: "all" }]);
  expect(maxDifference(logits!, await readFloats(fixture("odd.logits.f32")))).toBeLessThan(2e-5);
  await model.dispose();
});

test("a file that the user picked, and bytes, are as good as a URL", async () => {
  const bytes = new Uint8Array(await (await fetch(fixture("odd-bf16.pth"))).arrayBuffer());
  const expected = await readFloats(fixture("odd-bf16.logits.f32"));
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
  shared.set(bytes);
  const url = fixture("odd-bf16.pth");
  const frame = document.body.appendChild(document.createElement("iframe"));
  const { URL: UrlOfFrame, ArrayBuffer: BufferOfFrame } = frame.contentWindow as unknown as typeof globalThis;
  const ofFrame = new BufferOfFrame(bytes.length);
  new Uint8Array(ofFrame).set(bytes);
  const whole = [new File([bytes], "odd.pth"), new Blob([bytes]), bytes, bytes.buffer, shared, shared.buffer, ofFrame];
  for (const input of [...whole, url, new URL(url), new UrlOfFrame(url)]) {
    const model = await load(input);
    const [logits] = await model.forward([{ state: model.createState(), tokens, logits: "all" }]);
    expect(maxDifference(logits!, expected)).toBeLessThan(2e-5);
    await model.dispose();
  }
  frame.remove();
});

test("a file that was damaged on its way is refused", async () => {
  const bytes = new Uint8Array(await (await fetch(fixture("odd.pth"))).arrayBuffer());
  const checkpoint = await openCheckpoint(bytes);
  bytes[checkpoint.tensors.get("head.weight")!.offset + 82]! ^= 1;
  await expect(load(bytes)).rejects.toThrow("tensor head.weight: its bytes do not match their checksum");
});

test("a large file is read by ranges", async () => {
  const url = `${location.origin}/node_modules/@yowasp/clang/gen/llvm.core.wasm`;
  const source = await fileSource(url);
  expect(source.size).toBeGreaterThan(8 * 2 ** 20);
  const parts = [0, 5, 12].map((offset) => ({ offset, bytes: new Uint8Array(10) }));
  await Promise.all(parts.map(({ offset, bytes }) => source.readInto(offset, bytes)));
  expect(new TextDecoder().decode(parts[0]!.bytes.subarray(0, 4))).toBe("\0asm");
  expect(parts[0]!.bytes.subarray(5)).toEqual(parts[1]!.bytes.subarray(0, 5));
  expect(parts[1]!.bytes.subarray(7)).toEqual(parts[2]!.bytes.subarray(0, 3));
  await expect(source.readInto(source.size - 5, new Uint8Array(10))).rejects.toThrow("truncated or damaged");
});

test("blob: URLs and data: URLs, beside which nothing lies", async () => {
  const bytes = new Uint8Array(await (await fetch(fixture("odd.pth"))).arrayBuffer());
  const expected = await readFloats(fixture("odd.logits.f32"));
  const blob = URL.createObjectURL(new Blob([bytes]));
  const data = `data:application/octet-stream;base64,${btoa(Array.from(bytes, (b) => String.fromCharCode(b)).join(""))}`;
  for (const url of [blob, data, new URL(blob)]) {
    const model = await load(url);
    const [logits] = await model.forward([{ state: model.createState(), tokens, logits: "all" }]);
    expect(maxDifference(logits!, expected)).toBeLessThan(2e-5);
    expect(() => model.tokenizer).toThrow("no tokenizer");
    await model.dispose();
  }
  URL.revokeObjectURL(blob);
  await expect(load(blob)).rejects.toThrow("cannot be fetched");
});

test("a tokenizer that the user picked is as good as one on a server", async () => {
  const tokenizer = await (await fetch(new URL("../embedded/tokenizer.json", import.meta.url))).blob();
  const weights = await (await fetch(new URL("../embedded/model.safetensors", import.meta.url))).blob();
  const url = URL.createObjectURL(tokenizer);
  const model = await load(weights, { tokenizer: url });
  expect(model.tokenizer.vocabularySize).toBe(2048);
  await model.dispose();
  URL.revokeObjectURL(url);
  await expect(load(weights, { tokenizer: url })).rejects.toThrow("no such file");
});

test("a URL with a query is cut where its path ends", async () => {
  const embedded = new URL("../embedded/model.safetensors?download=true&sig=a/b", import.meta.url).href;
  const model = await load(embedded);
  expect(model.tokenizer.vocabularySize).toBe(2048);
  await model.dispose();
  const folder = await load(new URL("/embedded/", location.href));
  expect(folder.tokenizer.vocabularySize).toBe(2048);
  await folder.dispose();
});

test("what a page cannot do is an error that says so", async () => {
  await expect(load(fixture("odd.pth"), { backend: "native" })).rejects.toThrow("native backend cannot run in a page");
  const strategy = "wasm *1 -> native";
  await expect(load(fixture("odd.pth"), { strategy })).rejects.toThrow("native backend cannot run in a page");
  await expect(load(fixture("odd.pth"), { backend: "webgpu" })).rejects.toThrow(
    /webgpu backend: (no adapter|.*no WebGPU)/,
  );
  await expect(openCheckpoint(fixture("no-such-file.pth"))).rejects.toThrow(/no such file|neither a PyTorch/);
  await expect(openTokenizer(fixture("no-such-tokenizer.json"))).rejects.toThrow("no such file");
  await expect(writePth("model.pth", [])).rejects.toThrow("model.pth: a page cannot write files");
  const damaged = new Blob(["PK\x03\x04 and nothing else"]);
  await expect(load(damaged)).rejects.toThrow("blob: zip archive without its end record");
  const model = await load(new Blob([await (await fetch(fixture("odd.pth"))).arrayBuffer()]));
  expect(() => model.tokenizer).toThrow("no tokenizer");
  await model.dispose();
});
