// Trains fewer than all weights: low-rank additions to matrices, or only the state that sequences begin with.

import { tensorOf } from "../backends/weights.js";
import type { StoredTensor } from "../checkpoints/checkpoint.js";
import { callsOf, type Graph, type StateVector, topologicalOrder, type WeightNode } from "../graph/graph.js";
import { type LowRankProduct, withLowRankProducts } from "../graph/low-rank.js";
import { tokenShift } from "../graph/operations/token-shift.js";
import { wkv } from "../graph/operations/wkv.js";
import { wkv6 } from "../graph/operations/wkv6.js";
import { wkv7 } from "../graph/operations/wkv7.js";
import { stateLayout } from "../graph/state-layout.js";
import type { RandomGenerator } from "../sampling/random.js";
import { storedTensor } from "./initialize.js";
import type { LoraOptions } from "./options.js";

/** A matrix W and what is learned beside it: W + scale * up * down. */
export interface LowRankAddition extends LowRankProduct {
  readonly weight: WeightNode;
}

export interface AdaptedGraph {
  readonly graph: Graph;
  readonly additions: readonly LowRankAddition[];
  /** First values of what is learned. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
}

/**
 * Low-rank adaptation (Hu et al., arXiv 2106.09685, section 4.1): h = W x + (alpha / rank) B A x, where B begins as 0, so that
 * the model begins as it was. A begins uniform in plus or minus 1 / sqrt(inputs), as in the authors' code.
 */
export function withLowRankAdditions(
  graph: Graph,
  { rank, alpha, matrices }: Required<LoraOptions>,
  random: RandomGenerator,
): AdaptedGraph {
  const additions: LowRankAddition[] = [];
  const tensors = new Map<string, StoredTensor>();
  const scale = alpha / rank;
  const adapted = withLowRankProducts(graph, (weight) => {
    const [outputs, inputs] = weight.shape as [number, number];
    const name = weight.name.replace(/\.weight$/, "");
    if (!matrices.some((ending) => name.endsWith(`.${ending}`))) return undefined;
    const down: WeightNode = { op: "matrix", name: `${name}.lora_A.weight`, shape: [rank, inputs] };
    const up: WeightNode = { op: "matrix", name: `${name}.lora_B.weight`, shape: [outputs, rank] };
    const range = 1 / Math.sqrt(inputs);
    const first = Float32Array.from({ length: rank * inputs }, () => (2 * random.uniform() - 1) * range);
    tensors.set(down.name, storedTensor(down.name, down.shape, first));
    tensors.set(up.name, storedTensor(up.name, up.shape, new Float32Array(outputs * rank)));
    const addition = { weight, down, up, scale };
    additions.push(addition);
    return addition;
  });
  return { graph: adapted, additions, tensors };
}

/** W + scale * up * down */
export function mergeAddition(
  weight: Float32Array,
  { weight: { shape }, down, scale }: LowRankAddition,
  downValues: Float32Array,
  upValues: Float32Array,
): Float32Array {
  const [outputs, inputs] = shape as [number, number];
  const rank = down.shape[0] as number;
  const merged = weight.slice();
  for (let o = 0; o < outputs; o++) {
    for (let r = 0; r < rank; r++) {
      const factor = scale * (upValues[o * rank + r] as number);
      for (let i = 0; i < inputs; i++) {
        merged[o * inputs + i] = (merged[o * inputs + i] as number) + factor * (downValues[r * inputs + i] as number);
      }
    }
  }
  return merged;
}

/** The state that sequences begin with, as weights. */
export interface TunedState {
  readonly weights: ReadonlyMap<StateVector, WeightNode>;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Writes the block of floats that a sequence begins with. */
  write(target: Float32Array, values: (name: string) => Float32Array): void;
}

/** The key of the artificial first token of wkv, so low that the token has little weight beside real ones at first. */
const firstKey = -4;

/**
 * State tuning. The sums of wkv begin as if one token had been read before, with a key and a value for each channel, which are
 * learned: numerator = value, denominator = 1, relative to e^key. So the denominator stays positive whatever is learned. What
 * token shifts mix the first token with is learned as it is, and so are the matrices of later versions.
 *
 * @param stored the model's tensors, some of which may be what states begin with already
 */
export function tunedState(graph: Graph, stored: ReadonlyMap<string, StoredTensor>): TunedState {
  const weights = new Map<StateVector, WeightNode>();
  const tensors = new Map<string, StoredTensor>();
  const ones = new Set<StateVector>();
  const learn = (state: StateVector, first: number) => {
    if (weights.has(state)) return;
    const weight: WeightNode = { op: "vector", name: `state.${state.index}`, shape: [state.width] };
    weights.set(state, weight);
    const { initial } = state;
    const tensor =
      typeof initial === "number"
        ? storedTensor(weight.name, weight.shape, new Float32Array(state.width).fill(first))
        : tensorOf(stored, initial);
    tensors.set(weight.name, tensor);
  };
  for (const call of callsOf(topologicalOrder(graph.output))) {
    const shift = tokenShift.operandsOf(call);
    if (shift) learn(shift.previous, 0);
    const matrix = (wkv6.operandsOf(call) ?? wkv7.operandsOf(call))?.matrix;
    if (matrix) learn(matrix, 0);
    const recurrence = wkv.operandsOf(call);
    if (!recurrence) continue;
    learn(recurrence.numerator, 0);
    learn(recurrence.maxExponent, firstKey);
    ones.add(recurrence.denominator);
  }
  const { offsets } = stateLayout(graph);
  return {
    weights,
    tensors,
    write(target, values) {
      for (const [state, { name }] of weights) target.set(values(name), offsets[state.index]);
      for (const { index, width } of ones) {
        const start = offsets[index] as number;
        target.fill(1, start, start + width);
      }
    },
  };
}
