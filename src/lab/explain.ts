// Explains what a model does with a text, token by token: receptance, key and value of each layer, how fast its channels forget,
// which earlier tokens its recurrence looks at, and what would be predicted after each layer.

import { embeddedModel } from "#platform/files";
import { type CheckpointInput, isPath } from "../checkpoints/checkpoint-input.js";
import { openCheckpoint } from "../checkpoints/open-checkpoint.js";
import { RwkvError, TokenizerError } from "../errors.js";
import { type Graph, type RowNode, topologicalOrder } from "../graph/graph.js";
import { layerNorm } from "../graph/operations/layer-norm.js";
import { matmul } from "../graph/operations/matmul.js";
import { selectRows } from "../graph/operations/selection.js";
import type { Rows } from "../graph/rows.js";
import { bindModel } from "../models/versions.js";
import { negativeLogProbability } from "../sampling/log-probability.js";
import { sizeMismatch, tokenizerFor } from "../tokenizers/open-tokenizer.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import { explainedWkv } from "./explain-wkv.js";
import { explainedWkv7 } from "./explain-wkv7.js";
import type { ExplainedRecurrence, LayerExplanation, Prediction } from "./explained-layer.js";
import { modelValues } from "./model-values.js";

/** Tokens that a text may have: more could not be shown side by side. */
const maxTokens = 64;

/** A text explained. */
export interface Explanation {
  readonly model: string;
  /** The RWKV version of the model. */
  readonly version: string;
  readonly prompt: string;
  readonly tokens: readonly { readonly id: number; readonly text: string }[];
  readonly layers: readonly LayerExplanation[];
}

/**
 * Explains what a model does with a text. The whole model is computed in plain TypeScript, so it should be a small one.
 *
 * @param input a checkpoint, as `load` takes it; undefined is the model in the package
 * @param prompt 1 to 64 tokens of text
 * @param tokenizerOf the model's tokenizer; by default the one in the checkpoint or beside it
 * @throws RwkvError for a model of another version than 4 and 7, and for a text without tokens, or with too many; CheckpointError,
 *   TokenizerError
 */
export async function explain(
  input: CheckpointInput | undefined,
  prompt: string,
  tokenizerOf?: Tokenizer,
): Promise<Explanation> {
  const opened = input ?? embeddedModel;
  const checkpoint = await openCheckpoint(opened);
  const path = checkpoint.name;
  try {
    const bound = bindModel(checkpoint);
    const layers = layersOf(bound.graph);
    if (layers.length === 0) {
      throw new RwkvError(`${path}: an RWKV-${bound.version} model; expected RWKV-4 or RWKV-7, which can be explained`);
    }
    const tokenizer = tokenizerOf ?? (await tokenizerFor(checkpoint, bound.size.vocabulary, isPath(opened)));
    const mismatch = sizeMismatch(tokenizer, bound.size.vocabulary);
    if (mismatch) throw new TokenizerError(`${path}: ${mismatch}`);
    const tokens = tokenizer.encode(prompt);
    if (tokens.length === 0 || tokens.length > maxTokens) {
      throw new RwkvError(`prompt: expected 1 to ${maxTokens} tokens, found ${tokens.length}`);
    }
    const wanted = layers.flatMap(({ recurrence, logits }) => [...recurrence.nodes, logits]);
    const values = await modelValues(bound, tokens, wanted);
    return {
      model: path,
      version: bound.version,
      prompt,
      tokens: tokens.map((id) => ({ id, text: tokenizer.decode([id]) })),
      layers: layers.map(({ recurrence, logits }, layer) => {
        const explained = recurrence.explain(values);
        return {
          layer,
          ...explained,
          reach: explained.weights.map((row, t) => row.reduce((sum, weight, s) => sum + weight * (t - s), 0)),
          predictions: predictionsOf(values.of(logits), tokens, tokenizer),
        };
      }),
    };
  } finally {
    await checkpoint.close();
  }
}

interface LayerParts {
  readonly recurrence: ExplainedRecurrence;
  /** The head applied to the layer's output. */
  readonly logits: RowNode;
}

/** Finds the parts of each layer in a graph: its recurrence, and where its output is added. */
function layersOf({ output, checkpoints }: Graph): LayerParts[] {
  const order = topologicalOrder(output);
  const selection = order.map(({ call }) => selectRows.operandsOf(call)).find((operands) => operands);
  const recurrences = order.flatMap((node) => explainedWkv(node, order) ?? explainedWkv7(node) ?? []);
  return recurrences.map((recurrence, i) => {
    const after = checkpoints[i + 1] ?? selection?.x;
    if (!after) throw new RangeError("not a graph of RWKV");
    return { recurrence, logits: headOver(output, after) };
  });
}

/** The last norm and the head, over other rows than the last layer's. */
function headOver(output: RowNode, x: RowNode): RowNode {
  const head = matmul.operandsOf(output.call);
  const norm = head && layerNorm.operandsOf(head.x.call);
  if (!norm) throw new RangeError("not a graph of RWKV");
  return matmul.apply({ weight: head.weight, x: layerNorm.apply({ ...norm, x }).result }).result;
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
