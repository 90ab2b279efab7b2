// The language that models are written in: a graph of operations over matrices whose rows are tokens. A model builds one
// once; the reference backend walks it as it stands, the kernel backends compile it to a plan. Nothing here computes.

import type { GradientNode } from "./gradient-nodes.js";

/**
 * How many rows a value has in a pass: one for every token of the pass, one for every token whose logits are wanted, or the same
 * in every pass, as the gradient of a weight has.
 */
export type RowSet = "tokens" | "selected" | number;

/** A weight that the checkpoint holds, by its canonical name. Vectors are small and computed with in float32. */
export interface WeightNode {
  readonly op: "matrix" | "vector";
  readonly name: string;
  /** Matrices: [outputs, inputs], row-major. Vectors: [length]. */
  readonly shape: readonly number[];
}

/** A vector of float32 that a sequence carries from token to token. */
export interface StateVector {
  /** Position among the graph's state vectors. */
  readonly index: number;
  readonly width: number;
  /** Value of every element before the first token. */
  readonly initial: number;
}

/** Functions of one element. */
export type UnaryFunction = "sigmoid" | "reluSquared" | "exp" | "negate" | "eluPlusOne";
/**
 * Functions of two elements. The gradient of a function takes the function's result and that result's gradient, and gives the
 * gradient of what the function was applied to.
 */
export type BinaryFunction = "add" | "multiply" | "sigmoidGradient" | "reluSquaredGradient" | "eluPlusOneGradient";

export interface Row {
  readonly rows: RowSet;
  readonly width: number;
}

/** A value with a row of `width` floats for each token of its row set. */
export type RowNode = ForwardNode | GradientNode;

/** What models are written in. Each has a rule for its gradient (differentiate.ts). */
export type ForwardNode =
  | (Row & { readonly op: "embedding"; readonly table: WeightNode })
  | (Row & {
      readonly op: "layerNorm";
      readonly x: RowNode;
      readonly weight: Vector;
      readonly bias: Vector;
      readonly epsilon: number;
    })
  | (Row & {
      readonly op: "tokenShift";
      readonly x: RowNode;
      readonly previous: StateVector;
      readonly factors: readonly Vector[];
      readonly output: number;
      readonly group: symbol;
    })
  | (Row & { readonly op: "matmul"; readonly weight: WeightNode; readonly x: RowNode })
  | (Row & {
      readonly op: "wkv";
      readonly key: RowNode;
      readonly value: RowNode;
      readonly decay: Vector;
      readonly first: Vector;
      readonly state: WkvState;
    })
  | (Row & { readonly op: "unary"; readonly function: UnaryFunction; readonly x: RowNode })
  | (Row & { readonly op: "binary"; readonly function: BinaryFunction; readonly a: RowNode; readonly b: RowNode })
  | (Row & { readonly op: "scale"; readonly x: RowNode; readonly factor: number })
  | (Row & { readonly op: "dropout"; readonly x: RowNode; readonly rate: number; readonly index: number })
  | (Row & { readonly op: "selectRows"; readonly x: RowNode })
  | (Row & {
      readonly op: "addPosition";
      readonly x: RowNode;
      readonly table: WeightNode;
      readonly position: StateVector;
    })
  | (Row & AttentionFree & { readonly op: "aft" })
  | (Row & { readonly op: "elman"; readonly x: RowNode; readonly weight: WeightNode; readonly state: StateVector })
  | (Row &
      Gates & {
        readonly op: "gru";
        /** The state, its gates, its candidate, or what the reset gate leaves of it. */
        readonly output: "state" | "update" | "reset" | "candidate" | "left";
        readonly group: symbol;
      })
  | (Row & Heads & { readonly op: "attention"; readonly cache: KeyValueCache })
  | (Row & Heads & { readonly op: "linearAttention"; readonly sums: StateVector; readonly normalizer: StateVector })
  | (Row & { readonly op: "vectorRow"; readonly vector: Vector });

/** What kinds of attention take: each in `heads` parts of its width. */
export interface Heads {
  readonly query: RowNode;
  readonly key: RowNode;
  readonly value: RowNode;
  readonly heads: number;
}

/** What the Attention Free Transformer's average takes. */
export interface AttentionFree {
  readonly key: RowNode;
  readonly value: RowNode;
  /** Row for a position or a head, column for how many tokens back. */
  readonly bias: WeightNode;
  /** Heads that biases are by; 0 where they are by position. */
  readonly heads: number;
  readonly state: AttentionFreeState;
}

/** The last tokens' keys and values in a ring, and sums over those before. */
export interface AttentionFreeState {
  readonly count: StateVector;
  readonly keys: StateVector;
  readonly values: StateVector;
  /** Tokens that the ring has room for. */
  readonly slots: number;
  /** Declared one after another. */
  readonly past: WkvState;
}

/** What a gated recurrent unit takes: rows and a matrix for each of its gates and its candidate. */
export interface Gates {
  readonly update: RowNode;
  readonly reset: RowNode;
  readonly candidate: RowNode;
  readonly weights: readonly [update: WeightNode, reset: WeightNode, candidate: WeightNode];
  readonly state: StateVector;
}

/** Keys and values of all tokens so far: a state that has room for `capacity` of them. */
export interface KeyValueCache {
  /** Tokens so far, for each head. */
  readonly count: StateVector;
  readonly keys: StateVector;
  readonly values: StateVector;
  readonly capacity: number;
}

/** State of the wkv recurrence: sums weighted by e^key, divided by e^maxExponent so that they never overflow. */
export interface WkvState {
  readonly numerator: StateVector;
  readonly denominator: StateVector;
  readonly maxExponent: StateVector;
}

/** A vector weight, or a function of one, computed when the model is loaded. */
export type Vector =
  | WeightNode
  | {
      readonly op: "vectorFunction";
      readonly function: UnaryFunction;
      readonly x: Vector;
      readonly shape: readonly number[];
    };

/** A finished graph. */
export interface Graph {
  /** Logits: a row of `width` = vocabulary size for each selected token. */
  readonly output: RowNode;
  readonly weights: readonly WeightNode[];
  /** In the order in which a saved state holds them. */
  readonly stateVectors: readonly StateVector[];
  /**
   * Values that gradient checkpointing keeps, in order: everything between two of them can be computed again from the first
   * (Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174).
   */
  readonly checkpoints: readonly RowNode[];
}

export function unary(fn: UnaryFunction, x: RowNode): RowNode {
  return { op: "unary", function: fn, x, rows: x.rows, width: x.width };
}

export function binary(fn: BinaryFunction, a: RowNode, b: RowNode): RowNode {
  if (a.rows !== b.rows || a.width !== b.width) throw new RangeError(`${fn}: ${a.width} and ${b.width} wide`);
  return { op: "binary", function: fn, a, b, rows: a.rows, width: a.width };
}

/** The values a node is computed from. */
export function inputsOf(node: RowNode): readonly RowNode[] {
  switch (node.op) {
    case "embedding":
    case "vectorRow":
      return [];
    case "wkv":
      return [node.key, node.value];
    case "binary":
      return [node.a, node.b];
    case "aft":
      return [node.key, node.value];
    case "aftGradient":
      return [node.key, node.value, node.gradient, node.result];
    case "aftBiasGradient":
      return [node.key, node.value, node.gradient, node.result, node.moments];
    case "elmanGradient":
      return [node.result, node.gradient];
    case "gru":
      return [node.update, node.reset, node.candidate];
    case "gruGradient":
      return [node.result, node.update, node.reset, node.candidate, node.gradient];
    case "attention":
    case "linearAttention":
      return [node.query, node.key, node.value];
    case "attentionGradient":
    case "linearAttentionGradient":
      return [node.query, node.key, node.value, node.result, node.gradient];
    case "positionGradient":
      return [node.gradient];
    case "crossEntropy":
      return [node.logits];
    case "embeddingGradient":
      return [node.gradient];
    case "weightGradient":
    case "layerNormGradient":
      return [node.x, node.gradient];
    case "layerNormWeightGradient":
      return [node.x, node.moments, node.gradient];
    case "tokenShiftGradient":
      return [node.x, ...node.gradients];
    case "wkvGradient":
      return [node.key, node.value, node.gradient];
    default:
      return [node.x];
  }
}

/** All nodes that the roots need, each after its inputs; what the first root needs comes first. */
export function topologicalOrder(...roots: readonly RowNode[]): RowNode[] {
  const order: RowNode[] = [];
  const seen = new Set<RowNode>();
  for (const root of roots) {
    if (seen.has(root)) continue;
    const stack: { node: RowNode; next: number }[] = [{ node: root, next: 0 }];
    seen.add(root);
    while (stack.length > 0) {
      const frame = stack[stack.length - 1] as (typeof stack)[number];
      const input = inputsOf(frame.node)[frame.next++];
      if (input === undefined) {
        order.push(frame.node);
        stack.pop();
      } else if (!seen.has(input)) {
        seen.add(input);
        stack.push({ node: input, next: 0 });
      }
    }
  }
  return order;
}
