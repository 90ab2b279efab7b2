// The benchmark gives every figure; how large they are is the machine's business, and no test's.

import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { fixture } from "../fixture-files.js";

const program = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));

async function bench(...args: string[]): Promise<string> {
  return (await promisify(execFile)(process.execPath, [program, "bench", "--rounds", "1", ...args])).stdout;
}

test("a synthetic shape on two backends, as JSON", async () => {
  const measurements = JSON.parse(
    await bench("--shape", "4:2x33x101", "--backend", "native,wasm", "--dtype", "f32", "--threads", "2", "--json"),
  );
  expect(measurements.map((m: { backend: string }) => m.backend)).toEqual(["native", "wasm"]);
  for (const m of measurements) {
    expect(m).toMatchObject({ model: "4:2x33x101", dtype: "f32", threads: 2 });
    // Five square matrices and two of the hidden width a layer, the head, one row of the embedding.
    expect(m.weight_bytes_per_token).toBe(4 * (2 * (5 * 33 * 33 + 2 * 33 * 132) + 33 * 101));
    const figures = [
      "decode_tok_s",
      "generate_tok_s",
      "prefill_tok_s",
      "batch8_tok_s",
      "generate8_tok_s",
      "decode_p50_ms",
      "decode_p90_ms",
      "decode_p99_ms",
      "load_ms",
      "first_token_ms",
      "rss_mb",
      "read_gb_s",
      "peak_gflops",
      "decode_of_limit",
      "prefill_of_peak",
    ];
    for (const figure of figures) expect(m[figure], figure).toBeGreaterThan(0);
    expect(m.decode_p50_ms).toBeLessThanOrEqual(m.decode_p90_ms);
    expect(m.decode_p90_ms).toBeLessThanOrEqual(m.decode_p99_ms);
    expect(m.batches.map((batch: { sequences: number }) => batch.sequences)).toEqual([2, 4, 8, 16, 32]);
    for (const batch of m.batches) {
      expect(batch.of_bound).toBeGreaterThan(0);
      expect(batch.of_bound).toBeCloseTo(batch.tok_s / batch.bound_tok_s, 10);
    }
    expect(m.batches[2].tok_s).toBe(m.batch8_tok_s);
  }
});

test("a checkpoint, as a table", async () => {
  const table = await bench("--model", fixture("odd-bf16.pth"));
  for (const row of [
    "bf16, native",
    "decode",
    "generate",
    "prefill (512)",
    "a token",
    "batch of 8",
    "8 generations",
    "load",
    "memory",
  ])
    expect(table).toContain(row);
});

test("weights in blocks count with their scales, the head of q4 with 8 bits", async () => {
  const [m] = JSON.parse(await bench("--shape", "4:1x64x96", "--dtype", "q4", "--rounds", "1", "--json"));
  expect(m).toMatchObject({ dtype: "q4", backend: "native" });
  expect(m.weight_bytes_per_token).toBe((18 / 32) * (5 * 64 * 64 + 2 * 64 * 256) + (34 / 32) * 64 * 96);
  expect(m.decode_tok_s).toBeGreaterThan(0);
}, 60_000);

test("training on two backends, as JSON and as a table", async () => {
  const shape = ["--train", "--shape", "4:2x24x60", "--batch", "3", "--context", "20", "--backend", "native,wasm"];
  const measurements = JSON.parse(await bench(...shape, "--json"));
  expect(measurements.map((m: { backend: string }) => m.backend)).toEqual(["native", "wasm"]);
  for (const m of measurements) {
    expect(m).toMatchObject({ model: "4:2x24x60", batch: 3, context: 20 });
    for (const figure of ["train_tok_s", "train_gflops", "peak_gflops", "train_of_peak", "memory_mb", "rss_mb"])
      expect(m[figure], figure).toBeGreaterThan(0);
    expect(m.train_gflops / m.train_tok_s).toBeCloseTo((6 * (2 * 13 * 24 * 24 + 24 * 60)) / 1e9, 10);
  }
  expect(await bench(...shape)).toMatch(/training 4:2x24x60, 3 x 20 tokens, native[\s\S]*tokens\/s[\s\S]*wasm/);
});

test("another version, by the shape and by an option", async () => {
  const [run] = JSON.parse(await bench("--shape", "7:1x64x300", "--dtype", "f32", "--json"));
  expect(run.model).toBe("7:1x64x300");
  // Four square matrices, two of the hidden width, three pairs of small ones of rank 32, the head.
  expect(run.weight_bytes_per_token).toBe(4 * (4 * 64 * 64 + 2 * 64 * 256 + 3 * 2 * 64 * 32 + 64 * 300));
  const training = ["--train", "--version", "7", "--shape", "1x64x300", "--batch", "2", "--context", "20", "--json"];
  const [trained] = JSON.parse(await bench(...training));
  expect(trained.model).toBe("7:1x64x300");
  expect(trained.train_tok_s).toBeGreaterThan(0);
});

test("shapes and names that cannot be are refused", async () => {
  await expect(bench("--shape", "2x33")).rejects.toThrow("expected layers x width x vocabulary");
  await expect(bench("--shape", "3:2x33x101")).rejects.toThrow(
    "perhaps after a version (4, 5.0, 5.1, 5.2, 6, 7) and a colon",
  );
  await expect(bench("--shape", "7:2x33x101")).rejects.toThrow("a multiple of 8");
  await expect(bench("--dtype", "q9")).rejects.toThrow("expected f32, f16, bf16, q8, q4, found q9");
  await expect(bench("--model", fixture("odd.pth"), "--shape", "1x8x8")).rejects.toThrow("cannot be used with");
});

test("a server under load, beside the same texts by the library and a server of Node alone", async () => {
  const script = fileURLToPath(new URL("../../bench/server-load.mjs", import.meta.url));
  const options = ["--shape", "7:1x64x65536", "--tokens", "4", "--rounds", "1", "--seconds", "1"];
  const { stdout } = await promisify(execFile)(process.execPath, [script, ...options]);
  expect(stdout).toMatch(/8 streams are [\d.]+ x one/);
  expect(stdout).toMatch(/8 stream\(s\) over HTTP: .*a server of Node alone .* % of the time of a token more/);
  expect(stdout.match(/, 0 failed; p50/g)).toHaveLength(3);
  expect(stdout).not.toContain("NOT equal");
});
