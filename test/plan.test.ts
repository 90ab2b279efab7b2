// The plan of a model: what is fused, what may run together, and where values live.

import { describe, expect, test } from "vitest";
import { differentiate } from "#rwkv/graph/differentiate";
import type { FusedCall } from "#rwkv/graph/fusion";
import { type RowNode, topologicalOrder } from "#rwkv/graph/graph";
import { GraphBuilder } from "#rwkv/graph/graph-builder";
import { add } from "#rwkv/graph/operations/elementwise";
import { matmul } from "#rwkv/graph/operations/matmul";
import { planGraph } from "#rwkv/graph/plan";
import { rwkv4 } from "#rwkv/models/rwkv4";

const size = { layers: 3, width: 8, hidden: 32, vocabulary: 50 };
const graph = rwkv4.build(size, { layerNormEpsilon: 1e-5 });
const plan = planGraph([graph.output], 16);

test("a layer of RWKV-4 is nine steps, with nothing elementwise left", () => {
  const steps = plan.steps.map((step) => step.map((operation) => operation.kernel));
  expect(steps.slice(2, 11)).toEqual([
    ["layerNorm"],
    ["tokenShift"],
    ["matmul", "matmul", "matmul"],
    ["wkv"],
    ["matmul"],
    ["layerNorm"],
    ["tokenShift"],
    ["matmul", "matmul"],
    ["matmul"],
  ]);
  expect(plan.steps.length).toBe(2 + 9 * size.layers + 3);
  expect(steps.flat()).not.toContain("elementwise");
});

test("activations, gates and residuals are part of the products", () => {
  const value = plan.steps
    .flat()
    .find(({ call }) => call && matmul.operandsOf(call)?.weight.name === "blocks.1.ffn.value.weight") as FusedCall;
  expect(value?.multiplier).toBeDefined();
  expect(value?.addend).toBeDefined();
  const activations = plan.steps.flat().flatMap((operation) => {
    const product = operation.call && matmul.operandsOf(operation.call);
    return product ? [`${product.weight.name} ${operation.activation ?? "none"}`] : [];
  });
  expect(activations).toContain("blocks.0.att.receptance.weight sigmoid");
  expect(activations).toContain("blocks.0.ffn.key.weight reluSquared");
  expect(activations).toContain("head.weight none");
});

test("there are eight barriers a layer with quantized weights, seven without", () => {
  const matrices = new Set(graph.weights.filter((weight) => weight.op === "matrix" && weight.name !== "emb.weight"));
  const quantized = planGraph([graph.output], 16, { quantized: matrices });
  const barriersOf = ({ barriers }: typeof plan) => barriers.filter((barrier) => barrier === "always").length;
  // The embedding, its norm, and the head's rows and head come on top, whose norm needs no barrier of its own.
  expect(barriersOf(plan)).toBe(7 * size.layers + 5);
  expect(barriersOf(quantized)).toBe(8 * size.layers + 5);
  quantized.steps.forEach((step, i) => {
    const next = quantized.steps[i + 1];
    const barrier = quantized.barriers[i];
    const ops = step.map(({ kernel }) => kernel);
    // Whoever needs whole rows, or shares something else than channels, has barriers before and after.
    if (ops.some((op) => !["layerNorm", "tokenShift", "wkv", "quantizeRows"].includes(op)))
      expect(barrier).toBe("always");
    if (!next || next.some(({ kernel }) => ["layerNorm", "matmul"].includes(kernel))) expect(barrier).toBe("always");
    if (barrier === "fewRowsApart") expect(ops).toContain("layerNorm");
  });
  const rows = quantized.steps.flat().filter(({ kernel }) => kernel === "quantizeRows");
  expect(rows.length).toBe(7 * size.layers + 1);
});

describe.each([
  ["", plan],
  [
    " of quantized weights",
    planGraph([graph.output], 16, { quantized: new Set(graph.weights.filter(({ op }) => op === "matrix")) }),
  ],
])("buffers%s", (_, plan) => {
  test("values alive at the same time do not overlap", () => {
    // Steps that no barrier parts are at the same time.
    let time = 0;
    const times = plan.steps.map((_, i) => (plan.barriers[i - 1] === "always" ? ++time : time));
    const madeAt = new Map(
      plan.steps.flatMap((step, i) =>
        step.flatMap((o) => o.outputs.map((node) => [node, times[i] as number] as const)),
      ),
    );
    const lastUse = new Map(madeAt);
    plan.steps.forEach((step, i) =>
      step.forEach((o) => o.inputs.forEach((node) => lastUse.set(node, times[i] as number))),
    );
    const nodes = [...plan.buffers];
    expect(nodes.length).toBe(madeAt.size);
    for (const [a, bufferA] of nodes) {
      for (const [b, bufferB] of nodes) {
        if (
          a === b ||
          (madeAt.get(a) as number) > (lastUse.get(b) as number) ||
          (madeAt.get(b) as number) > (lastUse.get(a) as number)
        )
          continue;
        const apart =
          bufferA.offset + a.width * 16 * 4 <= bufferB.offset || bufferB.offset + b.width * 16 * 4 <= bufferA.offset;
        expect(apart).toBe(true);
      }
    }
  });
});

test("every operation comes after what it needs", () => {
  const done = new Set();
  for (const step of plan.steps) {
    for (const operation of step) for (const input of operation.inputs) expect(done.has(input)).toBe(true);
    for (const operation of step) for (const output of operation.outputs) done.add(output);
  }
  expect(done.has(graph.output)).toBe(true);
  expect(topologicalOrder(graph.output).length).toBeGreaterThan(done.size);
});

test("a graph with wrong shapes fails where it is built", () => {
  const g = new GraphBuilder();
  const x = g.embedding(g.matrix("table", 5, 4));
  expect(() => g.matmul(g.matrix("w", 3, 5), x)).toThrow("matmul w: expected rows of 5, found 4");
  expect(() => g.layerNorm(x, g.vector("a", 4), g.vector("b", 3), 1e-5)).toThrow("layerNorm: rows of 4, a vector of 3");
  expect(() => add(x, g.selectRows(x))).toThrow("add");
  expect(() => g.tokenShift(g.selectRows(x), g.state(4, 0), [g.vector("m", 4)])).toThrow("walks along time");
  expect(() => g.tokenShift(x, g.state(5, 0), [g.vector("n", 4)])).toThrow("tokenShift: a state of 4 floats, found 5");
  expect(() => g.vector("a", 4)).toThrow("weight a is used twice");
});

test("the arena does not grow with the number of layers", () => {
  const deeper = planGraph([rwkv4.build({ ...size, layers: 12 }, { layerNormEpsilon: 1e-5 }).output], 16);
  expect(deeper.arenaSize).toBe(plan.arenaSize);
});

describe("a plan of training", () => {
  const wide = rwkv4.build({ layers: 6, width: 64, hidden: 256, vocabulary: 500 }, { layerNormEpsilon: 1e-5 });
  const rootsOf = (checkpointing: boolean) => {
    const { loss, weights } = differentiate(wide, { weights: new Set(wide.weights), logitPenalty: 0, checkpointing });
    return [loss, ...weights.values()];
  };
  const planOf = (checkpointing: boolean) => planGraph(rootsOf(checkpointing), 512, { schedule: "inOrder" });

  test.each([false, true])("takes at most 1.2 times what its values need, with checkpointing %s", (checkpointing) => {
    const { steps, buffers, arenaSize } = planOf(checkpointing);
    const last = new Map<RowNode, number>();
    steps.forEach((step, i) => {
      for (const { inputs, outputs } of step) for (const node of [...inputs, ...outputs]) last.set(node, i);
    });
    for (const root of rootsOf(checkpointing)) if (last.has(root)) last.set(root, steps.length);
    const kept = new Set(
      [...steps.flat()].flatMap(({ outputs }) => outputs).filter((node) => typeof node.rows === "number"),
    );
    const sizeOf = ({ rows, width }: RowNode) => 4 * width * (typeof rows === "number" ? rows : 512);
    let most = 0;
    const live = new Set<number>();
    const alive = new Map<RowNode, number>();
    steps.forEach((step, i) => {
      for (const { outputs } of step) for (const node of outputs) alive.set(node, buffers.get(node)!.offset);
      live.clear();
      let needed = 0;
      for (const [node, offset] of alive) {
        // Values in each other's place count once.
        if (!live.has(offset)) needed += sizeOf(node);
        live.add(offset);
      }
      most = Math.max(most, needed);
      for (const node of [...alive.keys()]) if (!kept.has(node) && last.get(node)! <= i) alive.delete(node);
    });
    expect(arenaSize).toBeLessThan(1.2 * most);
  });

  test("keeps one matrix of batch x vocabulary: the gradient takes the place of the logits", () => {
    const { steps, buffers } = planOf(false);
    const nodes = steps.flat().flatMap(({ outputs }) => outputs);
    const logits = nodes.filter((node) => node.rows === "selected" && node.width === 500);
    expect(logits.map(({ call }) => call.operation.name).sort()).toEqual(["crossEntropy", "matmul"]);
    expect(new Set(logits.map((node) => buffers.get(node)!.offset)).size).toBe(1);
  });
});
