// The kernels' choice of a token against the plain one: the same token for the same random number, whatever the cuts.

import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import type { Runtime } from "#rwkv/backends/backend";
import { referenceBackend } from "#rwkv/backends/reference/reference";
import { bytesSource } from "#rwkv/byte-source";
import { GraphBuilder } from "#rwkv/graph/graph-builder";
import type { BoundModel } from "#rwkv/models/versions";
import { chooseToken, type TokenChoice } from "#rwkv/sampling/choose-token";
import { randomGenerator } from "#rwkv/sampling/random";
import { kernels } from "./environment.js";

const backends = kernels.map(({ label, backend }) => [label, backend] as const);

/** A "model" whose logits after token t are row t of a table. */
function tableModel(rows: readonly Float32Array[]): BoundModel {
  const width = rows[0]!.length;
  const g = new GraphBuilder();
  const graph = g.finish(g.selectRows(g.embedding(g.matrix("table", rows.length, width))));
  const values = new Float32Array(rows.length * width);
  rows.forEach((row, i) => values.set(row, i * width));
  const source = bytesSource("table", new Uint8Array(values.buffer));
  const shape = [rows.length, width];
  const tensor = { name: "table", dtype: "f32", shape, strides: [width, 1], source, offset: 0 } as const;
  const size = { layers: 1, width, hidden: 0, vocabulary: width };
  return { version: "test", size, graph, tensors: new Map([["table", tensor]]) };
}

const opened: Runtime[] = [];
afterAll(async () => void (await Promise.all(opened.map((runtime) => runtime.dispose()))));

const random = randomGenerator(11);
const normal = () => Math.sqrt(-2 * Math.log(1 - random.uniform())) * Math.cos(2 * Math.PI * random.uniform());
const row = (width: number, logit: (i: number) => number) => Float32Array.from({ length: width }, (_, i) => logit(i));
const plain = { temperature: 1, topP: 1, topK: 0, minP: 0, uniform: 0.5, adjustments: { tokens: [], amounts: [] } };

const cuts = fc.record({
  temperature: fc.oneof(fc.constantFrom(0, 1, 1e-40), fc.double({ min: 0.1, max: 5, noNaN: true })),
  topP: fc.oneof(fc.constantFrom(0, 0.5, 0.85, 1), fc.double({ min: 0, max: 1, noNaN: true })),
  topK: fc.oneof(fc.constantFrom(0, 1, 1000), fc.nat(70)),
  minP: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 1, noNaN: true })),
  uniform: fc.double({ min: 0.001, max: 0.999, noNaN: true }),
});

/** Whether the choice hangs on more than rounding: a little more or less of every number gives the same token. */
async function isDecided(reference: Runtime, token: number, choice: TokenChoice): Promise<boolean> {
  const near = [-1e-4, 1e-4].flatMap((d) =>
    [1 - 1e-5, 1 + 1e-5].map((factor) => ({
      ...choice,
      uniform: Math.min(1 - 2 ** -53, Math.max(0, choice.uniform + d)),
      topP: choice.topP < 1 ? Math.min(1, choice.topP * factor) : 1,
      minP: Math.min(1, choice.minP * factor),
    })),
  );
  const tokens = await choose(
    reference,
    near.map((c) => [token, c]),
  );
  return new Set(tokens).size === 1;
}

async function choose(
  runtime: Runtime,
  requests: readonly (readonly [number, TokenChoice])[],
): Promise<readonly number[]> {
  const states = requests.map(() => runtime.createState());
  const { tokens } = await runtime.run(
    requests.map(([token, choice], i) => ({ state: states[i]!, tokens: [token], logits: "last" as const, choice })),
  );
  for (const state of states) state.release();
  return tokens;
}

test.each(backends)("%s: any cuts, sizes and adjustments", async (_, backend) => {
  const runs = 30;
  for (const width of [1, 3, 31, 65, 1030]) {
    const rows = [
      row(width, normal),
      row(width, () => 8 * normal()),
      row(width, (i) => i % 3),
      row(width, () => -2),
      row(width, (i) => (i % 5 === 4 ? Number.NEGATIVE_INFINITY : -100 * i)),
    ];
    const model = tableModel(rows);
    const runtime = await backend.open(model, { threads: 2 });
    const reference = await referenceBackend.open(model, { threads: 1 });
    opened.push(runtime);
    let decided = 0;
    await fc.assert(
      fc.asyncProperty(fc.nat(rows.length - 1), cuts, fc.nat(3), async (token, options, banned) => {
        const tokens = Array.from({ length: Math.min(banned, width - 1) }, (_, i) => (i * 7) % width);
        const amounts = tokens.map((_, i) => [-1.25, Number.NEGATIVE_INFINITY, 3][i]!);
        const adjustments = new Set(tokens).size === tokens.length ? { tokens, amounts } : plain.adjustments;
        const choice = { ...options, adjustments };
        if (!(await isDecided(reference, token, choice))) return;
        decided++;
        const expected = await choose(reference, [[token, choice]]);
        // Twice: the first must leave the logits as they were.
        expect(
          await choose(runtime, [
            [token, choice],
            [token, choice],
          ]),
        ).toEqual([expected[0], expected[0]]);
      }),
      { numRuns: runs },
    );
    expect(decided, `choices among ${width} that do not hang on rounding`).toBeGreaterThan(runs / 4);
  }
});

describe("a large vocabulary", async () => {
  const width = 50_277;
  const rows = [
    row(width, normal),
    row(width, () => 3 * normal()),
    row(width, () => random.uniform() * 4),
    // All but a few about as probable; and none more than another.
    row(width, (i) => (i % 5000 === 0 ? 3 + i / 5000 : normal() / 1000)),
    row(width, () => 1),
  ];
  const model = tableModel(rows);
  const reference = await referenceBackend.open(model, { threads: 1 });
  opened.push(reference);
  const cases: { token: number; choice: TokenChoice; expected: number }[] = [];
  for (const options of [
    {},
    { topP: 0.85 },
    { topP: 0.999 },
    { topK: 1000 },
    { topK: 40, topP: 0.5 },
    { topK: 20_000, topP: 0.9, minP: 0.01, temperature: 1.3 },
    { minP: 0.5 },
    { temperature: 0 },
  ]) {
    for (let token = 0; token < rows.length; token++) {
      for (let i = 0; i < 2; i++) {
        const choice = { ...plain, ...options, uniform: random.uniform() };
        if (!(await isDecided(reference, token, choice))) continue;
        const [expected] = await choose(reference, [[token, choice]]);
        cases.push({ token, choice, expected: expected as number });
      }
    }
  }

  test.each(backends)("%s", async (_, backend) => {
    const runtime = await backend.open(model, { threads: 2 });
    opened.push(runtime);
    expect(cases.length).toBeGreaterThan(40);
    for (const { token, choice, expected } of cases) {
      expect(await choose(runtime, [[token, choice]]), JSON.stringify([token, choice])).toEqual([expected]);
    }
  });
});

test.each(backends)("%s: no token is chosen from logits that are not numbers", async (_, backend) => {
  const rows = [
    Float32Array.from([1, Number.NaN, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
    Float32Array.from({ length: 17 }, (_, i) => (i === 16 ? Number.POSITIVE_INFINITY : 0)),
    new Float32Array(17).fill(Number.NEGATIVE_INFINITY),
  ];
  const runtime = await backend.open(tableModel(rows), { threads: 1 });
  opened.push(runtime);
  for (const [token, row] of rows.entries()) {
    expect(await choose(runtime, [[token, plain]])).toEqual([-1]);
    expect(() => chooseToken(row, plain)).toThrow(/token 1 is NaN|token 16 is Infinity|every logit is -Infinity/);
  }
});

test.each(backends)("%s: a mask leaves only what it allows, on its row alone", async (_, backend) => {
  for (const width of [1, 31, 33, 65, 1030]) {
    const model = tableModel([row(width, normal), row(width, (i) => i / width)]);
    const runtime = await backend.open(model, { threads: 2 });
    const reference = await referenceBackend.open(model, { threads: 1 });
    opened.push(runtime, reference);
    for (const allowed of [[0], [width - 1], Array.from({ length: width }, (_, i) => i).filter((i) => i % 3 === 0)]) {
      const mask = new Uint32Array(Math.ceil(width / 32));
      for (const token of allowed) mask[token >>> 5]! |= 1 << (token & 31);
      const requests = [0, 0.3, 0.9].flatMap((uniform) => [
        [0, { ...plain, uniform, mask }] as const,
        [1, { ...plain, temperature: 0, topP: 0.5, mask }] as const,
        [1, { ...plain, temperature: 0 }] as const,
      ]);
      const chosen = await choose(runtime, requests);
      expect(chosen).toEqual(await choose(reference, requests));
      chosen.forEach((token, i) => {
        if (i % 3 === 2) expect(token).toBe(width - 1);
        else expect(allowed).toContain(token);
      });
    }
    const none = { ...plain, mask: new Uint32Array(Math.ceil(width / 32)) };
    expect(await choose(runtime, [[0, none]])).toEqual([-1]);
  }
});
