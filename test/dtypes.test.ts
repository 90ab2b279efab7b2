// Conversions between element types, against definitions.

import fc from "fast-check";
import { expect, test } from "vitest";
import {
  bfloat16Bits,
  bfloat16Value,
  bytesPerElement,
  convertElements,
  float16Bits,
  float16Value,
  noOverflow,
} from "#rwkv/dtypes";
import { rounds } from "./thorough.js";

const single = (value: number) => Math.fround(value);
const float32 = fc.float({ noNaN: true });

test.each([
  ["float16", float16Bits, float16Value],
  ["bfloat16", bfloat16Bits, bfloat16Value],
] as const)("%s: every pattern survives the way there and back", (_, bits, value) => {
  for (let pattern = 0; pattern < 65536; pattern++) {
    const number = value(pattern);
    if (Number.isNaN(number)) expect(value(bits(number))).toBeNaN();
    else expect(bits(number)).toBe(pattern);
  }
});

test.each([
  ["float16", float16Bits, float16Value],
  ["bfloat16", bfloat16Bits, bfloat16Value],
] as const)("%s: the nearest value is taken, ties to even", (_, bits, value) => {
  fc.assert(
    fc.property(float32, (number) => {
      const chosen = bits(number);
      const rounded = value(chosen);
      if (!Number.isFinite(rounded)) return;
      const distance = Math.abs(number - rounded);
      for (const neighbour of [chosen - 1, chosen + 1]) {
        const other = value(neighbour & 0xffff);
        if (!Number.isFinite(other)) continue;
        expect(distance).toBeLessThanOrEqual(Math.abs(number - other));
        if (distance === Math.abs(number - other) && rounded !== other) expect(chosen & 1).toBe(0);
      }
    }),
    { numRuns: rounds(4000) },
  );
});

test("known values", () => {
  expect([1, -2, 65504, 65520, 1e-8, 5.9604645e-8].map(float16Bits)).toEqual([0x3c00, 0xc000, 0x7bff, 0x7c00, 0, 1]);
  expect([1, -2, single(3.140625), Number.POSITIVE_INFINITY].map(bfloat16Bits)).toEqual([
    0x3f80, 0xc000, 0x4049, 0x7f80,
  ]);
});

test("elements convert at any alignment, from every type", () => {
  const cases = [
    ["f64", new Float64Array([1, -2.5, 3])],
    ["f32", new Float32Array([1, -2.5, 3])],
    ["i64", new BigInt64Array([1n, -2n, 3n])],
    ["i32", new Int32Array([1, -2, 3])],
    ["i16", new Int16Array([1, -2, 3])],
    ["i8", new Int8Array([1, -2, 3])],
    ["u8", new Uint8Array([1, 2, 3])],
  ] as const;
  for (const [dtype, values] of cases) {
    const shifted = new Uint8Array(values.byteLength + 1);
    shifted.set(new Uint8Array(values.buffer), 1);
    const target = new Uint8Array(13);
    convertElements(shifted.subarray(1), dtype, target.subarray(1), "f32");
    expect([...new Float32Array(target.slice(1).buffer)]).toEqual([...values].map(Number));
  }
  expect(() => convertElements(new Uint8Array(4), "f32", new Uint8Array(8), "i64")).toThrow("no conversion");
});

test("all halves convert to each type as their values do", () => {
  const halves = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const source = new Uint8Array(halves.buffer);
  for (const [from, value] of [
    ["f16", float16Value],
    ["bf16", bfloat16Value],
  ] as const) {
    const floats = new Float32Array(65536);
    convertElements(source, from, new Uint8Array(floats.buffer), "f32");
    expect(floats).toEqual(Float32Array.from(halves, value));
    const other = from === "f16" ? "bf16" : "f16";
    const bits = other === "f16" ? float16Bits : bfloat16Bits;
    const converted = new Uint16Array(65536);
    convertElements(source, from, new Uint8Array(converted.buffer), other);
    expect(converted).toEqual(Uint16Array.from(halves, (half) => bits(value(half))));
  }
});

test("finite values that become infinite are counted, and only those", () => {
  const { POSITIVE_INFINITY: infinity, NaN: nan } = Number;
  const cases = [
    ["f32", "f16", new Float32Array([65504, 65519, 65520, -1e5, infinity, nan, 0]), { count: 2, largest: 1e5 }],
    ["f32", "bf16", new Float32Array([3.38e38, -3.4e38, infinity]), { count: 1, largest: Math.fround(3.4e38) }],
    ["f64", "f32", new Float64Array([1e38, 1e39, -infinity]), { count: 1, largest: 1e39 }],
    ["f64", "f16", new Float64Array([1e300, 1]), { count: 1, largest: 1e300 }],
    ["i32", "f16", new Int32Array([65504, -70000]), { count: 1, largest: 70000 }],
    ["bf16", "f16", Uint16Array.from([1, 1e5, infinity, nan], bfloat16Bits), { count: 1, largest: 99840 }],
    ["f16", "bf16", Uint16Array.from([65504, infinity], float16Bits), { count: 0, largest: 0 }],
  ] as const;
  for (const [from, to, values, expected] of cases) {
    const overflow = noOverflow();
    const source = new Uint8Array(values.buffer);
    convertElements(source, from, new Uint8Array(values.length * bytesPerElement[to]), to, overflow);
    expect(overflow, `${from} to ${to}`).toEqual(expected);
  }
});
