// The versions whose state is a matrix for each head: logits, states and gradients against PyTorch, over backends, types, pieces and
// company; what states begin with; the names of other libraries.

import { load, openCheckpoint, readFloat32 } from "rwkv";
import { describe, expect, test } from "vitest";
import { matrixTypes } from "#rwkv/backends/placement";
import { referenceBackend } from "#rwkv/backends/reference/reference";
import { bindModel } from "#rwkv/models/versions";
import { fastest, fixture, kernels, maxDifference, readFloats, readJson } from "./environment.js";
import { outputsOf, withRuntime } from "./runtime-outputs.js";

const versions = ["5.0", "5.1", "5.2", "6"] as const;
const [layers, width, heads] = [2, 21, 3];
const everyone = [{ label: "reference", backend: referenceBackend, threads: 1 }, ...kernels];

const fileOf = (version: string) => fixture(`rwkv${version}.pth`);

describe.each(versions)("version %s", async (version) => {
  const path = fileOf(version);
  const { rows } = await readJson<{ rows: number[][] }>(fixture(`rwkv${version}.gradients.json`));
  const tokens = rows[0]!;

  test("logits and state are PyTorch's, in pieces of any length", async () => {
    const logits = await readFloats(fixture(`rwkv${version}.logits.f32`));
    const state = await readFloats(fixture(`rwkv${version}.state.f32`));
    for (const { label, backend, threads } of everyone) {
      await withRuntime(path, backend, { threads }, async (runtime) => {
        for (const chunk of [1, 5, 37]) {
          const found = await outputsOf(runtime, tokens, chunk);
          expect(maxDifference(found.slice(0, logits.length), logits), `${label}, ${chunk}`).toBeLessThan(2e-5);
          expect(maxDifference(found.slice(logits.length), state), `${label}, ${chunk}`).toBeLessThan(2e-5);
        }
      });
    }
  });

  test("results are the same to the bit in any pieces, any company, and for any number of threads", async () => {
    for (const { label, backend } of kernels) {
      let expected: number[] | undefined;
      for (const threads of [1, 2, 3]) {
        await withRuntime(path, backend, { threads, dtype: "bf16" }, async (runtime) => {
          expected ??= await outputsOf(runtime, tokens, 1);
          expect(await outputsOf(runtime, tokens, 7), `${label}, ${threads} threads`).toEqual(expected);
          expect(await outputsOf(runtime, tokens, 37, [1, 2, 3]), `${label}, ${threads} threads`).toEqual(expected);
        });
      }
    }
  });

  test.each(["bf16", "f16", "q8", "q4"] as const)("%s: kernels give what the plain form gives", async (dtype) => {
    const expected = await withRuntime(path, referenceBackend, { threads: 1, dtype }, (runtime) =>
      outputsOf(runtime, tokens, 37),
    );
    for (const { label, backend, threads } of kernels) {
      const found = await withRuntime(path, backend, { threads, dtype }, (runtime) => outputsOf(runtime, tokens, 37));
      expect(maxDifference(found, expected), label).toBeLessThan(2e-4);
    }
  });

  test("sizes are read from shapes, and small matrices are not quantized", async () => {
    const model = await load(path, { backend: fastest });
    expect(model.info).toMatchObject({ version, layers, width, hidden: 34, vocabulary: 29, dimensions: { heads } });
    expect(await model.createState().values()).toHaveLength(layers * (width + width * (width / heads) + width));
    await model.dispose();
    const checkpoint = await openCheckpoint(path);
    const { graph, tensors } = bindModel(checkpoint);
    const types = [...matrixTypes(graph, tensors, "q4")].map(([{ name }, type]) => [name, type] as const);
    expect(
      types.filter(([name]) => /_w[12]/.test(name) || name === "emb.weight").map(([, type]) => type),
    ).not.toContain("q4");
    expect(Object.fromEntries(types)).toMatchObject({ "blocks.1.att.key.weight": "q4", "head.weight": "q8" });
    await checkpoint.close();
  });
});

test("states begin with what the checkpoint says, its rows and columns exchanged", async () => {
  const path = fileOf("5.2");
  const checkpoint = await openCheckpoint(path);
  const size = width / heads;
  const model = await load(path, { backend: fastest });
  const found = await model.createState().values();
  for (let layer = 0; layer < layers; layer++) {
    const stored = await readFloat32(checkpoint.tensors.get(`blocks.${layer}.att.time_state`)!);
    const start = layer * (2 * width + width * size);
    const matrix = found.slice(start + width, start + width + width * size);
    expect(found.slice(start, start + width)).toEqual(new Float32Array(width));
    matrix.forEach((value, i) => {
      const [head, key, column] = [Math.floor(i / size ** 2), Math.floor(i / size) % size, i % size];
      expect(value).toBe(stored[head * size ** 2 + column * size + key]);
    });
  }
  await model.dispose();
  await checkpoint.close();
});
