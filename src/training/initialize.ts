// The weights that training from nothing begins with: those of RWKV-LM v4 (https://github.com/BlinkDL/RWKV-LM, RWKV-v4/src/model.py:
// RWKV_Init, RWKV_TimeMix, RWKV_ChannelMix). Attention and gates begin as nothing, so that a layer first passes its
// input on; decays are spread so that channels remember for different times.

import { bytesSource } from "../byte-source.js";
import { contiguousStrides, type StoredTensor } from "../checkpoints/checkpoint.js";
import { elementCount } from "../dtypes.js";
import type { WeightNode } from "../graph/graph.js";
import { uninterrupted } from "../interruptible.js";
import type { ModelSize } from "../models/model-definition.js";
import type { RandomGenerator } from "../sampling/random.js";

export interface InitializationOptions {
  readonly size: ModelSize;
  /** Embeddings are uniform in plus or minus this: RWKV-LM takes the learning rate, so that the first steps change all of it. */
  readonly embeddingRange: number;
  readonly random: RandomGenerator;
}

/** The first values of every weight, by name. */
export function initializeRwkv4(
  weights: readonly WeightNode[],
  options: InitializationOptions,
): Map<string, StoredTensor> {
  return uninterrupted(rwkv4Initialization(weights, options));
}

/** The same in steps; with matrices of many thousand rows it takes a while. */
export function* rwkv4Initialization(
  weights: readonly WeightNode[],
  options: InitializationOptions,
): Generator<void, Map<string, StoredTensor>, void> {
  const tensors = new Map<string, StoredTensor>();
  for (const { name, shape } of weights) {
    tensors.set(name, storedTensor(name, shape, yield* initialValues(name, shape, options)));
    yield;
  }
  return tensors;
}

/** A tensor in memory. */
export function storedTensor(name: string, shape: readonly number[], values: Float32Array): StoredTensor {
  const source = bytesSource(name, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  return { name, dtype: "f32", shape, strides: contiguousStrides(shape), source, offset: 0 };
}

function* initialValues(
  name: string,
  shape: readonly number[],
  options: InitializationOptions,
): Generator<void, Float32Array, void> {
  const { size, embeddingRange, random } = options;
  const values = new Float32Array(elementCount(shape));
  const [, layerText, part = name] = /^blocks\.(\d+)\.(.*)$/.exec(name) ?? [];
  const layer = Number(layerText ?? 0);
  const depth = size.layers > 1 ? layer / (size.layers - 1) : 0; // 0 in the first layer, 1 in the last
  const shallow = 1 - layer / size.layers; // 1 in the first layer, nearly 0 in the last
  const width = shape[0] as number;
  const byChannel = (value: (channel: number) => number) => {
    for (let c = 0; c < values.length; c++) values[c] = value(c);
  };
  switch (part) {
    case "emb.weight":
      byChannel(() => (2 * random.uniform() - 1) * embeddingRange);
      break;
    case "att.time_decay":
      byChannel((c) => -5 + 8 * (c / Math.max(1, width - 1)) ** (0.7 + 1.3 * depth));
      break;
    case "att.time_first":
      byChannel((c) => Math.log(0.3) + 0.5 * (((c + 1) % 3) - 1));
      break;
    case "att.time_mix_k":
    case "ffn.time_mix_k":
    case "ffn.time_mix_r":
      byChannel((c) => (c / width) ** shallow);
      break;
    case "att.time_mix_v":
      byChannel((c) => (c / width) ** shallow + 0.3 * depth);
      break;
    case "att.time_mix_r":
      byChannel((c) => (c / width) ** (shallow / 2));
      break;
    case "att.key.weight":
    case "att.receptance.weight":
    case "att.output.weight":
    case "ffn.value.weight":
    case "ffn.receptance.weight":
      break;
    case "att.value.weight":
    case "ffn.key.weight":
    case "head.weight": {
      const [rows, columns] = shape as [number, number];
      const gain = Math.sqrt(Math.max(1, rows / columns)) * (part === "head.weight" ? 0.5 : 1);
      yield* orthogonal(values, rows, columns, gain, random);
      break;
    }
    default:
      // Norms: weights 1, biases 0.
      if (part.endsWith(".weight")) values.fill(1);
  }
  return values;
}

/**
 * A matrix whose shorter side is orthonormal times `gain` (Saxe et al., arXiv 1312.6120): normally distributed vectors, made
 * orthogonal by the Gram-Schmidt process. Such vectors are far enough from dependent that float64 does it in one go.
 */
function* orthogonal(
  values: Float32Array,
  rows: number,
  columns: number,
  gain: number,
  random: RandomGenerator,
): Generator<void, void, void> {
  const count = Math.min(rows, columns);
  const length = Math.max(rows, columns);
  const basis = new Float64Array(count * length);
  for (let v = 0; v < count; v++) {
    const vector = basis.subarray(v * length, (v + 1) * length);
    for (let i = 0; i < length; i++) vector[i] = normal(random);
    const sum = new Float64Array(length);
    for (let other = 0; other < v; other++) addScaled(sum, basis, other * length, dot(vector, basis, other * length));
    for (let i = 0; i < length; i++) vector[i] = (vector[i] as number) - (sum[i] as number);
    const scale = 1 / Math.sqrt(dot(vector, vector, 0));
    for (let i = 0; i < length; i++) vector[i] = (vector[i] as number) * scale;
    yield;
  }
  for (let v = 0; v < count; v++) {
    for (let i = 0; i < length; i++) {
      values[rows >= columns ? i * columns + v : v * columns + i] = gain * (basis[v * length + i] as number);
    }
  }
}

/** The product with the vector that starts at `at`, in four sums that do not wait for each other. */
function dot(vector: Float64Array, others: Float64Array, at: number): number {
  const sums: [number, number, number, number] = [0, 0, 0, 0];
  let i = 0;
  for (; i + 3 < vector.length; i += 4) {
    sums[0] += (vector[i] as number) * (others[at + i] as number);
    sums[1] += (vector[i + 1] as number) * (others[at + i + 1] as number);
    sums[2] += (vector[i + 2] as number) * (others[at + i + 2] as number);
    sums[3] += (vector[i + 3] as number) * (others[at + i + 3] as number);
  }
  for (; i < vector.length; i++) sums[0] += (vector[i] as number) * (others[at + i] as number);
  return sums[0] + sums[1] + (sums[2] + sums[3]);
}

function addScaled(sum: Float64Array, others: Float64Array, at: number, factor: number): void {
  for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + factor * (others[at + i] as number);
}

/** A standard normal number (Box and Muller, 1958). */
export function normal(random: RandomGenerator): number {
  return Math.sqrt(-2 * Math.log(1 - random.uniform())) * Math.cos(2 * Math.PI * random.uniform());
}
