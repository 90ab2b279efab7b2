// Views of tensors that do not lie in row-major order: transposed, permuted, every second element, repeated. They are read in pieces
// of the file, whatever their size.

import fc from "fast-check";
import { expect, test } from "vitest";
import type { StoredTensor } from "../src/checkpoints/checkpoint.js";
import { readTensorInto } from "../src/checkpoints/read-tensor.js";
import { bytesPerElement, type ElementType, elementCount } from "../src/dtypes.js";

/** A tensor over random bytes, and how often and how much was read of them. */
function viewed(dtype: ElementType, shape: readonly number[], strides: readonly number[], offset = 0) {
  const bytes = bytesPerElement[dtype];
  const span = shape.reduce((sum, size, i) => sum + (size - 1) * (strides[i] as number), 1);
  const stored = new Uint8Array(offset + span * bytes);
  for (let i = 0; i < stored.length; i++) stored[i] = (Math.imul(i, 2654435761) >>> 13) & 255;
  const reads: number[] = [];
  const source: StoredTensor["source"] = {
    name: "memory",
    size: stored.length,
    async readInto(at, target) {
      reads.push(target.byteLength);
      target.set(stored.subarray(at, at + target.byteLength));
    },
    async close() {},
  };
  const tensor: StoredTensor = { name: "x", dtype, shape, strides, source, offset };
  return { tensor, stored, reads };
}

/** Element by element. */
function plainly({ dtype, shape, strides, offset }: StoredTensor, stored: Uint8Array): Uint8Array {
  const bytes = bytesPerElement[dtype as ElementType];
  const result = new Uint8Array(elementCount(shape) * bytes);
  for (let i = 0; i * bytes < result.length; i++) {
    let rest = i;
    let from = 0;
    for (let d = shape.length - 1; d >= 0; d--) {
      const size = shape[d] as number;
      from += (rest % size) * (strides[d] as number);
      rest = Math.floor(rest / size);
    }
    for (let b = 0; b < bytes; b++) result[i * bytes + b] = stored[offset + from * bytes + b] as number;
  }
  return result;
}

async function read(tensor: StoredTensor, misalignment = 0): Promise<Uint8Array> {
  const size = elementCount(tensor.shape) * bytesPerElement[tensor.dtype as ElementType];
  const target = new Uint8Array(size + misalignment).subarray(misalignment);
  await readTensorInto(tensor, tensor.dtype as ElementType, target);
  return target;
}

/** Much faster than the comparison of `toEqual` for arrays of this size. */
function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

const dimension = fc.record({ size: fc.integer({ min: 1, max: 70 }), step: fc.integer({ min: 1, max: 3 }) });

test("any order and spacing of dimensions", async () => {
  const views = fc.record({
    dtype: fc.constantFrom<ElementType>("f64", "f32", "bf16", "u8"),
    dimensions: fc.array(dimension, { minLength: 1, maxLength: 4 }).filter((all) => {
      return all.reduce((product, { size, step }) => product * size * step, 1) < 2e5;
    }),
    order: fc.array(fc.nat(), { minLength: 4, maxLength: 4 }),
    repeats: fc.boolean(),
    offset: fc.integer({ min: 0, max: 9 }),
    misalignment: fc.integer({ min: 0, max: 3 }),
  });
  await fc.assert(
    fc.asyncProperty(views, async ({ dtype, dimensions, order, repeats, offset, misalignment }) => {
      let stride = 1;
      const spaced = dimensions.map(({ size, step }) => {
        const own = stride * step;
        stride = own * size;
        return { size, stride: own };
      });
      if (repeats && spaced[0]) spaced[0].stride = 0;
      const permuted = spaced.map((each, i) => ({ each, key: order[i] as number })).sort((a, b) => a.key - b.key);
      const shape = permuted.map(({ each }) => each.size);
      const strides = permuted.map(({ each }) => each.stride);
      const { tensor, stored } = viewed(dtype, shape, strides, offset);
      expect(sameBytes(await read(tensor, misalignment), plainly(tensor, stored))).toBe(true);
    }),
    { numRuns: 100 },
  );
});

test.each<[string, readonly number[], readonly number[]]>([
  ["a transposed matrix of several pieces", [160, 4000], [1, 160]],
  ["one of three columns", [3, 200_001], [1, 3]],
  ["a permuted stack", [40, 130, 110], [130, 1, 40 * 130]],
  ["every second row", [600, 700], [1400, 1]],
])("%s is read in large pieces", async (_, shape, strides) => {
  const { tensor, stored, reads } = viewed("bf16", shape, strides);
  expect(sameBytes(await read(tensor), plainly(tensor, stored))).toBe(true);
  // Twice as many as pieces of a MiB would be, for their ends.
  expect(reads.length).toBeLessThanOrEqual(2 * Math.ceil(stored.length / 2 ** 20));
  expect(Math.max(...reads)).toBeLessThanOrEqual(2 ** 20);
});
