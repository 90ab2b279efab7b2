// The WebGPU backend over the larger models of the data folder beside the checkout, where it is there; in the long tests.

/// <reference types="vite/client" />

import { describe, expect, test } from "vitest";
import { wasmBackend } from "#rwkv/backends/wasm/wasm";
import { maxDifference, readFloats, readJson } from "./environment.js";
import { withRuntime } from "./runtime-outputs.js";
import { webgpuOnSharedDevice } from "./webgpu-device.js";

const folder = import.meta.env["SHARED_DATA"] as string | undefined;
const data = (name: string) => new URL(`/@fs${folder}/${name}`, location.href).href;
/** On one device, since most of the time goes into compiling shaders, of which the models have most in common. */
const backend = webgpuOnSharedDevice();

if (!folder) console.info("skipped: no data folder beside the checkout, so no larger models on WebGPU");

describe.skipIf(!folder)("larger models", () => {
  test.each([
    ["synthetic-rwkv4-3x64", "golden/synthetic-rwkv4-3x64.json"],
    ...["5.0", "5.1", "5.2", "6", "7"].map((version) => [`synthetic-rwkv${version}`, "golden/synthetic.tokens.json"]),
  ] as [string, string][])("%s", async (name, file) => {
    const read = await readJson<number[] | { tokens: number[] }>(data(file));
    const tokens = Array.isArray(read) ? read : read.tokens;
    const [logits, state] = await Promise.all(
      ["logits", "state"].map((what) => readFloats(data(`golden/${name}.${what}.f32`))),
    );
    await withRuntime(data(`models/${name}.pth`), backend, { threads: 1 }, async (runtime) => {
      // Software takes a tenth of a second for a pass: two ways through the text must do.
      for (const pieces of [[], [1, 1, 31, 1, 5]]) {
        const own = runtime.createState();
        const found: number[] = [];
        for (let at = 0, i = 0; at < tokens.length; i++) {
          const piece = tokens.slice(at, at + (pieces[i] ?? runtime.maxTokens));
          found.push(...(await runtime.run([{ state: own, tokens: piece, logits: "all" }])).logits);
          at += piece.length;
        }
        expect(maxDifference(found, logits!), `first ${pieces}`).toBeLessThan(1e-3);
        const largest = Math.max(...state!.map(Math.abs));
        const difference = maxDifference(await runtime.readState(own), state!);
        expect(difference / largest, `first ${pieces}`).toBeLessThan(1e-3);
        own.release();
      }
    });
  });

  // Rounding of activations to 8 bits falls one way or the other at ties, so that no closer figures can be asked for; the types
  // themselves are held to the plain form by page-webgpu-operations.test.ts.
  test.each(["rwkv7-Q8_0", "rwkv7-Q4_0", "rwkv7-Q4_K_M", "rwkv7-Q5_K_M", "rwkv7-Q6_K", "rwkv6-Q4_K_M"])(
    "%s",
    async (name) => {
      const tokens = (await readJson<number[]>(data("golden/synthetic.tokens.json"))).slice(0, 24);
      const run = (from: typeof backend) =>
        withRuntime(data(`gguf/${name}.gguf`), from, { threads: 1 }, async (runtime) => {
          return (await runtime.run([{ state: runtime.createState(), tokens, logits: "all" }])).logits.slice();
        });
      expect(maxDifference(await run(backend), await run(wasmBackend))).toBeLessThan(0.1);
    },
  );
});
