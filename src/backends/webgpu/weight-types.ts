// How shaders read matrices of each type: as floats, four inputs of an output at a time, whatever the type; and of blocks the integers
// of four outputs at once, for products with rows that are in blocks, too. Blocks lie as kernels/quantized.h says: sixteen outputs side by
// side, so a load of 16 bytes has four inputs of each of four outputs, and the next lanes of a workgroup read the bytes that follow.

import { type BlockType, bytesPerElement, type ComputeType, type FloatType, isBlockType } from "../../dtypes.js";
import { layoutOf } from "../../quantization/quantize.js";
import { layouts } from "../../quantization/super-blocks.js";

/** Inputs of a block, whose integers have a scale in common. */
const blockInputs = 32;
/** Outputs whose bytes lie side by side. */
export const groupOutputs = 16;
/** Inputs that one load of 16 bytes has. */
export const inputsOfVector: Readonly<Record<FloatType, number>> = { f32: 4, f16: 8, bf16: 8 };

/** Vectors of 16 bytes from one row, or group of rows, to the next. */
export function strideOf(dtype: ComputeType, inputs: number): number {
  if (isBlockType(dtype)) return layoutOf(dtype).groupSize(inputs) / 16;
  return Math.ceil((inputs * bytesPerElement[dtype]) / 16);
}

/** Rows that lie together: what parts of a matrix have a multiple of. */
export function rowsTogether(dtype: ComputeType): number {
  return isBlockType(dtype) ? groupOutputs : 1;
}

const floatCode: Readonly<Record<FloatType, string>> = {
  f32: `fn weightsAt(base: u32, stride: u32, output: u32, unit: u32) -> vec4<f32> {
  return bitcast<vec4<f32>>(weights[base + output * stride + unit]);
}`,
  f16: `fn weightsAt(base: u32, stride: u32, output: u32, unit: u32) -> vec4<f32> {
  let words = weights[base + output * stride + unit / 2u];
  let pair = select(words.xy, words.zw, (unit & 1u) == 1u);
  return vec4<f32>(unpack2x16float(pair.x), unpack2x16float(pair.y));
}`,
  bf16: `fn weightsAt(base: u32, stride: u32, output: u32, unit: u32) -> vec4<f32> {
  let words = weights[base + output * stride + unit / 2u];
  let pair = select(words.xy, words.zw, (unit & 1u) == 1u);
  return bitcast<vec4<f32>>(vec4<u32>(pair.x << 16u, pair.x & 0xffff0000u, pair.y << 16u, pair.y & 0xffff0000u));
}`,
};

/** Integers of 8 bits with their signs, and numbers of binary16 by their place in halves of a word. */
const commonCode = `fn signedBytes(word: u32) -> vec4<f32> {
  return vec4<f32>((vec4<i32>(bitcast<i32>(word)) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));
}
fn unsignedBytes(word: u32) -> vec4<f32> {
  return vec4<f32>((vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u));
}
fn halfAt(at: u32, row: u32) -> f32 {
  return unpack2x16float(weights[at + row / 8u][(row / 2u) & 3u])[row & 1u];
}`;

/** Vectors that the scales of a pair of blocks take in q8 and q4, and one of its blocks. */
const pairScales = 4;
const blockVectors = { q8: 32, q4: 16 } as const;

/** Where the parts of a group's super-block begin, in vectors. */
function superLayout(dtype: "q4k" | "q5k" | "q6k") {
  const { size, smallScales, blocks, blockSize, upperWords } = layouts[dtype];
  return {
    size: size / 16,
    small: smallScales / 16,
    blocks: blocks / 16,
    block: blockSize / 16,
    nibbles: upperWords * 4,
  };
}

/** `scalesOf(first, block, row)`: a block's scale and what is taken away from each weight, of 12 bytes as Q4_K packs them. */
const packedScales = (dtype: "q4k" | "q5k") => {
  const { small } = superLayout(dtype);
  return `fn scalesOf(first: u32, block: u32, row: u32) -> vec2<f32> {
  let quad = row / 4u;
  let lane = row & 3u;
  let a = weights[first + ${small}u + quad][lane];
  let b = weights[first + ${small + 4}u + quad][lane];
  let shift = 8u * (block & 3u);
  var small = vec2<u32>((a >> shift) & 63u, (b >> shift) & 63u);
  if (block >= 4u) {
    let c = weights[first + ${small + 8}u + quad][lane] >> shift;
    small = vec2<u32>((c & 15u) | (((a >> (shift + 6u)) & 3u) << 4u), ((c >> 4u) & 15u) | (((b >> (shift + 6u)) & 3u) << 4u));
  }
  return vec2<f32>(halfAt(first, row), halfAt(first + 2u, row)) * vec2<f32>(small);
}`;
};

/** `weightsAt` of blocks: `unit` counts four inputs each. */
function blockCode(dtype: BlockType): string {
  if (dtype === "q8" || dtype === "q4") {
    const pair = pairScales + 2 * blockVectors[dtype];
    const word = dtype === "q8" ? "unit & 7u" : "unit & 3u";
    return `${commonCode}
fn weightsAt(base: u32, stride: u32, output: u32, unit: u32) -> vec4<f32> {
  let row = output & 15u;
  let block = unit / 8u;
  let first = base + output / 16u * stride + block / 2u * ${pair}u;
  let word = weights[first + ${pairScales}u + (block & 1u) * ${blockVectors[dtype]}u + (${word}) * 4u + row / 4u][row & 3u];
  let values = ${dtype === "q8" ? "signedBytes(word)" : "unsignedBytes((word >> (unit & 4u)) & 0x0f0f0f0fu) - 8.0"};
  return values * halfAt(first + (block & 1u) * 2u, row);
}`;
  }
  const { size, small, blocks, block, nibbles } = superLayout(dtype);
  const upper = {
    q4k: "",
    q5k: "word |= ((weights[at + quad][lane] >> (unit & 7u)) & 0x01010101u) << 4u;",
    q6k: "word |= ((weights[at + (unit & 4u) + quad][lane] >> (2u * (unit & 3u))) & 0x03030303u) << 4u;",
  }[dtype];
  const value =
    dtype === "q6k"
      ? `let smallAt = 2u * block + ((unit & 4u) >> 2u);
  let small = signedBytes(weights[first + ${small}u + smallAt][quad])[lane];
  return (unsignedBytes(word) - 32.0) * (halfAt(first, row) * small);`
      : `let scales = scalesOf(first, block, row);
  return unsignedBytes(word) * scales.x - scales.y;`;
  return `${commonCode}
${dtype === "q6k" ? "" : packedScales(dtype)}
fn weightsAt(base: u32, stride: u32, output: u32, unit: u32) -> vec4<f32> {
  let row = output & 15u;
  let quad = row / 4u;
  let lane = row & 3u;
  let block = (unit / 8u) & 7u;
  let first = base + output / 16u * stride + unit / 64u * ${size}u;
  let at = first + ${blocks}u + block * ${block}u;
  var word = (weights[at + ${nibbles}u + (unit & 3u) * 4u + quad][lane] >> (unit & 4u)) & 0x0f0f0f0fu;
  ${upper}
  ${value}
}`;
}

/**
 * `weightsAt(base, stride, output, unit)`: four weights of an output, inputs 4 * unit to 4 * unit + 3. `base` is where the matrix begins.
 */
export function weightsCode(dtype: ComputeType): string {
  return isBlockType(dtype) ? blockCode(dtype) : floatCode[dtype];
}

/**
 * Lines that give, for block `block` and four outputs `quad` of the group at `first`, the integers of inputs 4 * unit and on (`low`) and
 * 4 * unit + 16 and on (`high`) as bytes, each a vector over the outputs; and what a row's products with them make. That is an
 * expression `terms` over the integer sums `lowSum` and `highSum` of the outputs, and the sums `lowX` and `highX` of the row's own integers.
 */
export interface BlockProduct {
  /** Inputs of what follows each other with scales of its own; `first` is where one begins. */
  readonly span: number;
  /** Vectors of such a span. */
  readonly vectors: number;
  readonly declarations: string;
  readonly load: string;
  readonly terms: string;
}

const fourHalves = `fn fourHalves(at: u32, quad: u32) -> vec4<f32> {
  let words = weights[at + quad / 2u];
  let pair = select(words.xy, words.zw, (quad & 1u) == 1u);
  return vec4<f32>(unpack2x16float(pair.x), unpack2x16float(pair.y));
}
`;

const nibbles = `let low0 = bytes & vec4<u32>(0x0f0f0f0fu);
    let high0 = (bytes >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);`;

/** How the integers of a type of blocks are multiplied. */
export function blockProduct(dtype: BlockType): BlockProduct {
  if (dtype === "q8" || dtype === "q4") {
    const begin = `let at = first + ${pairScales}u + (block & 1u) * ${blockVectors[dtype]}u + unit * 4u + quad;
    let scale = fourHalves(first + (block & 1u) * 2u, quad);`;
    const span = { span: 2 * blockInputs, vectors: pairScales + 2 * blockVectors[dtype], declarations: fourHalves };
    if (dtype === "q8") {
      const load = `${begin}
    let low = weights[at];
    let high = weights[at + 16u];`;
      return { ...span, load, terms: "scale * vec4<f32>(lowSum + highSum)" };
    }
    const load = `${begin}
    let bytes = weights[at];
    ${nibbles}
    let low = low0;
    let high = high0;`;
    return { ...span, load, terms: "scale * vec4<f32>(lowSum + highSum - vec4<i32>(8 * (lowX + highX)))" };
  }
  const { size, small, blocks, block, nibbles: nibblesAt } = superLayout(dtype);
  const begin = `let at = first + ${blocks}u + (block & 7u) * ${block}u;
    let bytes = weights[at + ${nibblesAt}u + unit * 4u + quad];
    ${nibbles}`;
  const span = { span: 8 * blockInputs, vectors: size };
  if (dtype === "q6k") {
    return {
      ...span,
      declarations: `${fourHalves}
fn fourBytes(word: u32) -> vec4<f32> {
  return vec4<f32>((vec4<i32>(bitcast<i32>(word)) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));
}
`,
      load: `${begin}
    let low = low0 | (((weights[at + quad] >> vec4<u32>(2u * unit)) & vec4<u32>(0x03030303u)) << vec4<u32>(4u));
    let high = high0 | (((weights[at + 4u + quad] >> vec4<u32>(2u * unit)) & vec4<u32>(0x03030303u)) << vec4<u32>(4u));
    let scale = fourHalves(first, quad);
    let lowScale = scale * fourBytes(weights[first + ${small}u + 2u * (block & 7u)][quad]);
    let highScale = scale * fourBytes(weights[first + ${small + 1}u + 2u * (block & 7u)][quad]);`,
      terms:
        "lowScale * vec4<f32>(lowSum - vec4<i32>(32 * lowX)) + highScale * vec4<f32>(highSum - vec4<i32>(32 * highX))",
    };
  }
  const upper =
    dtype === "q4k"
      ? `let low = low0;
    let high = high0;`
      : `let upper = weights[at + quad];
    let low = low0 | (((upper >> vec4<u32>(unit)) & vec4<u32>(0x01010101u)) << vec4<u32>(4u));
    let high = high0 | (((upper >> vec4<u32>(unit + 4u)) & vec4<u32>(0x01010101u)) << vec4<u32>(4u));`;
  return {
    ...span,
    declarations: fourHalves,
    load: `${begin}
    ${upper}
    let shift = vec4<u32>(8u * (block & 3u));
    let a = weights[first + ${small}u + quad];
    let b = weights[first + ${small + 4}u + quad];
    var small = (a >> shift) & vec4<u32>(63u);
    var smallLeast = (b >> shift) & vec4<u32>(63u);
    if ((block & 7u) >= 4u) {
      let c = weights[first + ${small + 8}u + quad] >> shift;
      small = (c & vec4<u32>(15u)) | (((a >> (shift + vec4<u32>(6u))) & vec4<u32>(3u)) << vec4<u32>(4u));
      smallLeast = ((c >> vec4<u32>(4u)) & vec4<u32>(15u)) | (((b >> (shift + vec4<u32>(6u))) & vec4<u32>(3u)) << vec4<u32>(4u));
    }
    let scale = fourHalves(first, quad) * vec4<f32>(small);
    let least = fourHalves(first + 2u, quad) * vec4<f32>(smallLeast);`,
    terms: "scale * vec4<f32>(lowSum + highSum) - least * f32(lowX + highX)",
  };
}
