// Pieces of WGSL that shaders of several operations are made of.

import type { BinaryName, UnaryName } from "../../graph/operations/elementwise.js";

/** Lines in one text. */
export function lines(count: number, line: (i: number) => string, separator = "\n"): string {
  return Array.from({ length: count }, (_, i) => line(i)).join(separator);
}

/** What a workgroup adds up. */
export type SumType = "f32" | "vec4<f32>";

/** `sumOf(lane, value)`: the sum over a workgroup, for all of its invocations, which must all call it. */
export function workgroupSum(workgroup: number, type: SumType): string {
  return `var<workgroup> partial: array<${type}, ${workgroup}>;
fn sumOf(lane: u32, value: ${type}) -> ${type} {
  partial[lane] = value;
  for (var step = ${workgroup / 2}u; step > 0u; step >>= 1u) {
    workgroupBarrier();
    if (lane < step) { partial[lane] += partial[lane + step]; }
  }
  workgroupBarrier();
  let sum = partial[0];
  workgroupBarrier();
  return sum;
}`;
}

/**
 * The same where a device has subgroups, with two barriers in place of one a halving: each subgroup's sum goes to the place of its first
 * invocation, and all subgroups add up all places. Nothing is taken for granted of their size, nor of which invocations are together.
 */
export function subgroupSum(workgroup: number, type: SumType): string {
  return `var<workgroup> partial: array<${type}, ${workgroup}>;
fn sumOf(lane: u32, value: ${type}) -> ${type} {
  let own = subgroupAdd(value);
  partial[lane] = select(${type}(), own, lane == subgroupBroadcastFirst(lane));
  workgroupBarrier();
  let together = subgroupAdd(1u);
  var rest = ${type}();
  for (var i = subgroupExclusiveAdd(1u); i < ${workgroup}u; i += together) { rest += partial[i]; }
  let sum = subgroupAdd(rest);
  workgroupBarrier();
  return sum;
}`;
}

/** Between these e^x is a float32. WGSL lets an implementation take for granted that nothing is infinite. */
const largestExponent = "88.0";
const leastExponent = "-87.0";

/** `expOf(x)`: e^x, 0 where float32 has none so small, and the largest there is where it has none so large. */
export const expFunction = `fn expOf(x: f32) -> f32 {
  return select(exp(min(x, ${largestExponent})), 0.0, x < ${leastExponent});
}`;

/** Functions of one element in WGSL, by the names of graph/operations/elementwise.ts. They need `expFunction`. */
export const unaryCode: Readonly<Record<UnaryName, (a: string) => string>> = {
  sigmoid: (a) => `1.0 / (1.0 + expOf(-${a}))`,
  // Some implementations overflow where tanh has long been 1.
  tanh: (a) => `tanh(clamp(${a}, -15.0, 15.0))`,
  exp: (a) => `expOf(${a})`,
  negate: (a) => `-${a}`,
  oneMinus: (a) => `1.0 - ${a}`,
  reluSquared: (a) => `max(${a}, 0.0) * max(${a}, 0.0)`,
  eluPlusOne: (a) => `select(expOf(${a}), ${a} + 1.0, ${a} > 0.0)`,
  squareRoot: (a) => `sqrt(${a})`,
  reciprocal: (a) => `1.0 / ${a}`,
};

/** Functions of two elements. */
export const binaryCode: Readonly<Record<BinaryName, (a: string, b: string) => string>> = {
  add: (a, b) => `${a} + ${b}`,
  subtract: (a, b) => `${a} - ${b}`,
  multiply: (a, b) => `${a} * ${b}`,
  minimum: (a, b) => `min(${a}, ${b})`,
  maximum: (a, b) => `max(${a}, ${b})`,
};

/** A constant, to the bit. */
export function floatLiteral(value: number): string {
  return `bitcast<f32>(${floatBits(value)}u)`;
}

const bits = new Uint32Array(1);
const single = new Float32Array(bits.buffer);

/** The bits of a float32, which is how a parameter is given. */
export function floatBits(value: number): number {
  single[0] = value;
  return bits[0] as number;
}
