// Types of numbers: those of elements in files, those that weights are computed with, and conversion between them.
// Conversions to 16 bits round to nearest, ties to even, as PyTorch does; NaN stays NaN.

/** The type of single elements. */
export type ElementType = "f64" | "f32" | "f16" | "bf16" | "i64" | "i32" | "i16" | "i8" | "u8" | "bool";

/**
 * Blocks of integers with scales, as kernels read them; matrices only. q8 and q4 are blocks of 32 with one scale
 * (quantization/blocks.ts), the others blocks of 256 in parts (quantization/super-blocks.ts).
 */
export type BlockType = "q8" | "q4" | "q4k" | "q5k" | "q6k";

/** Types of floating point elements that weights can be computed with. */
export type FloatType = "f32" | "f16" | "bf16";

/** Types that weight matrices can be computed with; those of files are in quantization/storage-types.ts. */
export type ComputeType = FloatType | BlockType;
/** Its name in the public interface. */
export type WeightDType = ComputeType;

const floatTypes: readonly FloatType[] = ["f32", "f16", "bf16"];
const blockTypes: readonly BlockType[] = ["q8", "q4", "q4k", "q5k", "q6k"];
/** Those that a model can be loaded with whatever it is stored as. */
export const weightDTypes: readonly ComputeType[] = [...floatTypes, "q8", "q4"];

export function isElementType(dtype: string): dtype is ElementType {
  return Object.hasOwn(bytesPerElement, dtype);
}

/** Whether elements of the type are floating point numbers. */
export function isFloating(dtype: string): boolean {
  return dtype === "f64" || isFloatType(dtype);
}

export function isFloatType(dtype: string): dtype is FloatType {
  return (floatTypes as readonly string[]).includes(dtype);
}

export function isBlockType(dtype: string): dtype is BlockType {
  return (blockTypes as readonly string[]).includes(dtype);
}

/** Bytes of one element. */
export const bytesPerElement: Readonly<Record<ElementType, number>> = {
  f64: 8,
  f32: 4,
  f16: 2,
  bf16: 2,
  i64: 8,
  i32: 4,
  i16: 2,
  i8: 1,
  u8: 1,
  bool: 1,
};

/** Product of the dimensions; 1 for a scalar. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, dimension) => product * dimension, 1);
}

const bits = new Uint32Array(1);
const single = new Float32Array(bits.buffer);

/** float32 to the bits of bfloat16: the upper half of float32, rounded to nearest even. */
export function bfloat16Bits(value: number): number {
  single[0] = value;
  return bfloat16OfWord(bits[0] as number);
}

/** The bits of bfloat16 for those of a float32. */
function bfloat16OfWord(word: number): number {
  if ((word & 0x7fffffff) > 0x7f800000) return (word >>> 16) | 0x40;
  return ((word + 0x7fff + ((word >>> 16) & 1)) >>> 16) & 0xffff;
}

/** Bits of bfloat16 to a number. */
export function bfloat16Value(half: number): number {
  bits[0] = half << 16;
  return single[0] as number;
}

/** float32 to the bits of IEEE 754 binary16, rounded to nearest even; values past 65504 become infinite. */
export function float16Bits(value: number): number {
  single[0] = value;
  return float16OfWord(bits[0] as number);
}

/** The bits of binary16 for those of a float32. */
function float16OfWord(word: number): number {
  const sign = (word >>> 16) & 0x8000;
  const magnitude = word & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Subnormal: adding 0.5 moves the mantissa to where float32 itself rounds it to the right bit.
    bits[0] = magnitude;
    single[0] = (single[0] as number) + 0.5;
    return sign | ((bits[0] as number) - 0x3f000000);
  }
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}

/** Bits of IEEE 754 binary16 to a number. */
export function float16Value(half: number): number {
  const exponent = (half >>> 10) & 31;
  const mantissa = half & 1023;
  const sign = half & 0x8000 ? -1 : 1;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

/** Counts the finite values that became infinite in a conversion. */
export interface Overflow {
  count: number;
  /** The largest magnitude among them. */
  largest: number;
}

export function noOverflow(): Overflow {
  return { count: 0, largest: 0 };
}

/** The largest finite value of each type that floats are converted to. */
export const largestValue: Readonly<Record<FloatType, number>> = {
  f32: (2 - 2 ** -23) * 2 ** 127,
  f16: 65504,
  bf16: (2 - 2 ** -7) * 2 ** 127,
};

/**
 * Converts elements to another type.
 *
 * @param source bytes of whole elements of type `from`, little-endian, at any alignment
 * @param target receives as many elements of type `to` (the same type, or f32, f16, bf16), at any alignment
 * @param overflow is told of finite values that became infinite
 */
export function convertElements(
  source: Uint8Array,
  from: ElementType,
  target: Uint8Array,
  to: ElementType,
  overflow?: Overflow,
): void {
  if (from === to) {
    target.set(source);
    return;
  }
  if (!isFloatType(to)) throw new RangeError(`no conversion from ${from} to ${to}`);
  const count = source.byteLength / bytesPerElement[from];
  const Output = to === "f32" ? Uint32Array : Uint16Array;
  const output = isAligned(target, to)
    ? new Output(target.buffer as ArrayBuffer, target.byteOffset, count)
    : new Output(count);
  if (from === "f16" || from === "bf16") {
    convertHalves(new Uint16Array(...alignedPart(source, from)), from, output, to, overflow);
  } else if (from === "f32") {
    roundWords(new Uint32Array(...alignedPart(source, from)), output, to === "f16" ? to : "bf16", overflow);
  } else {
    convertOthers(reader(source, from), output, to, overflow);
  }
  if (output.buffer !== target.buffer) target.set(new Uint8Array(output.buffer));
}

function isAligned(bytes: Uint8Array, dtype: ElementType): boolean {
  return bytes.byteOffset % bytesPerElement[dtype] === 0;
}

/**
 * What a typed array over the elements is made of: their buffer, or a copy where they do not begin at a multiple of
 * their size.
 */
function alignedPart(bytes: Uint8Array, dtype: ElementType): [buffer: ArrayBufferLike, offset: number, length: number] {
  const { buffer, byteOffset, byteLength } = isAligned(bytes, dtype) ? bytes : bytes.slice();
  return [buffer, byteOffset, byteLength / bytesPerElement[dtype]];
}

/** From types without loops of their own. */
function convertOthers(
  read: (index: number) => number,
  output: Uint16Array | Uint32Array,
  to: FloatType,
  overflow: Overflow | undefined,
): void {
  const infinity = to === "f32" ? 0x7f800000 : infinities[to];
  const magnitude = to === "f32" ? 0x7fffffff : 0x7fff;
  for (let i = 0; i < output.length; i++) {
    const value = read(i);
    single[0] = value;
    const word = bits[0] as number;
    const result = to === "f32" ? word : to === "f16" ? float16OfWord(word) : bfloat16OfWord(word);
    output[i] = result;
    if ((result & magnitude) === infinity && overflow && Number.isFinite(value)) addOverflow(overflow, value);
  }
}

const infinities = { f16: 0x7c00, bf16: 0x7f80 } as const;

function addOverflow(overflow: Overflow, value: number): void {
  overflow.count++;
  overflow.largest = Math.max(overflow.largest, Math.abs(value));
}

/** There are only 65536 halves, so what each becomes is computed once. */
const halfTables = new Map<string, Uint32Array>();

function halfTable(from: "f16" | "bf16", to: FloatType): Uint32Array {
  const key = `${from} ${to}`;
  let table = halfTables.get(key);
  if (!table) {
    table = new Uint32Array(65536).map((_, half) => {
      single[0] = from === "f16" ? float16Value(half) : bfloat16Value(half);
      const word = bits[0] as number;
      return to === "f32" ? word : to === "f16" ? float16OfWord(word) : bfloat16OfWord(word);
    });
    halfTables.set(key, table);
  }
  return table;
}

function convertHalves(
  input: Uint16Array,
  from: "f16" | "bf16",
  output: Uint16Array | Uint32Array,
  to: FloatType,
  overflow: Overflow | undefined,
): void {
  const table = halfTable(from, to);
  for (let i = 0; i < input.length; i++) output[i] = table[input[i] as number] as number;
  if (from !== "bf16" || to !== "f16" || !overflow) return; // any other type holds all values
  for (let i = 0; i < input.length; i++) {
    const half = input[i] as number;
    if (((output[i] as number) & 0x7fff) !== infinities.f16 || (half & 0x7fff) >= infinities.bf16) continue;
    addOverflow(overflow, bfloat16Value(half));
  }
}

/** float32 to 16 bits. */
function roundWords(
  input: Uint32Array,
  output: Uint16Array | Uint32Array,
  to: "f16" | "bf16",
  overflow: Overflow | undefined,
): void {
  const infinity = infinities[to];
  const round = to === "f16" ? float16OfWord : bfloat16OfWord;
  for (let i = 0; i < input.length; i++) {
    const word = input[i] as number;
    const half = round(word);
    output[i] = half;
    if ((half & 0x7fff) !== infinity || (word & 0x7fffffff) >= 0x7f800000 || !overflow) continue;
    bits[0] = word;
    addOverflow(overflow, single[0] as number);
  }
}

function reader(source: Uint8Array, dtype: Exclude<ElementType, FloatType>): (index: number) => number {
  const view = new DataView(source.buffer, source.byteOffset, source.byteLength);
  switch (dtype) {
    case "f64":
      return (i) => view.getFloat64(i * 8, true);
    case "i64":
      return (i) => Number(view.getBigInt64(i * 8, true));
    case "i32":
      return (i) => view.getInt32(i * 4, true);
    case "i16":
      return (i) => view.getInt16(i * 2, true);
    case "i8":
      return (i) => view.getInt8(i);
    case "u8":
    case "bool":
      return (i) => view.getUint8(i);
  }
}
