// Computes the values of a graph node by node, in plain TypeScript.

import type {
  AttentionFree,
  AttentionFreeState,
  Gates,
  Heads,
  KeyValueCache,
  RowNode,
  StateVector,
  Vector,
  WeightNode,
  WkvState,
} from "../../graph/graph.js";
import { attentionFree, attentionFreeGradient } from "./attention-free-operations.js";
import {
  addPosition,
  attention,
  attentionGradient,
  linearAttention,
  linearAttentionGradient,
  positionGradient,
} from "./attention-operations.js";
import {
  columnSums,
  crossEntropy,
  dropout,
  layerNormGradient,
  layerNormWeightGradient,
  rowMoments,
  scatterAdd,
  segmentSums,
  tokenShiftGradient,
  transposedMatmul,
  weightGradient,
  wkvGradient,
} from "./gradient-operations.js";
import {
  binaryFunctions,
  type Floats,
  gatherRows,
  layerNorm,
  mapRows,
  matmul,
  matmulInBlocks,
  mixWithPrevious,
  type RowRange,
  type Rows,
  saveLastRow,
  unaryFunctions,
  wkv,
  zeros,
  zipRows,
} from "./operations.js";
import { elman, elmanGradient, gru, gruGradient, previousRows } from "./recurrent-operations.js";

/** What a pass is run on. */
export interface Inputs {
  readonly ranges: readonly RowRange[];
  readonly tokens: readonly number[];
  /** Numbers of the selected rows. */
  readonly selected: readonly number[];
  /** A token id for each selected row. */
  readonly targets?: readonly number[];
  readonly seed?: number;
}

/** Where the weights and states of a graph are. */
export interface Surroundings {
  matrix(weight: WeightNode): Rows;
  isInBlocks(weight: WeightNode): boolean;
  vector(vector: Vector): Floats;
  /** Offset in a sequence's block, in floats. */
  offset(state: StateVector): number;
}

/** @param order nodes, each after its inputs */
export function evaluate(order: readonly RowNode[], around: Surroundings, inputs: Inputs): (node: RowNode) => Rows {
  const { ranges, tokens, selected, targets = [], seed = 0 } = inputs;
  const values = new Map<RowNode, Rows>();
  const of = (node: RowNode) => values.get(node) as Rows;
  /** Results of operations that give several values, by group. */
  const groups = new Map<symbol, unknown>();
  const once = <T>(group: symbol, make: () => T): T => {
    if (!groups.has(group)) groups.set(group, make());
    return groups.get(group) as T;
  };
  const wkvOffsets = ({ numerator, denominator, maxExponent }: WkvState) => ({
    numerator: around.offset(numerator),
    denominator: around.offset(denominator),
    maxExponent: around.offset(maxExponent),
  });
  const headRows = ({ query, key, value, heads }: Heads) => ({
    query: of(query),
    key: of(key),
    value: of(value),
    heads,
  });
  const attentionFreeInputs = ({ key, value, bias, heads }: AttentionFree) => ({
    key: of(key),
    value: of(value),
    bias: around.matrix(bias),
    heads,
  });
  const attentionFreeOffsets = ({ count, keys, values: ring, slots, past }: AttentionFreeState) => ({
    count: around.offset(count),
    keys: around.offset(keys),
    values: around.offset(ring),
    slots,
    ...wkvOffsets(past),
  });
  const attentionFreeGradients = (node: AttentionFree & { readonly gradient: RowNode }) =>
    attentionFreeGradient(attentionFreeInputs(node), of(node.gradient), ranges, attentionFreeOffsets(node.state));
  const gates = ({ weights: [update, reset, candidate] }: Gates) =>
    [around.matrix(update), around.matrix(reset), around.matrix(candidate)] as const;
  const cacheOffsets = ({ count, keys, values: cached, capacity }: KeyValueCache) => ({
    count: around.offset(count),
    keys: around.offset(keys),
    values: around.offset(cached),
    capacity,
  });
  const sumOffsets = ({ sums, normalizer }: { sums: StateVector; normalizer: StateVector }) => ({
    sums: around.offset(sums),
    normalizer: around.offset(normalizer),
  });
  for (const node of order) values.set(node, compute(node));
  return of;

  function compute(node: RowNode): Rows {
    switch (node.op) {
      case "embedding":
        return gatherRows(around.matrix(node.table), tokens);
      case "layerNorm":
        return layerNorm(of(node.x), around.vector(node.weight), around.vector(node.bias), node.epsilon);
      case "tokenShift": {
        const factor = around.vector(node.factors[node.output] as Vector);
        const mixed = mixWithPrevious(of(node.x), ranges, around.offset(node.previous), factor);
        // The last output of the group to be evaluated moves the state on.
        const siblings = order.filter((other) => other.op === "tokenShift" && other.group === node.group);
        if (siblings.at(-1) === node) saveLastRow(of(node.x), ranges, around.offset(node.previous));
        return mixed;
      }
      case "matmul":
        return (around.isInBlocks(node.weight) ? matmulInBlocks : matmul)(around.matrix(node.weight), of(node.x));
      case "wkv": {
        const [decay, first] = [around.vector(node.decay), around.vector(node.first)];
        return wkv(of(node.key), of(node.value), decay, first, ranges, wkvOffsets(node.state));
      }
      case "unary":
        return mapRows(of(node.x), unaryFunctions[node.function]);
      case "binary":
        return zipRows(of(node.a), of(node.b), binaryFunctions[node.function]);
      case "scale":
        return mapRows(of(node.x), (x) => x * node.factor);
      case "dropout":
        return dropout(of(node.x), node.rate, seed, node.index);
      case "selectRows":
        return gatherRows(of(node.x), selected);
      case "addPosition":
        return addPosition(of(node.x), around.matrix(node.table), ranges, around.offset(node.position));
      case "positionGradient":
        return positionGradient(of(node.gradient), ranges, around.offset(node.position), node.rows as number);
      case "aft":
        return attentionFree(attentionFreeInputs(node), ranges, attentionFreeOffsets(node.state));
      case "aftGradient":
        // The plain form needs no moments.
        if (node.output === "moments") return zeros(0, 0, of(node.key).values);
        return attentionFreeGradients(node)[node.output];
      case "aftBiasGradient":
        return attentionFreeGradients(node).bias;
      case "elman":
        return elman(of(node.x), around.matrix(node.weight), ranges, around.offset(node.state));
      case "elmanGradient":
        return elmanGradient(around.matrix(node.weight), of(node.result), of(node.gradient), ranges);
      case "previousRows":
        return previousRows(of(node.x), ranges, around.offset(node.state));
      case "gru": {
        const rows = [of(node.update), of(node.reset), of(node.candidate)] as const;
        const all = once(node.group, () => gru({ rows, weights: gates(node) }, ranges, around.offset(node.state)));
        return all[node.output];
      }
      case "gruGradient": {
        const all = once(node.group, () => {
          const [update, reset, candidate] = [of(node.update), of(node.reset), of(node.candidate)];
          const values = { state: of(node.result), update, reset, candidate };
          return gruGradient(gates(node), values, of(node.gradient), ranges, around.offset(node.state));
        });
        return all[node.output];
      }
      case "attention":
        return attention(headRows(node), ranges, cacheOffsets(node.cache));
      case "attentionGradient": {
        const all = once(node.group, () =>
          attentionGradient(headRows(node), of(node.gradient), ranges, cacheOffsets(node.cache)),
        );
        return all[node.output];
      }
      case "linearAttention":
        return linearAttention(headRows(node), ranges, sumOffsets(node));
      case "linearAttentionGradient": {
        if (node.output === "shares") return zeros(0, 0, of(node.key).values);
        const all = once(node.group, () =>
          linearAttentionGradient(headRows(node), of(node.result), of(node.gradient), ranges, sumOffsets(node)),
        );
        return all[node.output];
      }
      case "vectorRow":
        return { rows: 1, width: node.width, values: around.vector(node.vector) };
      case "crossEntropy": {
        const both = once(node.group, () => crossEntropy(of(node.logits), targets, node.logitPenalty));
        return both[node.output];
      }
      case "transposedMatmul":
        return transposedMatmul(around.matrix(node.weight), of(node.x));
      case "weightGradient":
        return weightGradient(of(node.x), of(node.gradient));
      case "embeddingGradient":
        return scatterAdd(of(node.gradient), tokens, node.rows as number);
      case "scatterRows":
        return scatterAdd(of(node.x), selected, tokens.length);
      case "layerNormGradient":
        return layerNormGradient(of(node.x), around.vector(node.weight), of(node.gradient), node.epsilon);
      case "rowMoments":
        return rowMoments(of(node.x), node.epsilon);
      case "layerNormWeightGradient":
        return layerNormWeightGradient(of(node.x), of(node.moments), of(node.gradient));
      case "segmentSums":
        return segmentSums(of(node.x), ranges, node.part, node.width);
      case "columnSums":
        return columnSums(of(node.x));
      case "tokenShiftGradient": {
        const all = once(node.group, () => {
          const factors = node.factors.map((factor) => around.vector(factor));
          return tokenShiftGradient(of(node.x), factors, node.gradients.map(of), ranges, around.offset(node.previous));
        });
        if (node.output === "x" || node.output === "state") return all[node.output];
        return all.factors[Number(node.output.slice("factor".length))] as Rows;
      }
      case "wkvGradient": {
        const all = once(node.group, () => {
          const [decay, first] = [around.vector(node.decay), around.vector(node.first)];
          const offsets = wkvOffsets(node.state);
          return wkvGradient(of(node.key), of(node.value), decay, first, of(node.gradient), ranges, offsets);
        });
        return all[node.output];
      }
    }
  }
}
