// The kernels of reductions over heads by themselves, against plain loops in float64, over odd sizes and threads.

import { describe, expect, test } from "vitest";
import type { KernelMachine } from "#rwkv/backends/kernel/kernel-machine";
import { SingleRecord } from "#rwkv/backends/kernel/single-record";
import { maxDifference } from "./environment.js";
import { floatsOf, trainingMachines } from "./kernel-machines.js";

const epsilon = 64e-5;

/** Rows, heads, channels of a head. */
const shapes = [
  [1, 1, 1],
  [1, 12, 64],
  [3, 5, 16],
  [2, 3, 31],
  [7, 2, 100],
  [1, 3, 128],
  [40, 4, 48],
  [5, 9, 3],
] as const;

function plainSum(x: ArrayLike<number>, size: number): number[] {
  return Array.from({ length: x.length / size }, (_, h) => {
    let sum = 0;
    for (let c = 0; c < size; c++) sum += x[h * size + c]!;
    return sum;
  });
}

const meansOf = (x: ArrayLike<number>, size: number) => plainSum(x, size).map((sum) => sum / size);

/** Each head's channels around their mean, over the root of their variance, and one over that root. */
function normalized(x: ArrayLike<number>, size: number): { normal: number[]; scale: (i: number) => number } {
  const means = meansOf(x, size);
  const around = Array.from(x, (value, i) => value - means[Math.floor(i / size)]!);
  const scales = meansOf(
    around.map((value) => value * value),
    size,
  ).map((v) => 1 / Math.sqrt(v + epsilon));
  const scale = (i: number) => scales[Math.floor(i / size)]!;
  return { normal: around.map((value, i) => value * scale(i)), scale };
}

function plainNormGradient(x: ArrayLike<number>, gradient: ArrayLike<number>, size: number): number[] {
  const { normal, scale } = normalized(x, size);
  const mean = meansOf(gradient, size);
  const slope = meansOf(
    normal.map((value, i) => value * gradient[i]!),
    size,
  );
  const head = (i: number) => Math.floor(i / size);
  return normal.map((value, i) => scale(i) * (gradient[i]! - mean[head(i)]! - value * slope[head(i)]!));
}

describe.each(trainingMachines)("$label", ({ create }) => {
  test.each(shapes)("%i rows of %i heads of %i channels", async (rows, heads, size) => {
    const machine = await create();
    const width = heads * size;
    // A large mean, so that a variance that is computed as a difference of squares would be seen.
    const x = Float32Array.from({ length: rows * width }, (_, i) => 20 + Math.sin(i * i) * (1 + (i % 3)));
    const gradient = Float32Array.from(x, (_, i) => Math.cos(3 * i));
    const run = runnerOf(machine, rows, width);
    const attributes = [{ count: heads }, { number: epsilon }];
    const sums = await run("headSum", [x], heads, attributes.slice(0, 1));
    const exactSums = plainSum(x, size);
    expect(maxDifference(sums, exactSums)).toBeLessThan(1e-6 * Math.max(...exactSums.map(Math.abs)));
    const norms = await run("headNorm", [x], width, attributes);
    expect(maxDifference(norms, normalized(x, size).normal)).toBeLessThan(4e-5);
    const gradients = await run("headNormGradient", [x, gradient], width, attributes);
    const exactGradients = plainNormGradient(x, gradient, size);
    expect(maxDifference(gradients, exactGradients)).toBeLessThan(4e-5 * Math.max(1, ...exactGradients.map(Math.abs)));
    // In place, shared as neighbours share channels, and each row alone, to the bit.
    const beside = runnerOf(machine, rows, width, "never");
    expect(await beside("headSum", [x], heads, attributes.slice(0, 1))).toEqual(sums);
    expect(await beside("headNorm", [x], width, attributes)).toEqual(norms);
    expect(await beside("headNormGradient", [x, gradient], width, attributes)).toEqual(gradients);
    expect(await run("headNorm", [x], width, attributes, true)).toEqual(norms);
    expect(await run("headNormGradient", [x, gradient], width, attributes, true)).toEqual(gradients);
    const alone = runnerOf(machine, 1, width);
    for (let t = 0; t < rows; t++) {
      const row = (all: Float32Array, n: number) => all.subarray(t * n, (t + 1) * n);
      expect(await alone("headSum", [row(x, width)], heads, attributes.slice(0, 1))).toEqual(row(sums, heads));
      expect(await alone("headNorm", [row(x, width)], width, attributes)).toEqual(row(norms, width));
    }
    await machine.dispose();
  });
});

/** Runs kernels over rows; in place, the result takes the last operand's. */
function runnerOf(machine: KernelMachine, rows: number, width: number, barrierAfter: "always" | "never" = "always") {
  const record = new SingleRecord(machine);
  const blocks = [0, 1, 2].map(() => machine.allocate(4 * rows * width));
  return async (
    kernel: string,
    operands: readonly Float32Array[],
    outputWidth: number,
    attributes: readonly ({ count: number } | { number: number })[],
    inPlace = false,
  ): Promise<Float32Array> => {
    operands.forEach((values, i) => void floatsOf(blocks[i]!).set(values));
    const output = blocks[inPlace ? operands.length - 1 : 2]!;
    await record.run({
      kernel,
      barrierAfter,
      rows,
      width: outputWidth,
      inputRows: rows,
      inputs: width,
      attributes,
      addresses: [...operands.map((_, i) => blocks[i]!.address), output.address],
    });
    return floatsOf(output).slice(0, rows * outputWidth);
  };
}
