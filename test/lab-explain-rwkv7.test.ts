// What the lab says of RWKV-7: the weights of earlier tokens give what the recurrence gives, and what a token removes is what it removes.

import { load, openCheckpoint } from "rwkv";
import { expect, test } from "vitest";
import { topologicalOrder } from "#rwkv/graph/graph";
import { wkv7 } from "#rwkv/graph/operations/wkv7";
import { type DeltaRuleRows, headHistory } from "#rwkv/lab/delta-rule";
import { explain } from "#rwkv/lab/explain";
import { explainReport } from "#rwkv/lab/explain-report";
import { modelValues } from "#rwkv/lab/model-values";
import { bindModel } from "#rwkv/models/versions";
import { randomGenerator } from "#rwkv/sampling/random";
import { byteTokenizer } from "#rwkv/tokenizers/bytes";
import { fixture, maxDifference } from "./fixture-files.js";

const tokens = [18, 24, 22, 3, 10, 25, 27, 34, 33, 27, 36, 8];
/** Bytes, of which the model knows the first. */
const tokenizer = { ...byteTokenizer(), vocabularySize: 37 };
const text = String.fromCharCode(...tokens);

type Matrix = number[][];
const product = (a: Matrix, b: Matrix): Matrix =>
  a.map((row) => b[0]!.map((_, j) => row.reduce((sum, x, i) => sum + x * b[i]![j]!, 0)));
const outer = (a: number[], b: number[]): Matrix => a.map((x) => b.map((y) => x * y));
const plus = (a: Matrix, b: Matrix): Matrix => a.map((row, i) => row.map((x, j) => x + b[i]![j]!));
const column = (x: number[]): Matrix => x.map((value) => [value]);
const norm = (a: Matrix): number => Math.hypot(...a.flat());

test("weights are products of transition matrices, applied to what each token wrote", () => {
  const [count, heads, size] = [7, 2, 3];
  const width = heads * size;
  const random = randomGenerator(4);
  const rows = (least: number, most: number) => ({
    rows: count,
    width,
    values: Float64Array.from({ length: count * width }, () => least + (most - least) * random.uniform()),
  });
  const given: DeltaRuleRows = {
    receptance: rows(-1, 1),
    decay: rows(0.5, 1),
    key: rows(-1, 1),
    value: rows(-1, 1),
    removal: rows(-0.6, 0.6),
    replacement: rows(-0.6, 0.6),
  };
  for (const head of [0, 1]) {
    const of = (name: keyof DeltaRuleRows, t: number) => [
      ...given[name].values.subarray(t * width + head * size, t * width + (head + 1) * size),
    ];
    const transition = (t: number): Matrix => {
      const diagonal = of("decay", t).map((w, i) => of("decay", t).map((_, j) => (i === j ? w : 0)));
      return plus(
        diagonal,
        outer(
          of("removal", t).map((x) => -x),
          of("replacement", t),
        ),
      );
    };
    const history = headHistory(given, head, size);
    let before: Matrix = outer([0, 0, 0], [0, 0, 0]);
    for (let t = 0; t < count; t++) {
      // What of each token is left before this one, and after it.
      const left = (s: number, end: number): Matrix => {
        let matrix = outer(of("value", s), of("key", s));
        for (let i = s + 1; i <= end; i++) matrix = product(matrix, transition(i));
        return matrix;
      };
      for (let s = 0; s <= t; s++) {
        const read = product(left(s, t), column(of("receptance", t))).flat();
        const weighted = of("value", s).map((v) => v * history.weights[t]![s]!);
        expect(maxDifference(weighted, read)).toBeLessThan(1e-12);
        if (s === t) continue;
        const found = product(left(s, t - 1), column(of("removal", t))).flat();
        const removed = of("value", s).map((v) => v * history.removals[t]![s]!);
        expect(maxDifference(removed, found)).toBeLessThan(1e-12);
      }
      expect(history.weights[t]!.length).toBe(t + 1);
      expect(history.removals[t]!.length).toBe(t);
      const gone = before.map((row) => row.map((x, j) => x * (1 - of("decay", t)[j]!)));
      const taken = product(product(before, column(of("removal", t))), [of("replacement", t)]);
      expect(history.faded[t]).toBeCloseTo(t === 0 ? 0 : norm(gone) / norm(before), 12);
      expect(history.removed[t]).toBeCloseTo(t === 0 ? 0 : norm(taken) / norm(before), 12);
      before = plus(product(before, transition(t)), outer(of("value", t), of("key", t)));
    }
  }
});

test("a value that is removed at a rate of 1 weighs nothing, and what is elsewhere stays", () => {
  const rows = (...values: number[]) => ({ rows: 3, width: 2, values: Float64Array.from(values) });
  const history = headHistory(
    {
      receptance: rows(1, 1, 1, 1, 1, 1),
      decay: rows(1, 1, 1, 1, 1, 1),
      key: rows(1, 0, 0, 1, 1, 0),
      value: rows(3, 4, 0, 5, 1, 1),
      removal: rows(0, 1, 0, 1, 1, 0),
      replacement: rows(0, 1, 0, 1, 1, 0),
    },
    0,
    2,
  );
  // The third token removes what the first wrote along the same key, and nothing of the second.
  expect(history.weights.map((row) => [...row])).toEqual([[1], [1, 1], [0, 1, 1]]);
  expect(history.removals.map((row) => [...row])).toEqual([[], [0], [1, 0]]);
  expect(history.faded).toEqual([0, 0, 0]);
  expect(history.removed).toEqual([0, 0, expect.closeTo(5 / Math.hypot(5, 5), 12)]);
});

test("values with these weights are what the model's recurrence gives", async () => {
  const checkpoint = await openCheckpoint(fixture("rwkv7.pth"));
  const bound = bindModel(checkpoint);
  const nodes = topologicalOrder(bound.graph.output).filter(({ call }) => wkv7.operandsOf(call));
  expect(nodes.length).toBe(2);
  for (const node of nodes) {
    const operands = wkv7.operandsOf(node.call)!;
    const { receptance, decay, key, value, removal, replacement, heads } = operands;
    const values = await modelValues(bound, tokens, [node, receptance, decay, key, value, removal, replacement]);
    const rows: DeltaRuleRows = {
      receptance: values.of(receptance),
      decay: values.of(decay),
      key: values.of(key),
      value: values.of(value),
      removal: values.of(removal),
      replacement: values.of(replacement),
    };
    const size = key.width / heads;
    const sums = new Float64Array(tokens.length * key.width);
    for (let head = 0; head < heads; head++) {
      headHistory(rows, head, size).weights.forEach((row, t) => {
        row.forEach((weight, s) => {
          for (let c = head * size; c < (head + 1) * size; c++) {
            sums[t * key.width + c]! += weight * rows.value.values[s * key.width + c]!;
          }
        });
      });
    }
    const { values: result } = values.of(node);
    expect(Math.max(...result)).toBeGreaterThan(0.5);
    expect(maxDifference(sums, result)).toBeLessThan(1e-5);
  }
  await checkpoint.close();
});

test("a text is explained by the model's own values", async () => {
  const explanation = await explain(fixture("rwkv7.pth"), text, tokenizer);
  expect(explanation).toMatchObject({ version: "7", tokens: tokens.map((id) => ({ id })) });
  expect(explanation.layers.length).toBe(2);
  const model = await load(fixture("rwkv7.pth"));
  const [logits] = await model.forward([{ state: model.createState(), tokens, logits: "all" }]);
  await model.dispose();
  explanation.layers[1]!.predictions.forEach(({ probability }, t) => {
    const row = logits!.subarray(t * 37, (t + 1) * 37);
    const total = row.reduce((sum, logit) => sum + Math.exp(logit), 0);
    expect(probability).toBeCloseTo(Math.exp(Math.max(...row)) / total, 4);
  });
  const slowest = Math.exp(-Math.exp(-0.5));
  for (const { weights, reach, half_lives, delta_rule: rule } of explanation.layers) {
    expect(half_lives.length).toBe(36);
    half_lives.forEach((halfLife, i) => {
      expect(halfLife).toBeGreaterThan(Math.LN2 / -Math.log(slowest));
      if (i > 0) expect(halfLife).toBeGreaterThanOrEqual(half_lives[i - 1]!);
    });
    tokens.forEach((_, t) => {
      const sum = (row: readonly number[]) => row.reduce((total, share) => total + share, 0);
      expect(weights[t]!.length).toBe(t + 1);
      expect(sum(weights[t]!)).toBeCloseTo(1, 6);
      expect(reach[t]).toBeCloseTo(sum(weights[t]!.map((weight, s) => weight * (t - s))), 6);
      expect(rule!.removals[t]!.length).toBe(t);
      if (t > 0) expect(sum(rule!.removals[t]!)).toBeCloseTo(1, 6);
      expect(rule!.decay[t]).toBeGreaterThan(slowest);
      for (const share of [rule!.decay[t]!, rule!.learning_rate[t]!]) expect(share > 0 && share < 1).toBe(true);
      expect(rule!.faded[t]! > 0 && rule!.faded[t]! < 1 - slowest).toBe(t > 0);
      expect(rule!.removed[t]! > 0 && rule!.removed[t]! < 1).toBe(t > 0);
      expect(rule!.subtracted[t]! >= 0 && rule!.subtracted[t]! <= 1).toBe(true);
    });
    expect(Math.max(...rule!.subtracted)).toBeGreaterThan(0);
  }
});

test("the page tells what is removed, and models that it cannot tell of are named", async () => {
  const page = await explainReport(await explain(fixture("rwkv7.pth"), text, tokenizer));
  for (const heading of ["What is removed", "and the delta rule"]) expect(page).toContain(heading);
  // Two maps of weights, two of removals, half-lives for wide and narrow screens, the strips.
  expect(page.match(/<svg/g)?.length).toBe(7);
  await expect(explain(fixture("rwkv6.pth"), text, tokenizer)).rejects.toThrow(
    "an RWKV-6 model; expected RWKV-4 or RWKV-7, which can be explained",
  );
});
