// Recognises the RWKV version of a checkpoint, and binds its tensors to that version's graph.

import type { Checkpoint, Metadata, StoredTensor } from "../checkpoints/checkpoint.js";
import { CheckpointError } from "../errors.js";
import type { Graph } from "../graph/graph.js";
import { definitions as allDefinitions } from "./definitions.js";
import { describeConverted, describeShard, describeUnknown } from "./explain-checkpoint.js";
import type { ModelDefinition, ModelSize } from "./model-definition.js";
import { storedNameOf, withOfficialTensors } from "./official-tensors.js";
import { layerNormEpsilon, readSettings, settingIn, settingsMetadata } from "./settings.js";
import { bindWeights, type LaidOutTensor, listed } from "./tensor-layout.js";
import { nameInModel } from "./tensor-names.js";

/** A recognised checkpoint: its version, size and graph, and the stored tensor of every weight. */
export interface BoundModel {
  readonly version: string;
  readonly size: ModelSize;
  readonly graph: Graph;
  /** Each weight as it is stored, or as a view of that, by its name in the graph. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
}

/** A checkpoint understood, and what a file with the same tensors must say so that it means the same. */
export interface RecognisedModel extends BoundModel {
  readonly definition: ModelDefinition;
  /** The tensors of the checkpoint, and the weights that lie in each. */
  readonly layout: readonly LaidOutTensor[];
  readonly metadata: Metadata;
}

/** How to bind a model. */
export interface BindOptions {
  /** For training: the share of what each part of a layer adds that is left out. */
  readonly dropout?: number;
  /** Versions that it may be. By default all. */
  readonly definitions?: readonly ModelDefinition[];
}
const maxLayers = 1024;

/**
 * Recognises the model in a checkpoint.
 *
 * @throws CheckpointError when it is not an RWKV model, is of a version that cannot be run, or has tensors missing, superfluous
 *   or of wrong shape or type (all of them listed)
 */
export function bindModel(given: Checkpoint, options: BindOptions = {}): RecognisedModel {
  const { dropout = 0, definitions = allDefinitions } = options;
  const checkpoint = withOfficialTensors(given);
  const names = [...checkpoint.tensors.keys()].map(nameInModel);
  const converted = describeConverted(checkpoint, names);
  if (converted) throw new CheckpointError(checkpoint.name, `this holds ${converted}`);
  const definition = definitions.find((d) => {
    const tensors = [...checkpoint.tensors].map(
      ([name, tensor]) => [d.canonicalName(nameInModel(name)), tensor] as const,
    );
    return d.matches(new Set(tensors.map(([name]) => name)), new Map(tensors));
  });
  if (!definition) {
    throw new CheckpointError(checkpoint.name, describeUnknown(names) + describeShard(checkpoint));
  }
  const tensors = canonicalTensors(checkpoint, definition);
  checkParts(checkpoint, definition, tensors);
  const size = definition.sizeOf(tensors);
  if (!size || size.layers > maxLayers) {
    throw new CheckpointError(
      checkpoint.name,
      `RWKV-${definition.version}: expected matrices ${definition.sizeSource} and at most ${maxLayers} layers, ` +
        `found ${size ? `${size.layers} layers` : "no such matrices"}${describeShard(checkpoint)}`,
    );
  }
  const told = [layerNormEpsilon, ...(definition.settings ?? [])];
  const settings = readSettings(checkpoint, told);
  const graph = definition.build(size, { layerNormEpsilon: settingIn(layerNormEpsilon, settings), settings, dropout });
  const bound = bindWeights(definition, graph, size, tensors, (name) => storedNameOf(name, given));
  checkTensors(checkpoint, definition, bound.problems);
  checkClaims(given, size);
  const { version } = definition;
  return {
    version,
    definition,
    size,
    graph,
    tensors: bound.tensors,
    layout: bound.layout,
    metadata: settingsMetadata(settings, told),
  };
}

/** Tensors by their canonical names. @throws CheckpointError where two have one name */
export function canonicalTensors(checkpoint: Checkpoint, definition: ModelDefinition): Map<string, StoredTensor> {
  const tensors = new Map<string, StoredTensor>();
  for (const [name, tensor] of checkpoint.tensors) {
    const canonical = definition.canonicalName(nameInModel(name));
    if (tensors.has(canonical)) throw new CheckpointError(checkpoint.name, `two tensors stand for ${canonical}`);
    tensors.set(canonical, tensor);
  }
  const embedding = tensors.get("emb.weight");
  if (checkpoint.config?.["tie_word_embeddings"] === true && embedding && !tensors.has("head.weight")) {
    tensors.set("head.weight", embedding);
  }
  return tensors;
}

/** @throws CheckpointError for a model with parts that are not built here, which would be wrong without them */
function checkParts(checkpoint: Checkpoint, definition: ModelDefinition, tensors: ReadonlyMap<string, StoredTensor>) {
  for (const [description, mark] of definition.unsupportedParts) {
    const found = [...tensors.keys()].find((name) => mark.test(name));
    if (found === undefined) continue;
    throw new CheckpointError(
      checkpoint.name,
      `an RWKV-${definition.version} model with ${description}, which this version of the package does not run ` +
        `(tensor ${tensors.get(found)?.name})`,
    );
  }
}

/** @throws CheckpointError with all that is wrong */
function checkTensors(checkpoint: Checkpoint, { version }: ModelDefinition, problems: readonly string[]): void {
  if (problems.length === 0) return;
  throw new CheckpointError(
    checkpoint.name,
    `this is not a complete RWKV-${version} model; ${problems.length} tensor(s) are ` +
      `wrong${describeShard(checkpoint)}:${listed(problems)}`,
  );
}

/** What the metadata of a GGUF file or a config.json says of the model's size must agree with the tensors, which decide. */
function checkClaims({ name: file, format, config, metadata }: Checkpoint, size: ModelSize): void {
  const contradict = (where: string, claims: readonly (readonly [key: string, claim: unknown, found: number])[]) => {
    const wrong = claims.filter(([, claim, found]) => (claim ?? found) !== found);
    if (wrong.length === 0) return;
    const list = wrong.map(([key, claim, found]) => {
      return `${key} ${JSON.stringify(claim).slice(0, 60)}, but the tensors have ${found}`;
    });
    throw new CheckpointError(file, `${where} ${list.join("; ")}`);
  };
  contradict("config.json beside it says", [
    ["num_hidden_layers", config?.["num_hidden_layers"], size.layers],
    ["hidden_size", config?.["hidden_size"], size.width],
    ["vocab_size", config?.["vocab_size"], size.vocabulary],
  ]);
  if (format !== "gguf") return;
  const claimIn = (key: string, found: number) => {
    const whole = `${metadata["general.architecture"]}.${key}`;
    const text = metadata[whole];
    return [whole, text && (Number(text) || text), found] as const;
  };
  contradict("its metadata say", [
    claimIn("block_count", size.layers),
    claimIn("embedding_length", size.width),
    claimIn("feed_forward_length", size.hidden),
  ]);
}
