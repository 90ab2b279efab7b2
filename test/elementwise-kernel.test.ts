// The kernel of elementwise functions by itself: every function over the whole range of numbers, and random programs, whose
// results are compared to the bit with the same programs in TypeScript.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { KernelMachine } from "#rwkv/backends/kernel/kernel-machine";
import { encodeProgram, type Program } from "#rwkv/backends/kernel/program";
import { SingleRecord } from "#rwkv/backends/kernel/single-record";
import { maxDifference } from "./environment.js";
import { floatsOf, machines } from "./kernel-machines.js";
import { rounds } from "./thorough.js";

const { fround } = Math;

/** Functions whose results are those of float32 arithmetic, to the bit. */
const exact: Readonly<Record<string, (a: number, b: number) => number>> = {
  add: (a, b) => a + b,
  subtract: (a, b) => a - b,
  multiply: (a, b) => a * b,
  minimum: (a, b) => Math.min(a, b),
  maximum: (a, b) => Math.max(a, b),
  negate: (a) => -a,
  oneMinus: (a) => 1 - a,
  reluSquared: (a) => (a < 0 ? 0 : a * a),
  squareRoot: (a) => Math.sqrt(a),
  reciprocal: (a) => 1 / a,
};
const arity = (name: string) => (/add|subtract|multiply|imum/.test(name) ? 2 : 1);

/** Functions that are computed by polynomials; a few units of the last place from these. */
const close: Readonly<Record<string, (a: number) => number>> = {
  sigmoid: (a) => 1 / (1 + Math.exp(-a)),
  tanh: Math.tanh,
  exp: Math.exp,
  eluPlusOne: (a) => (a > 0 ? a + 1 : Math.exp(a)),
};

/** Numbers of every magnitude and both signs, those that are none, and a fine grid where functions bend. */
const everyMagnitude = (() => {
  const bits = new Uint32Array(20_000);
  for (let i = 0; i < bits.length; i++) bits[i] = i * 214_729;
  const grid = Array.from({ length: 20_001 }, (_, i) => (i - 10_000) / 100);
  const special = [0, -0, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 88.7, 88.8, -87.3, -87.4];
  return Float32Array.from([...new Float32Array(bits.buffer), ...grid, ...special]);
})();

interface Shape {
  readonly rows: number;
  readonly width: number;
}

interface Run extends Shape {
  readonly program: Program;
  /** Each [rows or 1, width / repeat]. */
  readonly operands: readonly Float32Array[];
  /** For each output the input whose place it takes, if any. */
  readonly inPlace?: readonly (number | undefined)[];
  readonly sharesChannels?: boolean;
}

/** Runs programs on a machine. */
class ProgramRunner {
  readonly #machine: KernelMachine;
  readonly #record: SingleRecord;
  readonly #memory: ReturnType<KernelMachine["allocate"]>;

  constructor(machine: KernelMachine) {
    this.#machine = machine;
    this.#record = new SingleRecord(machine);
    this.#memory = machine.allocate(4 * 2 ** 20);
  }

  async run({ program, operands, rows, width, inPlace = [], sharesChannels = false }: Run): Promise<Float32Array[]> {
    let at = 0;
    const place = (length: number): number => {
      const start = at;
      at = Math.ceil((at + length) / 16) * 16;
      return start;
    };
    // Whatever is written beyond an output is found by the guards between.
    const guard = 12345.678;
    const inputs = operands.map((values) => [place(values.length), place(1)] as const);
    const outputs = Array.from({ length: program.outputCount }, (_, i) => {
      const input = inPlace[i];
      return input === undefined
        ? ([place(rows * width), place(1)] as const)
        : (inputs[input] as readonly [number, number]);
    });
    const floats = floatsOf(this.#memory);
    floats.fill(guard, 0, at);
    operands.forEach((values, i) => void floats.set(values, (inputs[i] as readonly [number, number])[0]));
    await this.#record.run({
      kernel: "elementwise",
      barrierAfter: "always",
      rows,
      width,
      attributes: [{ count: sharesChannels ? 1 : 0 }],
      addresses: [...inputs, ...outputs].map(([start]) => this.#memory.address + 4 * start),
      program: encodeProgram(program, this.#machine),
    });
    const results = floatsOf(this.#memory);
    for (const [start, after] of outputs) {
      expect([...results.subarray(start + rows * width, after + 1)].every((value) => value === fround(guard))).toBe(
        true,
      );
    }
    return outputs.map(([start]) => results.slice(start, start + rows * width));
  }
}

function single(name: string): Program {
  const full = { oneRow: false, repeat: 1 };
  const inputs = arity(name) === 2 ? [full, full] : [full];
  const result = inputs.length;
  const instructions = [{ function: name, a: 0, b: inputs.length - 1, result }];
  return { inputs, constants: [], outputCount: 1, slotCount: 0, instructions };
}

const isSame = (a: number, b: number) => a === b || (Number.isNaN(a) && Number.isNaN(b));

describe.each(machines)("$label", ({ create }) => {
  test("the machine has every function that is tested here, and no other", async () => {
    const machine = await create();
    const functions = [...machine.functions.keys()].filter((name) => !name.includes("step "));
    expect(functions.sort()).toEqual([...Object.keys(exact), ...Object.keys(close)].sort());
    await machine.dispose();
  });

  test("functions over all magnitudes, infinities and what is no number", async () => {
    const machine = await create();
    const runner = new ProgramRunner(machine);
    const a = everyMagnitude;
    const shape = { rows: 1, width: a.length };
    for (const [name, plain] of Object.entries(exact)) {
      // Each number meets one of about its size, one of another, and itself.
      for (const shift of arity(name) === 2 ? [0, 1, 7919] : [0]) {
        const b = Float32Array.from(a, (_, i) => a[(i + shift) % a.length] as number);
        const operands = arity(name) === 2 ? [a, b] : [a];
        const [found] = (await runner.run({ program: single(name), operands, ...shape })) as [Float32Array];
        const wrong = [...found.keys()].filter((i) => !isSame(found[i]!, fround(plain(a[i]!, b[i]!))));
        expect(wrong.slice(0, 5).map((i) => `${name}(${a[i]}, ${b[i]}) = ${found[i]}`)).toEqual([]);
      }
    }
    for (const [name, plain] of Object.entries(close)) {
      const [found] = (await runner.run({ program: single(name), operands: [a], ...shape })) as [Float32Array];
      const wrong = [...found.keys()].filter((i) => {
        const [x, y, value] = [a[i]!, found[i]!, plain(a[i]!)];
        if (Number.isNaN(x)) return !Number.isNaN(y);
        // Exponentials end at the largest float and at the smallest normal one.
        if (value > 3e38 && x !== Number.POSITIVE_INFINITY && name === "eluPlusOne" && x > 100)
          return y !== fround(value);
        if (value > 3e38) return !(y > 3e38);
        if (value < 1.3e-38 && name !== "tanh") return !(y >= 0 && y < 1.3e-38);
        return Math.abs(y - value) > 3.6e-7 * Math.abs(value) + 1.5e-45;
      });
      expect(wrong.slice(0, 5).map((i) => `${name}(${a[i]}) = ${found[i]}, not ${plain(a[i]!)}`)).toEqual([]);
    }
    await machine.dispose();
  });

  test("an element's result is the same to the bit wherever it is, however threads share, alone or in company", async () => {
    const machine = await create();
    const runner = new ProgramRunner(machine);
    const values = Float32Array.from({ length: 8192 }, (_, i) => 9 * Math.sin(i * 1.7));
    for (const name of Object.keys(close)) {
      const program = single(name);
      const [flat] = (await runner.run({ program, operands: [values], rows: 1, width: 8192 })) as [Float32Array];
      for (const [rows, width] of [
        [8192, 1],
        [2730, 3],
        [481, 17],
        [63, 130],
        [17, 481],
        [8, 1024],
        [3, 2730],
      ] as const) {
        for (const sharesChannels of [false, true]) {
          const operands = [values.subarray(0, rows * width)];
          const [found] = await runner.run({ program, operands, rows, width, sharesChannels });
          const difference = maxDifference(found!, flat.subarray(0, rows * width));
          expect(difference, `${name}, ${rows} x ${width}`).toBe(0);
        }
      }
    }
    await machine.dispose();
  });

  test("random programs, with operands of every shape, results in place of operands, and several outputs", async () => {
    const machine = await create();
    const runner = new ProgramRunner(machine);
    const property = fc.asyncProperty(runArbitrary, async (run) => {
      const expected = plainRun(run);
      const found = await runner.run(run);
      found.forEach((values, output) => {
        const wrong = values.findIndex((value, i) => !isSame(value, expected[output]![i]!));
        expect(wrong, `output ${output}: ${values[wrong]}, not ${expected[output]![wrong]}`).toBe(-1);
      });
    });
    await fc.assert(property, { numRuns: rounds(100) });
    await machine.dispose();
  });
});

/** Of a zero and one of the other sign, minimum and maximum may be either, which a reciprocal would show: a program has one or the other. */
const functionSets = [/imum/, /reciprocal/].map((left) => Object.keys(exact).filter((name) => !left.test(name)));

/** A random program that keeps what the kernel asks of programs, and operands for it. */
const runArbitrary: fc.Arbitrary<Run> = fc
  .record({
    heads: fc.constantFrom(1, 1, 2, 3, 7, 16),
    size: fc.constantFrom(1, 2, 5, 16, 31, 64, 90, 257),
    rows: fc.constantFrom(1, 2, 3, 8, 21),
    inputs: fc.array(fc.record({ oneRow: fc.boolean(), heads: fc.boolean(), one: fc.boolean() }), {
      minLength: 1,
      maxLength: 16,
    }),
    constants: fc.array(fc.constantFrom(0, 1, -0.5, 3.25), { maxLength: 16 }),
    outputCount: fc.integer({ min: 1, max: 8 }),
    slotCount: fc.integer({ min: 0, max: 12 }),
    steps: fc.constantFrom(...functionSets).chain((names) =>
      fc.array(fc.record({ name: fc.constantFrom(...names), a: fc.nat(), b: fc.nat(), to: fc.nat() }), {
        maxLength: 40,
      }),
    ),
    inPlace: fc.boolean(),
    sharesChannels: fc.boolean(),
    seed: fc.integer({ min: 1, max: 1000 }),
  })
  .map(({ heads, size, rows, inputs, constants, outputCount, slotCount, steps, inPlace, sharesChannels, seed }) => {
    const width = heads * size;
    const shapes = inputs.map(({ oneRow, heads: byHead, one }) => ({
      oneRow,
      repeat: one ? width : byHead ? size : 1,
    }));
    const firstOutput = shapes.length + constants.length;
    const written = new Set(Array.from({ length: firstOutput }, (_, i) => i));
    const instructions = steps.map(({ name, a, b, to }) => {
      const known = [...written];
      const result = firstOutput + (to % (outputCount + slotCount));
      written.add(result);
      return {
        function: name,
        a: known[a % known.length]!,
        b: arity(name) === 2 ? known[b % known.length]! : 0,
        result,
      };
    });
    for (let output = firstOutput; output < firstOutput + outputCount; output++) {
      if (!written.has(output)) instructions.push({ function: "negate", a: 0, b: 0, result: output });
    }
    // An output may take the place of an operand that nothing reads after it is first written.
    const taken = new Set<number>();
    const places = Array.from({ length: outputCount }, (_, i) => {
      const first = instructions.findIndex(({ result }) => result === firstOutput + i);
      const input = shapes.findIndex(({ oneRow, repeat }, n) => {
        const isRead = instructions.some((step, at) => at > first && [step.a, step.b].includes(n));
        return !oneRow && repeat === 1 && !isRead && !taken.has(n);
      });
      if (!inPlace || input < 0) return undefined;
      taken.add(input);
      return input;
    });
    return {
      program: { inputs: shapes, constants, outputCount, slotCount, instructions },
      operands: shapes.map(({ oneRow, repeat }, n) =>
        Float32Array.from(
          { length: (oneRow ? 1 : rows) * (width / repeat) },
          (_, i) => 3 * Math.sin(seed * (n + 1) + i),
        ),
      ),
      rows,
      width,
      inPlace: places,
      sharesChannels,
    };
  });

/** The same program, element by element. */
function plainRun({ program, operands, rows, width }: Run): Float32Array[] {
  const { inputs, constants, outputCount, instructions } = program;
  const firstOutput = inputs.length + constants.length;
  const outputs = Array.from({ length: outputCount }, () => new Float32Array(rows * width));
  for (let t = 0; t < rows; t++) {
    for (let c = 0; c < width; c++) {
      const values = inputs.map(({ oneRow, repeat }, n) => {
        return operands[n]![(oneRow ? 0 : t * (width / repeat)) + Math.floor(c / repeat)]!;
      });
      values.push(...constants.map(fround));
      for (const step of instructions) {
        values[step.result] = fround(exact[step.function]!(values[step.a]!, values[step.b]!));
      }
      outputs.forEach((output, i) => {
        output[t * width + c] = values[firstOutput + i]!;
      });
    }
  }
  return outputs;
}
