// Weights to ggml's Q4_K, Q5_K and Q6_K, row by row, for files that are written once. As llama.cpp's quantizers do, it
// tries several scales for each part of a block and keeps the one with the least squared error; here each is then
// chosen by least squares, and the integers are taken anew for the scales as they are after rounding.
//
// Layouts: ggml-super-blocks.ts and ggml-common.h in llama.cpp. Values: Q4_K, Q5_K: d * scale * q - dmin * least, in eight
// parts of 32; Q6_K: d * scale * q, in sixteen of 16.

import { float16Bits, float16Value } from "../dtypes.js";
import { superBlockInputs } from "./super-blocks.js";

/** Types of files that are quantized here. */
export type QuantizedSuperBlock = "Q4_K" | "Q5_K" | "Q6_K";

const blockBytes: Readonly<Record<QuantizedSuperBlock, number>> = { Q4_K: 144, Q5_K: 176, Q6_K: 210 };
/** Where a block's scale d is. */
const scaleAt: Readonly<Record<QuantizedSuperBlock, number>> = { Q4_K: 0, Q5_K: 0, Q6_K: 208 };
/** Bits of binary16. */
const notANumber = 0x7e00;
const [part, parts] = [32, 8];
const [smallPart, smallParts] = [16, 16];
/** The largest of the six bits of a part's scale and of its least value. */
const largestSmall = 63;

/** Whether a type is one of these. */
export function isQuantizedSuperBlock(dtype: string): dtype is QuantizedSuperBlock {
  return Object.hasOwn(blockBytes, dtype);
}

/**
 * Quantizes rows.
 *
 * @param values [rows, inputs]; inputs a multiple of 256. A block with a value that is not finite gets the scale NaN, so that
 *   it is not lost, and not taken for a number
 * @returns the rows' blocks, one after the other
 */
export function quantizeSuperBlocks(values: Float32Array, dtype: QuantizedSuperBlock): Uint8Array {
  const size = blockBytes[dtype];
  const blocks = new Uint8Array((values.length / superBlockInputs) * size);
  for (let from = 0, at = 0; from < values.length; from += superBlockInputs, at += size) {
    const x = values.subarray(from, from + superBlockInputs);
    const block = blocks.subarray(at, at + size);
    if (!x.every(Number.isFinite)) new DataView(blocks.buffer).setUint16(at + scaleAt[dtype], notANumber, true);
    else if (dtype === "Q6_K") quantizeSymmetric(x, block);
    else quantizeAffine(x, block, dtype === "Q4_K" ? 15 : 31);
  }
  return blocks;
}

interface Affine {
  readonly scale: number;
  /** What is subtracted, at least 0. */
  readonly least: number;
}

/** @param most the largest integer: 15 for Q4_K, 31 for Q5_K */
function quantizeAffine(x: Float32Array, block: Uint8Array, most: number): void {
  const fits: Affine[] = [];
  for (let j = 0; j < parts; j++) fits.push(affineFit(x.subarray(j * part, (j + 1) * part), most));
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  const d = halfFor(view, 0, Math.max(...fits.map(({ scale }) => scale)) / largestSmall);
  const m = halfFor(view, 2, Math.max(...fits.map(({ least }) => least)) / largestSmall);
  const upper = most === 31 ? 16 : undefined;
  const quants = upper === undefined ? 16 : 48;
  for (let j = 0; j < parts; j++) {
    const [small, smallLeast] = roundedFit(x.subarray(j * part, (j + 1) * part), fits[j] as Affine, d, m, most);
    putSmall(block, j, small, smallLeast);
    const [unit, offset] = [d * small, m * smallLeast];
    for (let i = 0; i < part; i++) {
      const q = unit === 0 ? 0 : clamp(Math.round(((x[j * part + i] as number) + offset) / unit), 0, most);
      const byte = quants + Math.floor(j / 2) * part + i;
      block[byte] = (block[byte] as number) | ((q & 15) << (4 * (j % 2)));
      if (upper !== undefined) block[upper + i] = (block[upper + i] as number) | ((q >> 4) << j);
    }
  }
}

/** Of the six-bit numbers around a fit the two with the least squared error, which rounding each by itself need not give. */
function roundedFit(x: Float32Array, { scale, least }: Affine, d: number, m: number, most: number): [number, number] {
  const [nearScale, nearLeast] = [smallNumber(scale, d), smallNumber(least, m)];
  let best: [number, number] = [nearScale, nearLeast];
  let leastError = Number.POSITIVE_INFINITY;
  for (let small = Math.max(0, nearScale - 1); small <= Math.min(largestSmall, nearScale + 1); small++) {
    const unit = d * small;
    const inverse = unit === 0 ? 0 : 1 / unit;
    for (let other = Math.max(0, nearLeast - 1); other <= Math.min(largestSmall, nearLeast + 1); other++) {
      const offset = m * other;
      let error = 0;
      for (let i = 0; i < x.length; i++) {
        const value = (x[i] as number) + offset;
        const steps = value * inverse + 0.5;
        const q = steps < 0 ? 0 : steps > most ? most : steps | 0;
        const difference = value - unit * q;
        error += difference * difference;
      }
      if (error < leastError) [best, leastError] = [[small, other], error];
    }
  }
  return best;
}

/** Six bits of a scale and six of a least value, as twelve bytes hold those of eight parts. */
function putSmall(block: Uint8Array, j: number, scale: number, least: number): void {
  const at = 4;
  if (j < 4) {
    block[at + j] = (block[at + j] as number) | scale;
    block[at + j + 4] = (block[at + j + 4] as number) | least;
  } else {
    block[at + j + 4] = (scale & 15) | ((least & 15) << 4);
    block[at + j - 4] = (block[at + j - 4] as number) | ((scale >> 4) << 6);
    block[at + j] = (block[at + j] as number) | ((least >> 4) << 6);
  }
}

const affineCandidates = 16;

/** scale * q - least, with q from 0 to `most`, near x. */
function affineFit(x: Float32Array, most: number): Affine {
  let low = 0;
  let high = x[0] as number;
  let sum = 0;
  for (const value of x) {
    if (value < low) low = value;
    if (value > high) high = value;
    sum += value;
  }
  if (high <= low) return { scale: 0, least: -low };
  let best: Affine = { scale: (high - low) / most, least: -low };
  let bestGain = Number.NEGATIVE_INFINITY;
  for (let candidate = 0; candidate < affineCandidates; candidate++) {
    // From a step that is a little too large, for all in the range, to one that cuts off its ends.
    const inverse = (most - 0.9 + 0.12 * candidate) / (high - low);
    let [sumQ, squares, product] = [0, 0, 0];
    for (let i = 0; i < x.length; i++) {
      const value = x[i] as number;
      const steps = (value - low) * inverse + 0.5;
      const q = steps > most ? most : steps | 0;
      sumQ += q;
      squares += q * q;
      product += q * value;
    }
    const determinant = squares * x.length - sumQ * sumQ;
    if (determinant <= 0) continue;
    let scale = (product * x.length - sumQ * sum) / determinant;
    let offset = (squares * sum - sumQ * product) / determinant;
    if (offset > 0) {
      offset = 0;
      scale = product / squares;
    }
    if (scale <= 0) continue;
    // What the sum of squared errors is less than that of x itself.
    const gain =
      2 * (scale * product + offset * sum) -
      (scale * scale * squares + 2 * scale * offset * sumQ + offset * offset * x.length);
    if (gain > bestGain) {
      bestGain = gain;
      best = { scale, least: -offset };
    }
  }
  return best;
}

/** Q6_K: 128 bytes of lower four bits, 64 of upper two, 16 scales of 8 bits, d. */
function quantizeSymmetric(x: Float32Array, block: Uint8Array): void {
  const scales: number[] = [];
  for (let j = 0; j < smallParts; j++) scales.push(symmetricScale(x.subarray(j * smallPart, (j + 1) * smallPart)));
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  const extreme = scales.reduce((most, scale) => (Math.abs(scale) > Math.abs(most) ? scale : most), 0);
  const d = halfFor(view, scaleAt.Q6_K, extreme / -128);
  for (let j = 0; j < smallParts; j++) {
    const small = d === 0 ? 0 : clamp(Math.round((scales[j] as number) / d), -128, 127);
    view.setInt8(192 + j, small);
    const unit = d * small;
    for (let i = 0; i < smallPart; i++) {
      const at = j * smallPart + i;
      const q = (unit === 0 ? 0 : clamp(Math.round((x[at] as number) / unit), -32, 31)) + 32;
      const [half, within] = [Math.floor(at / 128), at % 128];
      const lower = 64 * half + (within % 64);
      block[lower] = (block[lower] as number) | ((q & 15) << (4 * Math.floor(within / 64)));
      const upper = 128 + 32 * half + (within % 32);
      block[upper] = (block[upper] as number) | ((q >> 4) << (2 * Math.floor(within / 32)));
    }
  }
}

const symmetricCandidates = 12;

/** The scale, of either sign, whose multiples by -32 to 31 are nearest to x. */
function symmetricScale(x: Float32Array): number {
  let extreme = 0;
  for (const value of x) if (Math.abs(value) > Math.abs(extreme)) extreme = value;
  if (extreme === 0) return 0;
  let [best, bestGain] = [extreme / -32, Number.NEGATIVE_INFINITY];
  for (let candidate = 0; candidate < symmetricCandidates; candidate++) {
    const inverse = -(30.5 + 0.25 * candidate) / extreme;
    let [squares, product] = [0, 0];
    for (let i = 0; i < x.length; i++) {
      const value = x[i] as number;
      const q = clamp(Math.round(value * inverse), -32, 31);
      squares += q * q;
      product += q * value;
    }
    const gain = squares > 0 ? (product * product) / squares : 0;
    if (gain > bestGain) [best, bestGain] = [product / squares, gain];
  }
  return best;
}

/** Writes a scale in binary16. @returns what was written; past its range, its largest number */
function halfFor(view: DataView, at: number, value: number): number {
  const bits = float16Bits(value);
  const held = (bits & 0x7fff) === 0x7c00 ? (bits & 0x8000) | 0x7bff : bits;
  view.setUint16(at, held, true);
  return float16Value(held);
}

function smallNumber(value: number, unit: number): number {
  return unit === 0 ? 0 : clamp(Math.round(value / unit), 0, largestSmall);
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, value));
}
