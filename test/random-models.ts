// Graphs bound to random weights, and what they give for a few passes: for tests of single operations on any backend.

import type { Runtime } from "#rwkv/backends/backend";
import { bytesSource } from "#rwkv/byte-source";
import { contiguousStrides, type StoredTensor } from "#rwkv/checkpoints/checkpoint";
import { elementCount } from "#rwkv/dtypes";
import type { Graph } from "#rwkv/graph/graph";
import { GraphBuilder } from "#rwkv/graph/graph-builder";
import type { BoundModel } from "#rwkv/models/versions";
import { randomGenerator } from "#rwkv/sampling/random";
import { type Build, operationGraphs } from "./operation-graphs.js";

/** Tokens of these models. */
export const vocabulary = 7;

/** The graph of this name over rows of a width. */
export function operationGraph(name: string, width: number): Graph {
  const g = new GraphBuilder();
  const x = g.embedding(g.matrix("table", vocabulary, width));
  return g.finish(g.selectRows((operationGraphs[name] as Build)(g, x, width)));
}

/** Types that the matrices of a graph are tried in. */
export function dtypesOf(name: string) {
  if (/matmul|^wkv($| )/.test(name)) return ["f32", "bf16", "f16", "q8", "q4"] as const;
  return name === "embedding" ? (["f32", "bf16", "f16"] as const) : (["f32"] as const);
}

/** Binds a graph to random weights: matrices of about unit gain, vectors around 0. */
export function bindRandomly(graph: Graph, seed: number): BoundModel {
  const random = randomGenerator(seed);
  const tensors = new Map<string, StoredTensor>();
  for (const { name, shape } of graph.weights) {
    const scale = 2 / Math.sqrt(shape[1] ?? 1);
    const values = Float32Array.from({ length: elementCount(shape) }, () => (random.uniform() - 0.5) * scale);
    const source = bytesSource(name, new Uint8Array(values.buffer));
    tensors.set(name, { name, dtype: "f32", shape, strides: contiguousStrides(shape), source, offset: 0 });
  }
  return { version: "test", size: { layers: 1, width: 0, hidden: 0, vocabulary }, graph, tensors };
}

/** Runs two sequences through three passes; all logits and states in one list. */
export async function outputsOfPasses(runtime: Runtime): Promise<number[]> {
  const [a, b] = [runtime.createState(), runtime.createState()];
  const results: number[] = [];
  const run = async (...segments: Parameters<Runtime["run"]>[0]) =>
    void results.push(...(await runtime.run(segments)).logits);
  await run({ state: a, tokens: [1, 2, 3, 4, 5], logits: "all" }, { state: b, tokens: [6], logits: "last" });
  await run({ state: b, tokens: [0, 1, 2], logits: "none" }, { state: a, tokens: [3, 3], logits: "last" });
  await run({ state: a, tokens: [5], logits: "last" });
  results.push(...(await runtime.readState(a)), ...(await runtime.readState(b)));
  await runtime.dispose();
  return results;
}
