// Element types of stored tensors and conversion between them. Conversions to 16 bits round to nearest, ties to even, as
// PyTorch does; NaN stays NaN.

/** Type of elements that stand alone. */
export type ElementType = "f64" | "f32" | "f16" | "bf16" | "i64" | "i32" | "i16" | "i8" | "u8" | "bool";

/** Blocks of 32 integers of 8 or 4 bits with a scale; matrices only (quantization/blocks.ts). */
export type BlockType = "q8" | "q4";

/** Type of a tensor in a file. */
export type DType = ElementType | BlockType;

/** Types of floating point elements that weights can be computed with. */
export type FloatType = "f32" | "f16" | "bf16";

/** Types that weight matrices can be computed with. */
export type WeightDType = FloatType | BlockType;

const floatTypes: readonly FloatType[] = ["f32", "f16", "bf16"];
export const weightDTypes: readonly WeightDType[] = [...floatTypes, "q8", "q4"];

export function isFloatType(dtype: DType): dtype is FloatType {
  return (floatTypes as readonly DType[]).includes(dtype);
}

export function isBlockType(dtype: DType): dtype is BlockType {
  return dtype === "q8" || dtype === "q4";
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
  const word = bits[0] as number;
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
  const word = bits[0] as number;
  const sign = (word >>> 16) & 0x8000;
  const magnitude = word & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Subnormal: adding 0.5 moves the mantissa to where float32 itself rounds it to the right bit.
    single[0] = Math.abs(single[0] as number) + 0.5;
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

/** What a conversion could not hold: finite values that became infinite. */
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
  const read = reader(source, from);
  const output = new DataView(target.buffer, target.byteOffset, target.byteLength);
  if (to === "f32") for (let i = 0; i < count; i++) output.setFloat32(i * 4, read(i), true);
  else if (to === "bf16") for (let i = 0; i < count; i++) output.setUint16(i * 2, bfloat16Bits(read(i)), true);
  else for (let i = 0; i < count; i++) output.setUint16(i * 2, float16Bits(read(i)), true);
  if (overflow && from !== "f16" && !(from === "bf16" && to === "f32")) countOverflow(overflow, read, count, to);
}

/** A pass of its own, so that the loops above stay as fast as they are. */
function countOverflow(overflow: Overflow, read: (index: number) => number, count: number, to: FloatType): void {
  // Half a unit in the last place above the largest value, rounding gives infinity.
  const limit = { f32: 2 ** 128 - 2 ** 103, f16: 65520, bf16: 2 ** 128 - 2 ** 119 }[to];
  for (let i = 0; i < count; i++) {
    const magnitude = Math.abs(read(i));
    if (magnitude < limit || !Number.isFinite(magnitude)) continue;
    overflow.count++;
    overflow.largest = Math.max(overflow.largest, magnitude);
  }
}

function reader(source: Uint8Array, dtype: ElementType): (index: number) => number {
  const view = new DataView(source.buffer, source.byteOffset, source.byteLength);
  switch (dtype) {
    case "f64":
      return (i) => view.getFloat64(i * 8, true);
    case "f32":
      return (i) => view.getFloat32(i * 4, true);
    case "f16":
      return (i) => float16Value(view.getUint16(i * 2, true));
    case "bf16":
      return (i) => bfloat16Value(view.getUint16(i * 2, true));
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
