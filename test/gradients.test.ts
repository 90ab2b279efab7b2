// Gradients: every rule against central differences in float64, every kernel against the plain form, and a whole model with all
// that training can do to it.

import { describe, expect, test } from "vitest";
import { openReferenceTraining } from "#rwkv/backends/reference/reference-training";
import type { TrainableModel, TrainingRuntime, TrainingSegment } from "#rwkv/backends/training";
import { elementCount } from "#rwkv/dtypes";
import { type Graph, type RowNode, type StateVector, topologicalOrder, type WeightNode } from "#rwkv/graph/graph";
import { GraphBuilder } from "#rwkv/graph/graph-builder";
import { add, multiply } from "#rwkv/graph/operations/elementwise";
import { rwkv4 } from "#rwkv/models/rwkv4";
import { randomGenerator } from "#rwkv/sampling/random";
import { storedTensor } from "#rwkv/training/initialize";
import { trainableModel } from "#rwkv/training/trainable-model";
import { maxDifference, relativeError, trainers } from "./environment.js";
import { type Build, elementGraphs, mixingGraphs, wkv6OfProducts, wkv7OfProducts } from "./operation-graphs.js";
import { some } from "./thorough.js";

const vocabulary = 7;
const nothing = {
  step: 1,
  learningRate: 0,
  beta1: 0.9,
  beta2: 0.99,
  epsilon: 1e-8,
  weightDecay: 0,
  maxGradientNorm: 1,
};
const limits = { threads: 1, maxTokens: 64, maxSegments: 4 };

/** Random values: matrices of about unit gain, vectors around 0. */
function randomTensors(weights: readonly WeightNode[], seed: number) {
  const random = randomGenerator(seed);
  return new Map(
    weights.map(({ name, shape }) => {
      const scale = 2 / Math.sqrt(shape[1] ?? 1);
      const values = Float32Array.from({ length: elementCount(shape) }, () => (random.uniform() - 0.5) * scale);
      return [name, storedTensor(name, shape, values)];
    }),
  );
}

/** A model that learns all weights, and all states that sequences begin with. */
function modelOf(
  graph: Graph,
  seed: number,
  options: { checkpointing?: boolean; logitPenalty?: number } = {},
): TrainableModel {
  const states = new Map<StateVector, WeightNode>(
    graph.stateVectors.map((state) => [state, { op: "vector", name: `state.${state.index}`, shape: [state.width] }]),
  );
  const tensors = randomTensors([...graph.weights, ...states.values()], seed);
  return trainableModel(graph, tensors, { weights: graph.weights, states, logitPenalty: 0, ...options });
}

/** Three sequences of different lengths, from states that are not empty; some tokens have no target. */
function batchOf(runtime: TrainingRuntime, graph: Graph): TrainingSegment[] {
  const random = randomGenerator(5);
  return [
    { tokens: [1, 2, 3, 4, 5, 1], targets: [2, 3, 4, -1, 1, 0] },
    { tokens: [6], targets: [3] },
    { tokens: [0, 1, 2, 2], targets: [-1, -1, 5, 6] },
  ].map((sequence) => {
    const state = runtime.createState();
    let at = 0;
    if (hasLearnedStates(graph))
      for (const { width, initial } of graph.stateVectors) {
        for (let i = 0; i < width; i++)
          state.values[at++] = Number(initial) < -1 ? random.uniform() - 0.5 : 1 + random.uniform();
      }
    return { ...sequence, state, nextState: runtime.createState() };
  });
}

/** Whether gradients flow into the states that sequences begin with. */
const hasLearnedStates = (graph: Graph) =>
  topologicalOrder(graph.output).every(
    ({ call }) => !["attention", "linearAttention", "addPosition", "aft", "elman", "gru"].includes(call.operation.name),
  );

const graphs: Record<string, Build> = {
  embedding: (_, x) => x,
  layerNorm: (g, x, n) => g.layerNorm(x, g.vector("weight", n), g.vector("bias", n), 1e-2),
  matmul: (g, x, n) => g.matmul(g.matrix("w", 2 * n + 1, n), x),
  "tokenShift, one to nine factors": (g, x, n) => {
    const factors = (count: number) => Array.from({ length: count }, (_, i) => g.vector(`factor${count}.${i}`, n));
    let sum = x;
    for (const count of [1, 3, 4, 5, 9]) {
      for (const mixed of g.tokenShift(sum, g.state(n, 0), factors(count))) sum = add(sum, mixed);
    }
    return sum;
  },
  "tokenShift, only some outputs used": (g, x, n) => {
    const [, second, third] = g.tokenShift(x, g.state(n, 0), [g.vector("a", n), g.vector("b", n), g.vector("c", n)]);
    return multiply(second, third);
  },
  wkv: (g, x, n) => {
    const state = { numerator: g.state(n, 0), denominator: g.state(n, 0), maxExponent: g.state(n, -1e30) };
    const decay = g.vectorFunction("negate", g.vectorFunction("exp", g.vector("decay", n)));
    return g.wkv(g.matmul(g.matrix("key", n, n), x), x, decay, g.vector("first", n), state);
  },
  ...mixingGraphs,
  ...elementGraphs,
  dropout: (g, x) => g.dropout(g.dropout(x, 0.4), 0.2),
};

const graphOf = (name: string, width: number) => {
  const g = new GraphBuilder();
  const x = g.embedding(g.matrix("table", vocabulary, width));
  const y = (graphs[name] as Build)(g, x, width);
  // At least as many logits as there are tokens.
  return g.finish(g.selectRows(g.matmul(g.matrix("head", vocabulary, y.width), y)));
};

describe.each(Object.keys(graphs).map((name, number) => [name, number] as const))(
  "the gradient of %s",
  (name, number) => {
    test("is what central differences give", async () => {
      const graph = graphOf(name, 3);
      const model = modelOf(graph, 3);
      const runtime = await openReferenceTraining(model, limits, "f64");
      // Learned states are written into the sequences by whoever trains them; here all sequences begin as batchOf says.
      const segments = batchOf(runtime, graph);
      const loss = async () => {
        const { losses } = await runtime.step(segments, nothing, 9);
        return losses.reduce((sum, value) => sum + value, 0) / losses.length;
      };
      const exactLoss = () => runtime.meanLoss(segments, 9);
      await loss();
      const gradients = new Map(runtime.parameters.map((p) => [p.name, p.gradient.slice()]));
      const step = 1e-5;
      const central = (change: (amount: number) => void) => {
        change(step);
        const above = exactLoss();
        change(-2 * step);
        const below = exactLoss();
        change(step);
        return (above - below) / (2 * step);
      };
      for (const { name: weight } of graph.weights) {
        const values = runtime.weights.get(weight)!;
        values.forEach((_, i) => {
          const expected = central((amount) => {
            values[i]! += amount;
          });
          // What nothing depends on has no gradient.
          expect(gradients.get(weight)?.[i] ?? 0, `${weight}[${i}]`).toBeCloseTo(expected, 7);
        });
      }
      let offset = 0;
      for (const { index, width } of hasLearnedStates(graph) ? graph.stateVectors : []) {
        for (let c = 0; c < width; c++) {
          const at = offset + c;
          // In float32 a state cannot change by less than this.
          const change = 2 ** -9;
          const evaluate = (amount: number) => {
            for (const { state } of segments) state.values[at]! += amount;
            const value = exactLoss();
            for (const { state } of segments) state.values[at]! -= amount;
            return value;
          };
          const expected = (evaluate(change) - evaluate(-change)) / (2 * change);
          expect(gradients.get(`state.${index}`)![c], `state ${index}[${c}]`).toBeCloseTo(expected, 5);
        }
        offset += width;
      }
    });

    test.each(some([1, 3, 31, 65], number))("is the same on every backend, width %i", async (width) => {
      const graph = graphOf(name, width);
      const model = modelOf(graph, width, { logitPenalty: 1e-2 });
      const expected = await stepOf(await openReferenceTraining(model, limits), graph);
      const scale = Math.max(1, ...expected.map(Math.abs));
      for (const { open, label, threads } of trainers) {
        const found = await stepOf(await open(model, { ...limits, threads }), graph);
        expect(maxDifference(found, expected), label).toBeLessThan(scale * 4e-6);
      }
    });
  },
);

describe.each(Object.keys(mixingGraphs))("where only one weight around %s is learned", (name) => {
  test("its gradient is that of learning all, on every backend", async () => {
    const graph = graphOf(name, 6);
    const tensors = randomTensors(graph.weights, 6);
    const learning = (weights: readonly WeightNode[]) => trainableModel(graph, tensors, { weights, logitPenalty: 0 });
    const gradientsOf = async (runtime: TrainingRuntime) => {
      await runtime.step(batchOf(runtime, graph), nothing, 9);
      const gradients = new Map(runtime.parameters.map((p) => [p.name, p.gradient.slice()]));
      await runtime.dispose();
      return gradients;
    };
    const all = await gradientsOf(await openReferenceTraining(learning(graph.weights), limits));
    for (const weight of graph.weights) {
      for (const { open, label, threads } of trainers) {
        const found = await gradientsOf(await open(learning([weight]), { ...limits, threads }));
        expect([...found.keys()]).toEqual([weight.name]);
        const difference = maxDifference(found.get(weight.name)!, all.get(weight.name)!);
        expect(difference, `${weight.name}, ${label}`).toBeLessThan(4e-6);
      }
    }
  });
});

/** Losses, norm, gradients, and the next states, in one list. */
async function stepOf(runtime: TrainingRuntime, graph: Graph): Promise<number[]> {
  const segments = batchOf(runtime, graph);
  const { losses, gradientNorm } = await runtime.step(segments, nothing, 9);
  const gradients = runtime.parameters.flatMap(({ gradient }) => [...gradient]);
  const states = graph.stateVectors.length > 0 ? segments.flatMap(({ nextState }) => [...nextState.values]) : [];
  await runtime.dispose();
  return [...losses, gradientNorm, ...gradients, ...states];
}

const size = { layers: 3, width: 20, hidden: 35, vocabulary };

describe("a whole model", () => {
  test("has the same gradients with checkpointing, and takes less memory", async () => {
    const graph = rwkv4.build({ ...size, layers: 6 }, { layerNormEpsilon: 1e-5, dropout: 0.1 });
    for (const { open, label, threads } of trainers) {
      const options = { ...limits, maxTokens: 2048, threads };
      const plain = await open(modelOf(graph, 1), options);
      const checkpointed = await open(modelOf(graph, 1, { checkpointing: true }), options);
      expect(checkpointed.memory, label).toBeLessThan(0.6 * plain.memory);
      expect(maxDifference(await stepOf(checkpointed, graph), await stepOf(plain, graph)), label).toBe(0);
    }
  });

  test("steps to the same bits whatever the number of threads", async () => {
    const graph = rwkv4.build(size, { layerNormEpsilon: 1e-5, dropout: 0.1 });
    const model = modelOf(graph, 2);
    const bySource = new Map<string, Float32Array>();
    for (const { open, label } of trainers) {
      for (const threads of [1, 2, 3]) {
        const runtime = await open(model, { ...limits, threads });
        for (let step = 1; step <= 3; step++) {
          await runtime.step(batchOf(runtime, graph), { ...nothing, step, learningRate: 1e-2, weightDecay: 0.1 }, step);
        }
        const values = Float32Array.from(runtime.parameters.flatMap((p) => [...p.values, ...p.secondMoment]));
        await runtime.dispose();
        const source = label.replace(/, .* threads?/, "");
        expect(values.every(Number.isFinite)).toBe(true);
        expect(maxDifference(values, bySource.get(source) ?? values), `${label}, ${threads} threads`).toBe(0);
        bySource.set(source, values);
      }
    }
  });

  test("learns alike on every backend", async () => {
    const graph = rwkv4.build(size, { layerNormEpsilon: 1e-5 });
    const model = modelOf(graph, 2);
    const learn = async (runtime: TrainingRuntime) => {
      const losses: number[] = [];
      for (let step = 1; step <= 20; step++) {
        const settings = { ...nothing, step, learningRate: 5e-3, weightDecay: 0.1, maxGradientNorm: 0.5 };
        const result = await runtime.step(batchOf(runtime, graph), settings, step);
        losses.push(result.losses.reduce((sum, loss) => sum + loss, 0) / result.losses.length);
      }
      await runtime.dispose();
      return losses;
    };
    const expected = await learn(await openReferenceTraining(model, limits));
    expect(expected.at(-1)).toBeLessThan(0.7 * expected[0]!);
    for (const { open, label, threads } of trainers) {
      expect(maxDifference(await learn(await open(model, { ...limits, threads })), expected), label).toBeLessThan(2e-3);
    }
  });

  test("is left as it was by gradients that are not numbers", async () => {
    const graph = rwkv4.build(size, { layerNormEpsilon: 1e-5 });
    const model = modelOf(graph, 2);
    for (const { open, label, threads } of [
      ...trainers,
      { open: openReferenceTraining, label: "reference", threads: 1 },
    ]) {
      const runtime = await open(model, { ...limits, threads });
      const parameter = runtime.parameters.find(({ name }) => name === "blocks.1.ffn.key.weight")!;
      parameter.values[7] = Number.NaN;
      const before = runtime.parameters.map(({ values }) => values.slice());
      const { gradientNorm } = await runtime.step(batchOf(runtime, graph), { ...nothing, learningRate: 1 }, 1);
      expect(gradientNorm, label).toBeNaN();
      expect(
        runtime.parameters.map(({ values }) => values.slice()),
        label,
      ).toEqual(before);
      await runtime.dispose();
    }
  });
});

test.each<[string, (g: GraphBuilder, x: RowNode) => RowNode]>([
  ["wkv6", (g, x) => wkv6OfProducts(g, x, 128, 2, "many")],
  ["wkv6, one decay for all tokens", (g, x) => wkv6OfProducts(g, x, 128, 2, "one")],
  ["wkv7", (g, x) => wkv7OfProducts(g, x, 128, 2)],
])("heads of 64, over more tokens than lie between two matrices that are kept: %s", async (_, recurrence) => {
  const g = new GraphBuilder();
  const x = g.embedding(g.matrix("table", vocabulary, 20));
  const graph = g.finish(g.selectRows(g.matmul(g.matrix("head", vocabulary, 128), recurrence(g, x))));
  const model = modelOf(graph, 4);
  const random = randomGenerator(6);
  const ids = (count: number) => Array.from({ length: count }, () => Math.floor(random.uniform() * vocabulary));
  const sequences = [50, 17, 16, 1].map((count) => ({ tokens: ids(count), targets: ids(count) }));
  const initial = Float32Array.from({ length: 2 * 64 * 64 }, () => random.uniform() - 0.5);
  const gradientsOf = async (runtime: TrainingRuntime) => {
    const segments = sequences.map((sequence) => {
      const state = runtime.createState();
      state.values.set(initial);
      return { ...sequence, state, nextState: runtime.createState() };
    });
    await runtime.step(segments, nothing, 9);
    const gradients = runtime.parameters.map(({ name, gradient }) => [name, gradient.slice()] as const);
    await runtime.dispose();
    return new Map(gradients);
  };
  const room = { ...limits, maxTokens: 128 };
  const expected = await gradientsOf(await openReferenceTraining(model, room));
  for (const { open, label, threads } of trainers) {
    const found = await gradientsOf(await open(model, { ...room, threads }));
    for (const [name, gradient] of expected) {
      expect(relativeError(found.get(name)!, gradient), `${name}, ${label}`).toBeLessThan(1e-5);
    }
  }
});

test("keys of 80 and more, far apart, give gradients that are finite and those of the plain form", async () => {
  const width = 3;
  const g = new GraphBuilder();
  const x = g.embedding(g.matrix("table", vocabulary, width));
  const state = { numerator: g.state(width, 0), denominator: g.state(width, 0), maxExponent: g.state(width, -1e30) };
  const key = g.matmul(g.matrix("key", width, width), x);
  const y = g.wkv(key, x, g.vector("decay", width), g.vector("first", width), state);
  const graph = g.finish(g.selectRows(g.matmul(g.matrix("head", vocabulary, width), y)));
  const model = modelOf(graph, 4);
  const values = Float32Array.from({ length: vocabulary * width }, (_, i) => (i % 5) - 2);
  const tensors = new Map([
    ...model.tensors,
    ["table", storedTensor("table", [vocabulary, width], values)],
    ["key", storedTensor("key", [width, width], Float32Array.of(100, 0, 0, 0, -90, 0, 0, 0, 120))],
    ["decay", storedTensor("decay", [width], Float32Array.of(-0.001, -3, -40))],
  ]);
  const expected = await stepOf(await openReferenceTraining({ ...model, tensors }, limits), graph);
  expect(expected.every(Number.isFinite)).toBe(true);
  const scale = Math.max(...expected.map(Math.abs).filter((value) => value < 50));
  for (const { open, label, threads } of trainers) {
    const found = await stepOf(await open({ ...model, tensors }, { ...limits, threads }), graph);
    expect(maxDifference(found, expected), label).toBeLessThan(1e-4 * Math.max(1, scale));
  }
});
