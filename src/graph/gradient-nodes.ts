// The operations that gradients are built of, beside those that models are written in: each a matrix of rows like them, planned
// and executed like them. In all of them `gradient` is the gradient of the loss for what the forward operation gave.

import type {
  AttentionFree,
  Gates,
  Heads,
  KeyValueCache,
  Row,
  RowNode,
  StateVector,
  Vector,
  WeightNode,
  WkvState,
} from "./graph.js";

/** Values of an operation that gives several; each that is wanted is a node of the same group. */
interface Output<Name extends string> {
  readonly output: Name;
  readonly group: symbol;
}

export type GradientNode =
  /** Losses of the selected rows, a column, or their gradient for the logits, of the mean over the rows. */
  | (Row &
      Output<"loss" | "gradient"> & {
        readonly op: "crossEntropy";
        readonly logits: RowNode;
        /** What the largest logit of each row is pulled down by: RWKV-LM's L2Wrap. */
        readonly logitPenalty: number;
      })
  /** For the input of a product: gradient \u00b7 weight. */
  | (Row & { readonly op: "transposedMatmul"; readonly weight: WeightNode; readonly x: RowNode })
  /** For the weight of a product: the sum over rows of the outer products of gradient and x. */
  | (Row & { readonly op: "weightGradient"; readonly x: RowNode; readonly gradient: RowNode })
  /** For the table of an embedding: a row's gradient is the sum of those of the tokens that are it. */
  | (Row & { readonly op: "embeddingGradient"; readonly gradient: RowNode })
  /** For the input of a layer norm. */
  | (Row & {
      readonly op: "layerNormGradient";
      readonly x: RowNode;
      readonly weight: Vector;
      readonly gradient: RowNode;
      readonly epsilon: number;
    })
  /** Mean and 1 / sqrt(variance + epsilon) of each row. */
  | (Row & { readonly op: "rowMoments"; readonly x: RowNode; readonly epsilon: number })
  /** For the weight of a layer norm. */
  | (Row & {
      readonly op: "layerNormWeightGradient";
      readonly x: RowNode;
      readonly moments: RowNode;
      readonly gradient: RowNode;
    })
  /** The sum over sequences of a part of each one's first row. */
  | (Row & { readonly op: "segmentSums"; readonly x: RowNode; readonly part: number })
  /** The sum of all rows: for what is added to each. */
  | (Row & { readonly op: "columnSums"; readonly x: RowNode })
  /** For what a token shift takes: x, its factors, and the state before it. */
  | (Row &
      Output<"x" | "state" | `factor${number}`> & {
        readonly op: "tokenShiftGradient";
        readonly x: RowNode;
        readonly previous: StateVector;
        readonly factors: readonly Vector[];
        /** One for each factor. */
        readonly gradients: readonly RowNode[];
      })
  /**
   * For what wkv takes. `totals`, five times as wide, has in the first row of each sequence the gradients of decay, first, and the
   * numerator, denominator and maxExponent that it began with.
   */
  | (Row &
      Output<"totals" | "key" | "value"> & {
        readonly op: "wkvGradient";
        readonly key: RowNode;
        readonly value: RowNode;
        readonly decay: Vector;
        readonly first: Vector;
        readonly state: WkvState;
        readonly gradient: RowNode;
      })
  /** For what the Attention Free Transformer's average takes; `moments` are largest exponents and sums of weights. */
  | (Row &
      AttentionFree &
      Output<"key" | "value" | "moments"> & {
        readonly op: "aftGradient";
        readonly result: RowNode;
        readonly gradient: RowNode;
      })
  /** For its biases. */
  | (Row &
      AttentionFree & {
        readonly op: "aftBiasGradient";
        readonly result: RowNode;
        readonly gradient: RowNode;
        readonly moments: RowNode;
      })
  /** For what a simple recurrent network takes; `result` is what it gave. */
  | (Row & {
      readonly op: "elmanGradient";
      readonly weight: WeightNode;
      readonly result: RowNode;
      readonly gradient: RowNode;
    })
  /** For what a gated recurrent unit takes; gates and candidate as they were. */
  | (Row &
      Gates &
      Output<"update" | "reset" | "candidate"> & {
        readonly op: "gruGradient";
        readonly result: RowNode;
        readonly gradient: RowNode;
      })
  /** Each token's row before: what a recurrent step saw of the state. */
  | (Row & { readonly op: "previousRows"; readonly x: RowNode; readonly state: StateVector })
  /** For what attention takes; `result` is what it gave. */
  | (Row &
      Heads &
      Output<"query" | "key" | "value"> & {
        readonly op: "attentionGradient";
        readonly cache: KeyValueCache;
        readonly result: RowNode;
        readonly gradient: RowNode;
      })
  /** For what linear attention takes; `shares` are 1 / normalizer of each head and token. */
  | (Row &
      Heads &
      Output<"shares" | "query" | "key" | "value"> & {
        readonly op: "linearAttentionGradient";
        readonly sums: StateVector;
        readonly normalizer: StateVector;
        readonly result: RowNode;
        readonly gradient: RowNode;
      })
  /** For the table of positions. */
  | (Row & { readonly op: "positionGradient"; readonly gradient: RowNode; readonly position: StateVector })
  /** For the rows that some were selected from: 0 in the others. */
  | (Row & { readonly op: "scatterRows"; readonly x: RowNode });

/** Parts of a wkv gradient's totals, in their order. */
export const wkvTotals = ["decay", "first", "numerator", "denominator", "maxExponent"] as const;

/** A value that a kernel writes whether or not anyone reads it. */
export interface WrittenOutput {
  readonly output: string;
  readonly width: number;
}

/** The values that a node's kernel always writes; others of its group it leaves out where nobody reads them. */
export function alwaysWritten(node: RowNode): readonly WrittenOutput[] {
  const each = (width: number, ...names: string[]) => names.map((output) => ({ output, width }));
  switch (node.op) {
    case "wkvGradient":
      return each(wkvTotals.length * node.key.width, "totals");
    case "aftGradient":
      return [...each(2 * node.key.width, "moments"), ...each(node.key.width, "key", "value")];
    case "linearAttentionGradient":
      return [...each(node.heads, "shares"), ...each(node.key.width, "query", "key", "value")];
    case "attentionGradient":
      return each(node.key.width, "query", "key", "value");
    case "gruGradient":
      return each(node.width, "update", "reset", "candidate");
    default:
      return [];
  }
}
