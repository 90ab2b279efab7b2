// The WebGPU backend over the larger models of the data folder beside the checkout, where it is there; in the long tests.

/// <reference types="vite/client" />

import { load } from "rwkv";
import { describe, expect, test } from "vitest";
import { maxDifference, readFloats, readJson } from "./environment.js";

const folder = import.meta.env["SHARED_DATA"] as string | undefined;
const data = (name: string) => new URL(`/@fs${folder}/${name}`, location.href).href;

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
    const model = await load(data(`models/${name}.pth`), { backend: "webgpu" });
    // Software takes a tenth of a second for a pass: two ways through the text must do.
    for (const pieces of [[tokens.length], [1, 1, 31, 1, 5, tokens.length]]) {
      const own = model.createState();
      const found: number[] = [];
      let at = 0;
      for (const piece of pieces) {
        const [rows] = await model.forward([{ state: own, tokens: tokens.slice(at, at + piece), logits: "all" }]);
        found.push(...rows!);
        at += piece;
      }
      expect(maxDifference(found, logits!), `in ${pieces.length}`).toBeLessThan(1e-3);
      const largest = Math.max(...state!.map(Math.abs));
      expect(maxDifference(await own.values(), state!) / largest, `in ${pieces.length}`).toBeLessThan(1e-3);
      await own.dispose();
    }
    await model.dispose();
  });

  // Rounding of activations to 8 bits falls one way or the other at ties, so that no closer figures can be asked for; the types
  // themselves are held to the plain form by page-webgpu-operations.test.ts.
  test.each(["rwkv7-Q8_0", "rwkv7-Q4_0", "rwkv7-Q4_K_M", "rwkv7-Q5_K_M", "rwkv7-Q6_K", "rwkv6-Q4_K_M"])(
    "%s",
    async (name) => {
      const tokens = (await readJson<number[]>(data("golden/synthetic.tokens.json"))).slice(0, 24);
      const run = async (backend: "webgpu" | "wasm") => {
        const model = await load(data(`gguf/${name}.gguf`), { backend });
        const [rows] = await model.forward([{ state: model.createState(), tokens, logits: "all" }]);
        await model.dispose();
        return rows!;
      };
      expect(maxDifference(await run("webgpu"), await run("wasm"))).toBeLessThan(0.1);
    },
  );
});
