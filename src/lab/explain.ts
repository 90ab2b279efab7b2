// Explains what a model does with a text, token by token: receptance, key and value of each layer, how fast its channels forget,
// which earlier tokens wkv looks at, and what would be predicted after each layer.

import { openCheckpoint } from "../checkpoints/open-checkpoint.js";
import { RwkvError, TokenizerError } from "../errors.js";
import { type RowNode, topologicalOrder } from "../graph/graph.js";
import { operandsOfFunction } from "../graph/operations/elementwise.js";
import { layerNorm } from "../graph/operations/layer-norm.js";
import { matmul } from "../graph/operations/matmul.js";
import { selectRows } from "../graph/operations/selection.js";
import { wkv as wkvOperation } from "../graph/operations/wkv.js";
import type { Rows } from "../graph/rows.js";
import { bindModel } from "../models/versions.js";
import { negativeLogProbability } from "../sampling/log-probability.js";
import { sizeMismatch, tokenizerFor } from "../tokenizers/open-tokenizer.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import { modelValues } from "./model-values.js";

/** Tokens that a text may have: more could not be shown side by side. */
const maxTokens = 64;

/** A text explained. */
export interface Explanation {
  readonly model: string;
  readonly prompt: string;
  readonly tokens: readonly { readonly id: number; readonly text: string }[];
  readonly layers: readonly LayerExplanation[];
}

/** One layer; lists are by token. */
export interface LayerExplanation {
  /** The number of the layer, from 0. */
  readonly layer: number;
  /** The receptance, mean over channels: how much of the past is let through. */
  readonly receptance: readonly number[];
  /** The key, mean over channels: the exponent of a token's weight. */
  readonly key: readonly number[];
  /** The value, root mean square over channels. */
  readonly value: readonly number[];
  /** The half-life of each channel, ascending: the number of tokens after which e^(w t) is a half. */
  readonly half_lives: readonly number[];
  /** Row t: the weights that wkv puts on tokens 0 to t, mean over channels; each row sums to 1. */
  readonly weights: readonly (readonly number[])[];
  /** The mean distance of those weights, in tokens back, by token. */
  readonly reach: readonly number[];
  /** What the head makes of the residual stream after this layer. */
  readonly predictions: readonly Prediction[];
}

export interface Prediction {
  /** The most probable next token. */
  readonly text: string;
  readonly probability: number;
  /** The probability of the token that follows in the text; absent for the last one. */
  readonly probability_of_next?: number;
}

/**
 * @param path a checkpoint with its tokenizer beside it
 * @throws RwkvError for a text without tokens, or with too many; CheckpointError, TokenizerError
 */
export async function explain(path: string, prompt: string, tokenizerOf?: Tokenizer): Promise<Explanation> {
  const checkpoint = await openCheckpoint(path);
  try {
    const bound = bindModel(checkpoint);
    const tokenizer = tokenizerOf ?? (await tokenizerFor(checkpoint, bound.size.vocabulary));
    const mismatch = sizeMismatch(tokenizer, bound.size.vocabulary);
    if (mismatch) throw new TokenizerError(`${path}: ${mismatch}`);
    const tokens = tokenizer.encode(prompt);
    if (tokens.length === 0 || tokens.length > maxTokens) {
      throw new RwkvError(`prompt: expected 1 to ${maxTokens} tokens, found ${tokens.length}`);
    }
    const parts = partsOf(bound.graph.output, bound.graph.checkpoints);
    const wanted = parts.layers.flatMap(({ receptance, wkv, logits }) => [receptance, wkv.key, wkv.value, logits]);
    const values = await modelValues(bound, tokens, wanted);
    return {
      model: path,
      prompt,
      tokens: tokens.map((id) => ({ id, text: tokenizer.decode([id]) })),
      layers: parts.layers.map(({ receptance, wkv, logits }, layer) => {
        const decay = values.vector(wkv.decay);
        const weights = meanWeights(values.of(wkv.key), decay, values.vector(wkv.first));
        return {
          layer,
          receptance: byRow(values.of(receptance), mean),
          key: byRow(values.of(wkv.key), mean),
          value: byRow(values.of(wkv.value), rootMeanSquare),
          half_lives: [...decay.map((w) => Math.LN2 / -w)].sort((a, b) => a - b),
          weights,
          reach: weights.map((row, t) => row.reduce((sum, weight, s) => sum + weight * (t - s), 0)),
          predictions: predictionsOf(values.of(logits), tokens, tokenizer),
        };
      }),
    };
  } finally {
    await checkpoint.close();
  }
}

interface LayerParts {
  readonly receptance: RowNode;
  readonly wkv: NonNullable<ReturnType<typeof wkvOperation.operandsOf>>;
  /** The head applied to the layer's output. */
  readonly logits: RowNode;
}

/** Finds the parts of each layer in a graph: its wkv, the receptance that multiplies it, and where its output is added. */
function partsOf(output: RowNode, checkpoints: readonly RowNode[]): { layers: LayerParts[] } {
  const order = topologicalOrder(output);
  const selection = order.map(({ call }) => selectRows.operandsOf(call)).find((operands) => operands);
  const products = order.flatMap(({ call }) => operandsOfFunction("multiply", call) ?? []);
  const layers = order.flatMap((node) => {
    const wkv = wkvOperation.operandsOf(node.call);
    return wkv ? [{ node, wkv }] : [];
  });
  const parts = layers.map(({ node, wkv }, i): LayerParts => {
    const product = products.find(({ a, b }) => a === node || b === node);
    if (!product || !selection) throw new RangeError("not a graph of RWKV-4");
    const after = checkpoints[i + 1] ?? selection.x;
    return { receptance: product.a === node ? product.b : product.a, wkv, logits: headOver(output, after) };
  });
  return { layers: parts };
}

/** The last norm and the head, over other rows than the last layer's. */
function headOver(output: RowNode, x: RowNode): RowNode {
  const head = matmul.operandsOf(output.call);
  const norm = head && layerNorm.operandsOf(head.x.call);
  if (!norm) throw new RangeError("not a graph of RWKV-4");
  return matmul.apply({ weight: head.weight, x: layerNorm.apply({ ...norm, x }).result }).result;
}

/**
 * The weights of equation 16 of arXiv 2305.13048v2: on token s before t e^((t-1-s) w + k[s]), on t itself e^(u + k[t]), over
 * their sum; for each channel, then the mean over channels.
 */
export function meanWeights(key: Rows, decay: Float32Array, first: Float32Array): number[][] {
  const result: number[][] = [];
  for (let t = 0; t < key.rows; t++) {
    const row = new Array<number>(t + 1).fill(0);
    for (let c = 0; c < key.width; c++) {
      const exponents = row.map((_, s) => {
        const k = key.values[s * key.width + c] as number;
        return s === t ? (first[c] as number) + k : (t - 1 - s) * (decay[c] as number) + k;
      });
      const most = Math.max(...exponents);
      const sum = exponents.reduce((total, exponent) => total + Math.exp(exponent - most), 0);
      exponents.forEach((exponent, s) => {
        row[s] = (row[s] as number) + Math.exp(exponent - most) / sum / key.width;
      });
    }
    result.push(row);
  }
  return result;
}

function predictionsOf(logits: Rows, tokens: readonly number[], tokenizer: Tokenizer): Prediction[] {
  return tokens.map((_, t) => {
    const row = logits.values.subarray(t * logits.width, (t + 1) * logits.width) as Float32Array;
    const probabilityOf = (token: number) => Math.exp(-negativeLogProbability(row, token));
    const best = row.reduce((most, logit, token) => (logit > (row[most] as number) ? token : most), 0);
    const next = tokens[t + 1];
    return {
      text: tokenizer.decode([best]),
      probability: probabilityOf(best),
      ...(next !== undefined && { probability_of_next: probabilityOf(next) }),
    };
  });
}

function byRow(rows: Rows, of: (row: ArrayLike<number>) => number): number[] {
  return Array.from({ length: rows.rows }, (_, t) => of(rows.values.subarray(t * rows.width, (t + 1) * rows.width)));
}

function mean(row: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < row.length; i++) sum += row[i] as number;
  return sum / row.length;
}

function rootMeanSquare(row: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < row.length; i++) sum += (row[i] as number) ** 2;
  return Math.sqrt(sum / row.length);
}
