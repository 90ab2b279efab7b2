// Finds out which RWKV version a checkpoint is, and binds its tensors to that version's graph.

import type { Checkpoint, StoredTensor } from "../checkpoints/checkpoint.js";
import { isBlockType } from "../dtypes.js";
import { CheckpointError } from "../errors.js";
import type { Graph } from "../graph/graph.js";
import type { ModelDefinition, ModelSize } from "./model-definition.js";
import { rwkv4 } from "./rwkv4.js";

/** Every version that can be run. */
const definitions: readonly ModelDefinition[] = [rwkv4];

/** Versions that are known by their tensors, but cannot be run yet. */
const unsupported: readonly (readonly [version: string, mark: string])[] = [
  ["7", "blocks.0.att.x_r"],
  ["6", "blocks.0.att.time_maa_x"],
  ["5", "blocks.0.att.ln_x.weight"],
];

/** A checkpoint understood: version, size, graph, and the stored tensor of every weight. */
export interface BoundModel {
  readonly version: string;
  readonly size: ModelSize;
  readonly graph: Graph;
  /** By canonical name. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
}

const floating = new Set(["f64", "f32", "f16", "bf16"]);
const maxLayers = 1024;
const maxProblemsShown = 40;

/**
 * Recognises the model in a checkpoint.
 *
 * @param options.dropout for training: the share of what each part of a layer adds that is left out
 * @throws CheckpointError when it is no RWKV model, of a version that cannot be run, or has tensors missing, extra or of
 *   wrong shape or type (all of them listed)
 */
export function bindModel(checkpoint: Checkpoint, { dropout = 0 }: { dropout?: number } = {}): BoundModel {
  const definition = definitions.find((d) => d.matches(canonicalNames(checkpoint, d)));
  if (!definition) throw unknownModel(checkpoint);
  const tensors = canonicalTensors(checkpoint, definition);
  const size = definition.sizeOf(tensors);
  if (!size || size.layers > maxLayers) {
    throw new CheckpointError(
      checkpoint.name,
      `RWKV-${definition.version}: expected matrices emb.weight and blocks.0.ffn.key.weight and at most ${maxLayers} layers, ` +
        `found ${size ? `${size.layers} layers` : "no such matrices"}`,
    );
  }
  const graph = definition.build(size, { layerNormEpsilon: layerNormEpsilon(checkpoint), dropout });
  checkTensors(checkpoint, definition, graph, tensors);
  checkConfig(checkpoint, size);
  return { version: definition.version, size, graph, tensors };
}

function canonicalNames(checkpoint: Checkpoint, definition: ModelDefinition): Set<string> {
  return new Set([...checkpoint.tensors.keys()].map((name) => definition.canonicalName(name)));
}

function canonicalTensors(checkpoint: Checkpoint, definition: ModelDefinition): Map<string, StoredTensor> {
  const tensors = new Map<string, StoredTensor>();
  for (const [name, tensor] of checkpoint.tensors) {
    const canonical = definition.canonicalName(name);
    if (tensors.has(canonical)) throw new CheckpointError(checkpoint.name, `two tensors stand for ${canonical}`);
    tensors.set(canonical, tensor);
  }
  const embedding = tensors.get("emb.weight");
  if (checkpoint.config?.["tie_word_embeddings"] === true && embedding && !tensors.has("head.weight")) {
    tensors.set("head.weight", embedding);
  }
  return tensors;
}

function checkTensors(
  checkpoint: Checkpoint,
  definition: ModelDefinition,
  graph: Graph,
  tensors: ReadonlyMap<string, StoredTensor>,
): void {
  const problems: string[] = [];
  const wanted = new Set(graph.weights.map((weight) => weight.name));
  for (const weight of graph.weights) {
    const tensor = tensors.get(weight.name);
    const found = tensor && (weight.op === "vector" ? withoutOnes(tensor.shape) : tensor.shape);
    const shape = weight.op === "vector" ? withoutOnes(weight.shape) : weight.shape;
    if (!tensor || !found) problems.push(`missing ${weight.name} [${weight.shape.join(", ")}]`);
    else if (found.join() !== shape.join()) {
      problems.push(`${tensor.name}: expected shape [${weight.shape.join(", ")}], found [${tensor.shape.join(", ")}]`);
    } else if (!floating.has(tensor.dtype) && !(weight.op === "matrix" && isBlockType(tensor.dtype)))
      problems.push(`${tensor.name}: expected floating point, found ${tensor.dtype}`);
  }
  for (const [name, tensor] of tensors) if (!wanted.has(name)) problems.push(`unexpected ${tensor.name}`);
  if (problems.length === 0) return;
  const shown = problems.slice(0, maxProblemsShown).map((problem) => `\n  ${problem}`);
  if (problems.length > shown.length) shown.push(`\n  and ${problems.length - shown.length} more`);
  throw new CheckpointError(
    checkpoint.name,
    `not a whole RWKV-${definition.version} model, ${problems.length} tensor(s) are wrong:${shown.join("")}`,
  );
}

/** RWKV-LM stores vectors as [D] or [1, 1, D]; dimensions of 1 do not matter to them. */
function withoutOnes(shape: readonly number[]): number[] {
  return shape.filter((dimension) => dimension !== 1);
}

/** A config.json beside the file must agree with the tensors; they decide what is loaded. */
function checkConfig(checkpoint: Checkpoint, size: ModelSize): void {
  const claims: readonly (readonly [string, number])[] = [
    ["num_hidden_layers", size.layers],
    ["hidden_size", size.width],
    ["vocab_size", size.vocabulary],
  ];
  if (checkpoint.config?.["model_type"] !== "rwkv") return;
  const wrong = claims.filter(([key, value]) => (checkpoint.config?.[key] ?? value) !== value);
  if (wrong.length === 0) return;
  const list = wrong.map(([key, value]) => `${key} ${String(checkpoint.config?.[key])}, the tensors say ${value}`);
  throw new CheckpointError(checkpoint.name, `config.json beside it says ${list.join("; ")}`);
}

function layerNormEpsilon(checkpoint: Checkpoint): number {
  const epsilon = checkpoint.config?.["layer_norm_epsilon"];
  return typeof epsilon === "number" && epsilon > 0 ? epsilon : 1e-5;
}

function unknownModel(checkpoint: Checkpoint): CheckpointError {
  const known = unsupported.find(([, mark]) => checkpoint.tensors.has(mark));
  if (known) {
    return new CheckpointError(checkpoint.name, `an RWKV-${known[0]} model; this version of the package runs RWKV-4`);
  }
  const sample = [...checkpoint.tensors.keys()].slice(0, 3).join(", ");
  return new CheckpointError(
    checkpoint.name,
    `not an RWKV model: expected tensors such as blocks.0.att.time_first, found ${sample || "none"}`,
  );
}
