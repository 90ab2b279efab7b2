// Matrices in blocks of integers with a scale: the numbers of ggml's Q8_0 and Q4_0, laid out as kernels/quantized.h says. This
// is the plain form that kernels/quantize_weights.c is tested against; both choose the same integers and scales, to the bit.

import { float16Bits, float16Value } from "../dtypes.js";
import type { BlockFormat } from "./block-format.js";

/** The number of the layout, which files state. A change of the order of bytes takes the next, so that no file is misread. */
export const blockLayout = 1;

/** Types whose blocks have one scale each. */
export type OneScaleType = "q8" | "q4";

/** Inputs of a block, which share a scale. */
export const blockInputs = 32;
/** Outputs whose bytes lie side by side. */
export const groupOutputs = 16;
const pairInputs = 2 * blockInputs;
/** Bytes of the scales of two blocks of a group. */
const scaleBytes = 2 * groupOutputs * 2;
/** Bytes of one block of a group, without scales. */
const blockBytes: Readonly<Record<OneScaleType, number>> = {
  q8: groupOutputs * blockInputs,
  q4: (groupOutputs * blockInputs) / 2,
};

/** Pairs of blocks that rows of `inputs` take. */
function pairsOf(inputs: number): number {
  return Math.ceil(inputs / pairInputs);
}

/** Bytes of a group: `groupOutputs` rows of `inputs`. */
export function groupSize(dtype: OneScaleType, inputs: number): number {
  return pairsOf(inputs) * (scaleBytes + 2 * blockBytes[dtype]);
}

/** Floats that a row of x takes when it is quantized: integers, scales and sums of its half blocks. */
export function quantizedRowWidth(inputs: number): number {
  return pairsOf(inputs) * (pairInputs / 4 + 2 + 4);
}

/** Where in a group the parts of one weight are. */
export function placeOf(dtype: OneScaleType, row: number, input: number) {
  const block = Math.floor(input / blockInputs);
  const pair = (block >> 1) * (scaleBytes + 2 * blockBytes[dtype]);
  const within = input % blockInputs;
  const i = dtype === "q4" ? within % (blockInputs / 2) : within;
  const byte = Math.floor(i / 4) * groupOutputs * 4 + row * 4 + (i % 4);
  return {
    scale: pair + ((block & 1) * groupOutputs + row) * 2,
    quant: pair + scaleBytes + (block & 1) * blockBytes[dtype] + byte,
    upper: within >= blockInputs / 2,
  };
}

/**
 * Quantizes up to `groupOutputs` rows.
 *
 * @param values [rows, inputs], rows from 1 to 16
 * @returns a group; missing rows are zeros
 */
export function quantizeGroup(values: Float32Array, inputs: number, dtype: OneScaleType): Uint8Array {
  const group = new Uint8Array(groupSize(dtype, inputs));
  const view = new DataView(group.buffer);
  const rows = values.length / inputs;
  for (let row = 0; row < groupOutputs; row++) {
    for (let from = 0; from < pairsOf(inputs) * pairInputs; from += blockInputs) {
      const block = new Float32Array(blockInputs);
      if (row < rows)
        block.set(values.subarray(row * inputs + from, row * inputs + Math.min(inputs, from + blockInputs)));
      const { scale, quants } = dtype === "q8" ? quantizeQ8(block) : quantizeQ4(block);
      quants.forEach((quant, i) => {
        const place = placeOf(dtype, row, from + i);
        if (i === 0) view.setUint16(place.scale, scale, true);
        if (dtype === "q8") view.setInt8(place.quant, quant);
        else group[place.quant] = (group[place.quant] as number) | ((quant + 8) << (place.upper ? 4 : 0));
      });
    }
  }
  return group;
}

/**
 * The weights of a group.
 *
 * @param group of `groupSize(dtype, inputs)` bytes
 * @param target [rows, inputs], rows from 1 to 16
 */
export function dequantizeGroup(group: Uint8Array, inputs: number, dtype: OneScaleType, target: Float32Array): void {
  const view = new DataView(group.buffer, group.byteOffset, group.byteLength);
  const rows = target.length / inputs;
  for (let row = 0; row < rows; row++) {
    for (let input = 0; input < inputs; input++) {
      const place = placeOf(dtype, row, input);
      const byte = group[place.quant] as number;
      const quant = dtype === "q8" ? view.getInt8(place.quant) : (place.upper ? byte >> 4 : byte & 15) - 8;
      target[row * inputs + input] = quant * float16Value(view.getUint16(place.scale, true));
    }
  }
}

/** A block with a value that is not finite: so that it is not lost, and not taken for a number. */
const notFinite: Block = { scale: 0x7e00, quants: new Int8Array(blockInputs) };

interface Block {
  /** Bits of binary16. */
  readonly scale: number;
  readonly quants: Int8Array;
}

/** A scale from which on its inverse is a number. */
const leastScaleOfQ8 = Math.fround(1e-37);

/** As ggml's quantize_row_q8_0: scale = largest magnitude / 127, integers to nearest. */
function quantizeQ8(w: Float32Array): Block {
  const extreme = extremeOf(w);
  if (Number.isNaN(extreme)) return notFinite;
  const scale = Math.fround(Math.abs(extreme) / 127);
  const inverse = scale >= leastScaleOfQ8 ? Math.fround(1 / scale) : 0;
  return {
    scale: scaleBits(scale),
    quants: Int8Array.from(w, (value) => roundHalfToEven(Math.fround(value * inverse))),
  };
}

const fitCandidates = 16;

/**
 * Of several scales from ggml's to twice that, the one that leaves the least sum of squared errors when it is then chosen by least
 * squares, as in q4. Weights that lie on a grid, as those of other blocks do, are fitted about a third better than by ggml's.
 */
function fitQ8(w: Float32Array): Block {
  const extreme = Math.abs(extremeOf(w));
  if (Number.isNaN(extreme)) return notFinite;
  if (extreme < leastExtreme) return { scale: 0, quants: new Int8Array(blockInputs) };
  const whole = wholeNumbers(w, extreme);
  let best: Fit = { product: 0, squares: 1, quants: new Int8Array(blockInputs) };
  for (let candidate = 0; candidate < fitCandidates; candidate++) {
    const factor = Math.fround((127 - 4 * candidate) / largestWhole);
    const quants = Int8Array.from(whole, (value) => roundHalfToEven(Math.fround(value * factor)));
    best = betterFit(best, quants, whole);
  }
  return fittedBlock(best, extreme);
}

/**
 * Fits up to `groupOutputs` rows of weights that few different numbers share in each block, as where they come from other blocks.
 *
 * @param values [rows, inputs], rows from 1 to 16
 * @returns a group of q8; missing rows are zeros
 */
export function fitGroup(values: Float32Array, inputs: number): Uint8Array {
  const group = new Uint8Array(groupSize("q8", inputs));
  const view = new DataView(group.buffer);
  const block = new Float32Array(blockInputs);
  for (let row = 0; row * inputs < values.length; row++) {
    for (let from = 0; from < inputs; from += blockInputs) {
      block.fill(0).set(values.subarray(row * inputs + from, row * inputs + Math.min(inputs, from + blockInputs)));
      const place = placeOf("q8", row, from);
      const { scale, quants } = fitQ8(block);
      view.setUint16(place.scale, scale, true);
      quants.forEach((quant, i) => view.setInt8(place.quant + (i & ~3) * groupOutputs + (i & 3), quant));
    }
  }
  return group;
}

const q4Candidates = 8;
/** Below this a scale is 0 in binary16. */
const leastExtreme = Math.fround(1e-20);
const largestWhole = 32767;

/**
 * Of several scales around ggml's (which makes the largest magnitude -8) the one that leaves the least sum of squared errors
 * when the scale is then chosen by least squares, sum of w q / sum of q². w is represented by integers of 16 bits, of
 * which the largest magnitude is 32767: sums of them are exact in float32, in which the rest is calculated.
 */
function quantizeQ4(w: Float32Array): Block {
  const extreme = extremeOf(w);
  if (Number.isNaN(extreme)) return notFinite;
  if (Math.abs(extreme) < leastExtreme) return { scale: 0, quants: new Int8Array(blockInputs) };
  const whole = wholeNumbers(w, extreme);
  let best: Fit = { product: 0, squares: 1, quants: new Int8Array(blockInputs) };
  for (let candidate = 0; candidate < q4Candidates; candidate++) {
    const factor = Math.fround(-(6.5 + 0.375 * candidate) / largestWhole);
    const quants = Int8Array.from(whole, (value) => roundHalfToEven(clamp(Math.fround(value * factor), -8, 7)));
    best = betterFit(best, quants, whole);
  }
  return fittedBlock(best, extreme);
}

/** Weights as integers of 16 bits, of which `extreme` is the largest there is. */
function wholeNumbers(w: Float32Array, extreme: number): Float32Array {
  const toWhole = Math.fround(largestWhole / extreme);
  return w.map((value) => roundHalfToEven(Math.fround(value * toWhole)));
}

/** Integers, the sum of their products with the weights, and of their squares. */
interface Fit {
  readonly product: number;
  readonly squares: number;
  readonly quants: Int8Array;
}

/** The better one of a fit and other integers. The error is the sum of w² less product² / squares. */
function betterFit(best: Fit, quants: Int8Array, whole: Float32Array): Fit {
  const product = Math.fround(sumOf(quants, (quant, i) => quant * (whole[i] as number)));
  const squares = sumOf(quants, (quant) => quant * quant);
  const isBetter = squareTimes(product, best.squares) > squareTimes(best.product, squares);
  return isBetter ? { product, squares, quants } : best;
}

function fittedBlock({ product, squares, quants }: Fit, extreme: number): Block {
  const unit = Math.fround(extreme / largestWhole);
  return { scale: scaleBits(Math.fround(Math.fround(product / squares) * unit)), quants };
}

/** In float32. */
function squareTimes(value: number, factor: number): number {
  return Math.fround(Math.fround(value * value) * factor);
}

function sumOf(quants: Int8Array, term: (quant: number, i: number) => number): number {
  return quants.reduce((sum, quant, i) => sum + term(quant, i), 0);
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, value));
}

/** The value of largest magnitude, with its sign; of equals the first. NaN where one is not finite. */
function extremeOf(w: Float32Array): number {
  let extreme = 0;
  for (const value of w) {
    if (!Number.isFinite(value)) return Number.NaN;
    if (Math.abs(value) > Math.abs(extreme)) extreme = value;
  }
  return extreme;
}

/** A scale in binary16; past its range its largest number. */
function scaleBits(scale: number): number {
  const bits = float16Bits(scale);
  return (bits & 0x7fff) === 0x7c00 ? (bits & 0x8000) | 0x7bff : bits;
}

/**
 * Visits the scales of all blocks.
 *
 * @param bytes of whole groups
 * @param visit is given the bits of a scale and the output within its group that it belongs to
 */
export function visitScales(
  bytes: Uint8Array,
  dtype: OneScaleType,
  visit: (bits: number, output: number) => void,
): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const pairBytes = scaleBytes + 2 * blockBytes[dtype];
  for (let pair = 0; pair < bytes.length; pair += pairBytes) {
    for (let i = 0; i < 2 * groupOutputs; i++) visit(view.getUint16(pair + 2 * i, true), i % groupOutputs);
  }
}

/** How many blocks have the largest scale that there is: their weights were too large, and are not what they were. */
export function clampedBlocks(bytes: Uint8Array, dtype: OneScaleType): number {
  // A plain loop: a model is looked over each time it is quantized as it is loaded.
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % 2 === 0 ? bytes : bytes.slice();
  const words = new Uint16Array(buffer, byteOffset, byteLength / 2);
  const pairWords = (scaleBytes + 2 * blockBytes[dtype]) / 2;
  let count = 0;
  for (let pair = 0; pair < words.length; pair += pairWords) {
    for (let i = pair; i < pair + 2 * groupOutputs; i++) if (((words[i] as number) & 0x7fff) === 0x7bff) count++;
  }
  return count;
}

/** The types as files hold them, which is as kernels read them. */
export function ownFormat(dtype: OneScaleType): BlockFormat {
  return {
    groupOutputs,
    inputsMultiple: 1,
    computed: dtype,
    groupSize: (inputs) => groupSize(dtype, inputs),
    decode: (group, inputs, target) => dequantizeGroup(group, inputs, dtype, target),
    visitScales: (groups, _, visit) => visitScales(groups, dtype, visit),
  };
}

/** What a row of x is multiplied as: quantized in blocks of 8 bits, and back. */
export function roundTripRow(x: Float32Array): Float64Array {
  const result = new Float64Array(x.length);
  for (let from = 0; from < x.length; from += blockInputs) {
    const block = x.subarray(from, from + blockInputs);
    const largest = block.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const scale = Number.isFinite(largest) ? Math.fround(largest / 127) : Number.NaN;
    const inverse = largest > 0 ? Math.fround(127 / largest) : 0;
    block.forEach((value, i) => {
      result[from + i] = roundHalfToEven(Math.fround(value * inverse)) * scale;
    });
  }
  return result;
}

function roundHalfToEven(value: number): number {
  const floor = Math.floor(value);
  const above = value - floor;
  if (above !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
