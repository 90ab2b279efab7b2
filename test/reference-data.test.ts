// Larger reference models and full tokenizers, where the data folder is there.

import { type BackendName, load, openTokenizer } from "rwkv";
import { describe, expect, test } from "vitest";
import { hasSharedData, maxDifference, readFloats, readJson, sharedData } from "./fixture-files.js";
import { some } from "./thorough.js";

if (!hasSharedData) console.info("skipped: no data folder beside the checkout, so no larger reference models");

const setups = (["reference", "native", "wasm"] as const).flatMap((backend: BackendName) =>
  (backend === "reference" ? [1] : [1, 2]).map((threads) => ({ backend, threads })),
);

describe.skipIf(!hasSharedData)("reference data", () => {
  test.each(setups)("synthetic-rwkv4-3x64 on $backend, $threads thread(s)", async ({ backend, threads }) => {
    const { tokens } = readJson<{ tokens: number[] }>(sharedData("golden/synthetic-rwkv4-3x64.json"));
    const model = await load(sharedData("models/synthetic-rwkv4-3x64.pth"), { backend, threads });
    for (const chunk of [1, 5, 31, 48]) {
      const state = model.createState();
      const logits: number[] = [];
      for (let at = 0; at < tokens.length; at += chunk) {
        const [rows] = await model.forward([{ state, tokens: tokens.slice(at, at + chunk), logits: "all" }]);
        logits.push(...(rows as Float32Array));
      }
      expect(maxDifference(logits, readFloats(sharedData("golden/synthetic-rwkv4-3x64.logits.f32")))).toBeLessThan(
        2e-4,
      );
      expect(
        maxDifference(await state.values(), readFloats(sharedData("golden/synthetic-rwkv4-3x64.state.f32"))),
      ).toBeLessThan(2e-4);
    }
    await model.dispose();
  });

  const versions = ["5.0", "5.1", "5.2", "6", "7"].entries();
  test.each([...versions].flatMap(([number, version]) => some(setups, number).map((setup) => ({ version, ...setup }))))(
    "synthetic-rwkv$version on $backend, $threads thread(s)",
    async ({ version, backend, threads }) => {
      const tokens = readJson<number[]>(sharedData("golden/synthetic.tokens.json"));
      const expectedLogits = readFloats(sharedData(`golden/synthetic-rwkv${version}.logits.f32`));
      const expectedState = readFloats(sharedData(`golden/synthetic-rwkv${version}.state.f32`));
      const model = await load(sharedData(`models/synthetic-rwkv${version}.pth`), { backend, threads });
      // The plain forms take a token at a time in any case.
      for (const chunk of backend === "reference" ? [31] : [1, 5, 31, 64, 130]) {
        const state = model.createState();
        const logits: number[] = [];
        for (let at = 0; at < tokens.length; at += chunk) {
          const [rows] = await model.forward([{ state, tokens: tokens.slice(at, at + chunk), logits: "all" }]);
          logits.push(...(rows as Float32Array));
        }
        expect(maxDifference(logits, expectedLogits)).toBeLessThan(2e-4);
        const largest = Math.max(...expectedState.map(Math.abs));
        expect(maxDifference(await state.values(), expectedState) / largest).toBeLessThan(1e-3);
      }
      await model.dispose();
    },
  );

  test.each(setups)("tiny-rwkv4-660k on $backend, $threads thread(s)", async ({ backend, threads }) => {
    const model = await load(sharedData("models/tiny-rwkv4-660k.pth"), { backend, threads });
    const tokens = model.tokenizer.encode('"in');
    const [logits] = await model.forward([{ state: model.createState(), tokens }]);
    expect(maxDifference(logits!, readFloats(sharedData("golden/tiny-rwkv4-660k.logits.f32")))).toBeLessThan(1e-4);
    await model.dispose();
  });

  test.each(["20B_tokenizer.json", "rwkv_vocab_v20230424.txt"])("%s gives the expected ids", async (name) => {
    const tokenizer = await openTokenizer(sharedData(`tokenizers/${name}`));
    const vectors = readJson<{ text: string; ids: number[] }[]>(
      sharedData(`tokenizers/${name.replace(/\.\w+$/, "")}.vectors.json`),
    );
    expect(vectors.length).toBeGreaterThan(20);
    for (const { text, ids } of vectors) {
      expect(tokenizer.encode(text)).toEqual(ids);
      expect(tokenizer.decode(ids)).toBe(text);
    }
  });
});
