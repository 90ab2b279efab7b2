// Chains of elementwise functions: how a plan makes them, and that graphs of any form give on every backend what the plain forms
// give.

import fc from "fast-check";
import { expect, test } from "vitest";
import { referenceBackend } from "#rwkv/backends/reference/reference";
import { openReferenceTraining } from "#rwkv/backends/reference/reference-training";
import type { TrainingRuntime } from "#rwkv/backends/training";
import type { WeightDType } from "#rwkv/dtypes";
import type { Graph, RowNode } from "#rwkv/graph/graph";
import { GraphBuilder } from "#rwkv/graph/graph-builder";
import { add, exp, multiply, sigmoid, subtract, tanh } from "#rwkv/graph/operations/elementwise";
import { constant, vectorRow } from "#rwkv/graph/operations/leaves";
import { planGraph } from "#rwkv/graph/plan";
import type { BoundModel } from "#rwkv/models/versions";
import { trainableModel } from "#rwkv/training/trainable-model";
import { kernels, maxDifference, trainers } from "./environment.js";
import { bindRandomly, vocabulary } from "./random-models.js";
import { rounds } from "./thorough.js";

const kernelsOf = (output: RowNode) =>
  planGraph([output], 16).steps.flatMap((step) => step.map(({ kernel }) => kernel));

/** A layer's worth of small operations, as newer versions have them. */
function glue(g: GraphBuilder, x: RowNode): RowNode {
  const vector = (name: string) => vectorRow(g.vector(name, x.width));
  const gate = sigmoid(add(multiply(x, vector("a")), vector("b")));
  const decay = exp(multiply(sigmoid(subtract(x, vector("c"))), constant(-0.6)));
  const mixed = add(multiply(gate, x), multiply(subtract(constant(1), gate), decay));
  return tanh(add(multiply(mixed, add(constant(1), multiply(subtract(gate, constant(1)), vector("d")))), x));
}

test("functions that follow each other are one operation, and one pass over memory", () => {
  const g = new GraphBuilder();
  const x = g.embedding(g.matrix("table", vocabulary, 512));
  expect(kernelsOf(glue(g, x))).toEqual(["embedding", "elementwise"]);
});

test("what a product can end with stays with the product", () => {
  const g = new GraphBuilder();
  const x = g.embedding(g.matrix("table", vocabulary, 16));
  const product = tanh(g.matmul(g.matrix("w", 16, 16), x));
  expect(kernelsOf(add(multiply(product, x), x))).toEqual(["embedding", "matmul"]);
});

test("no chain reaches around an operation that needs a part of it", () => {
  const g = new GraphBuilder();
  const x = g.embedding(g.matrix("table", vocabulary, 12));
  const a = sigmoid(x);
  // c needs a, and what a head's sum of a gives.
  const c = multiply(a, exp(g.headSum(a, 3)));
  const plan = planGraph([c], 16);
  expect(plan.steps.map((step) => step.map(({ kernel }) => kernel))).toEqual([
    ["embedding"],
    ["elementwise"],
    ["headSum"],
    ["elementwise"],
    ["elementwise"],
  ]);
});

test("threads continue with their heads where they have the same channels before and after", () => {
  const barriersWith = (heads: number) => {
    const g = new GraphBuilder();
    const x = sigmoid(g.embedding(g.matrix("table", vocabulary, 768)));
    const normal = multiply(g.headNorm(x, heads, 1e-5), vectorRow(g.vector("weight", 768)));
    return planGraph([add(normal, multiply(g.headSum(x, heads), x))], 16).barriers;
  };
  // The embedding, then functions, both reductions, and the functions of those.
  expect(barriersWith(12)).toEqual(["always", "never", "never", "always"]);
  expect(barriersWith(16)).toEqual(["always", "always", "always", "always"]);
});

test("operands must fit", () => {
  const g = new GraphBuilder();
  const x = g.embedding(g.matrix("table", vocabulary, 12));
  expect(() => add(x, vectorRow(g.vector("v", 5)))).toThrow("add: rows of 12 and of 5 floats");
  expect(() => add(x, g.selectRows(x))).toThrow("add: rows of tokens and of selected");
  expect(() => g.headSum(x, 5)).toThrow("headSum: rows of 12 floats in 5 heads");
});

test("operations read vectors and constants as rows", async () => {
  const g = new GraphBuilder();
  const width = 96;
  const x = g.embedding(g.matrix("table", vocabulary, width));
  const bias = vectorRow(g.vector("bias", width));
  // One copy serves both, and functions read the vector itself.
  const both = [g.headNorm(bias, 3, 1), g.headSum(bias, 3), add(g.matmul(g.matrix("m", width, width), bias), bias)];
  expect(kernelsOf(both.reduce((total, value) => add(total, value))).sort()).toEqual(
    ["elementwise", "elementwise", "headNorm", "headSum", "matmul"].sort(),
  );
  const rows = Array.from({ length: 10 }, (_, which) => readAsRow(g, `l${which}`, width, 3, which));
  const sum = [...rows, ...both].reduce((total, value) => add(total, value), x);
  const graph = g.finish(g.selectRows(g.matmul(g.matrix("head", vocabulary, width), sum)));
  for (const dtype of ["f32", "q8"] as const) await compareBackends(bindRandomly(graph, 3), dtype);
});

test("two values that are made together do not lie in one place", () => {
  const g = new GraphBuilder();
  const x = g.embedding(g.matrix("table", vocabulary, 258));
  const a = sigmoid(x);
  const b = sigmoid(a);
  const [shifted] = g.tokenShift(a, g.state(258, 0), [g.vector("factor", 258)]);
  const plan = planGraph([add(add(add(x, a), shifted), b)], 16);
  const chain = plan.steps.flat().find(({ kernel }) => kernel === "elementwise");
  const places = chain?.outputs.map((node) => plan.buffers.get(node)!.offset) ?? [];
  expect(places.length).toBe(3);
  expect(new Set(places).size).toBe(3);
});

/** A step of a random graph: which operation, and of which of the values so far. */
const stepArbitrary = fc.record({
  kind: fc.constantFrom(
    "unary",
    "binary",
    "vector",
    "heads",
    "constant",
    "matmul",
    "headSum",
    "headNorm",
    "tokenShift",
    "leaf",
  ),
  first: fc.nat(),
  second: fc.nat(),
  which: fc.nat(),
});
type Step = typeof stepArbitrary extends fc.Arbitrary<infer T> ? T : never;

/** What an operation that is no function of elements makes of a vector or of a constant. */
function readAsRow(g: GraphBuilder, name: string, width: number, heads: number, which: number): RowNode {
  const leaf = which % 2 ? vectorRow(g.vector(name, width)) : constant(0.3, width);
  const kind = which % 5;
  if (kind === 0) return g.matmul(g.matrix(`${name}m`, width, width), leaf);
  if (kind === 1) return g.headNorm(leaf, heads, 1);
  if (kind === 2) return tanh(g.headSum(leaf, heads));
  if (kind === 3) return g.headNormalize(leaf, heads, 1e-12);
  return g.layerNorm(leaf, g.vector(`${name}w`, width), g.vector(`${name}b`, width), 1);
}

/** A graph of the steps, whose values stay small enough to be compared. */
function randomGraph(width: number, steps: readonly Step[]): Graph {
  const g = new GraphBuilder();
  const heads = width % 5 === 0 ? 5 : width % 3 === 0 ? 3 : 1;
  const values = [g.embedding(g.matrix("table", vocabulary, width))];
  for (const [i, { kind, first, second, which }] of steps.entries()) {
    const a = values[first % values.length]!;
    const b = values[second % values.length]!;
    const bounded = [sigmoid, tanh][which % 2]!;
    if (kind === "unary") values.push(bounded(a));
    if (kind === "binary") values.push(bounded([add, subtract, multiply][which % 3]!(a, b)));
    if (kind === "vector") values.push(multiply(a, vectorRow(g.vector(`v${i}`, width))));
    if (kind === "heads") values.push(add(a, vectorRow(g.vector(`h${i}`, heads))));
    if (kind === "constant") values.push(multiply(constant((which % 7) / 7), a));
    if (kind === "matmul") values.push(g.matmul(g.matrix(`m${i}`, width, width), a));
    if (kind === "headSum") values.push(multiply(b, tanh(g.headSum(a, heads))));
    if (kind === "headNorm") values.push(tanh(g.headNorm(a, heads, 1)));
    if (kind === "leaf") values.push(add(a, readAsRow(g, `l${i}`, width, heads, which)));
    if (kind === "tokenShift") values.push(...g.tokenShift(a, g.state(width, 0), [g.vector(`s${i}`, width)]));
  }
  const sum = values.reduce((total, value) => add(total, value));
  const mean = multiply(sum, constant(1 / values.length));
  return g.finish(g.selectRows(g.matmul(g.matrix("head", vocabulary, width), mean)));
}

const tokens = [0, 1, 2, 3, 4, 0, 2];

/** Holds the logits and states of a model on every backend to the reference's. */
async function compareBackends(model: BoundModel, dtype: WeightDType): Promise<void> {
  const run = async (backend: (typeof kernels)[number]["backend"], threads: number) => {
    const runtime = await backend.open(model, { threads, dtype });
    const state = runtime.createState();
    const { logits } = await runtime.run([{ state, tokens, logits: "all" }]);
    const found = [...logits, ...(await runtime.readState(state))];
    await runtime.dispose();
    return found;
  };
  const expected = await run(referenceBackend, 1);
  for (const { backend, threads, label } of kernels) {
    expect(maxDifference(await run(backend, threads), expected), label).toBeLessThan(1e-4);
  }
}

test("random graphs give on every backend what the plain forms give", { timeout: 240_000 }, async () => {
  const graphs = fc.tuple(fc.constantFrom(1, 6, 30, 66, 258), fc.array(stepArbitrary, { minLength: 1, maxLength: 60 }));
  await fc.assert(
    fc.asyncProperty(graphs, ([width, steps]) => compareBackends(bindRandomly(randomGraph(width, steps), 3), "f32")),
    { numRuns: rounds(20) },
  );
});

test("and so do their gradients", { timeout: 240_000 }, async () => {
  const graphs = fc.tuple(fc.constantFrom(6, 30, 258), fc.array(stepArbitrary, { minLength: 1, maxLength: 25 }));
  await fc.assert(
    fc.asyncProperty(graphs, async ([width, steps]) => {
      const { graph, tensors } = bindRandomly(randomGraph(width, steps), 3);
      const model = trainableModel(graph, tensors, { weights: graph.weights, logitPenalty: 0 });
      const gradientsOf = async (runtime: TrainingRuntime) => {
        const [state, nextState] = [runtime.createState(), runtime.createState()];
        const targets = tokens.map((token) => (token + 1) % vocabulary);
        const still = { step: 1, learningRate: 0, beta1: 0, beta2: 0, epsilon: 1, weightDecay: 0, maxGradientNorm: 1 };
        const { losses } = await runtime.step([{ state, nextState, tokens, targets }], still, 0);
        const gradients = runtime.parameters.flatMap(({ gradient }) => [...gradient]);
        await runtime.dispose();
        return [...losses, ...gradients];
      };
      const limits = { threads: 1, maxTokens: 16, maxSegments: 2 };
      const expected = await gradientsOf(await openReferenceTraining(model, limits));
      for (const { open, threads, label } of trainers) {
        const found = await gradientsOf(await open(model, { ...limits, threads }));
        expect(maxDifference(found, expected), label).toBeLessThan(1e-4);
      }
    }),
    { numRuns: rounds(15) },
  );
});
