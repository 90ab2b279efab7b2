// What a run trains, by its recipe: a new model or a checkpoint's, all of its weights, additions to them, or its
// first state; and how the result is written as a model that anyone can load.

import type { Parameter, TrainableModel } from "../backends/training.js";
import type { Checkpoint, Metadata, StoredTensor } from "../checkpoints/checkpoint.js";
import { storedTensor } from "../checkpoints/memory-tensor.js";
import { openCheckpoint } from "../checkpoints/open-checkpoint.js";
import { readFloat32, tensorPieces } from "../checkpoints/read-tensor.js";
import type { WritableTensor } from "../checkpoints/writer.js";
import type { FloatType } from "../dtypes.js";
import { TrainingError } from "../errors.js";
import { interruptible } from "../interruptible.js";
import { alphaEntry, fingerprintEntry, versionEntry } from "../models/adapter-file.js";
import { definitions as allDefinitions, definitionOf } from "../models/definitions.js";
import { fingerprintOf } from "../models/fingerprint.js";
import type { ModelDefinition, ModelSize } from "../models/model-definition.js";
import { type LaidOutTensor, newLayout } from "../models/tensor-layout.js";
import { bindModel } from "../models/versions.js";
import { writtenTensors } from "../models/written-tensors.js";
import { randomGenerator } from "../sampling/random.js";
import { sizeMismatch } from "../tokenizers/open-tokenizer.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import { type LowRankAddition, mergeAddition, type TunedState, tunedState, withLowRankAdditions } from "./adapters.js";
import { firstTensorsInSteps } from "./initialize.js";
import { loraOf } from "./lora-options.js";
import { checkMemory } from "./memory.js";
import type { Recipe } from "./recipe.js";
import { trainableModel } from "./trainable-model.js";

/** A run's model. */
export interface ModelSetup {
  readonly size: ModelSize;
  readonly model: TrainableModel;
  /** What AdamW adds to the root of the second moment. */
  readonly adamEpsilon: number;
  /** What its files say beside the tensors. */
  readonly metadata: Metadata;
  /** For runs that learn the first state. */
  readonly state?: TunedState & { readonly fingerprint: number };
  /** All weights of the model as they are now, additions merged. */
  weights(parameters: readonly Parameter[], dtype: FloatType, onNotice?: (message: string) => void): WritableTensor[];
  /** What low-rank adaptation learned, as a file of its own: an adapter for the base model, and what it says beside its tensors. */
  adapter?(parameters: readonly Parameter[], dtype: FloatType): { tensors: WritableTensor[]; metadata: Metadata };
  close(): Promise<void>;
}

/** How to set up a model. */
export interface SetupOptions {
  readonly signal?: AbortSignal | undefined;
  /** Versions that the model may be of. By default all. */
  readonly definitions?: readonly ModelDefinition[];
  /** Sequences of a step that are computed here. By default all of the batch. */
  readonly sequences?: number;
}

/**
 * @throws CheckpointError, TrainingError where the tokenizer is not the checkpoint's, or memory is not enough; InterruptedError
 */
export async function setUpModel(
  recipe: Recipe,
  tokenizer: Pick<Tokenizer, "vocabularySize">,
  { signal, definitions = allDefinitions, sequences = recipe.batch }: SetupOptions = {},
): Promise<ModelSetup> {
  const mostTokens = sequences * recipe.context;
  if (recipe.from === null) {
    return newModel(definitionOf(recipe.version, definitions), recipe, tokenizer.vocabularySize, mostTokens, signal);
  }
  const checkpoint = await openCheckpoint(recipe.from);
  try {
    const setup = await checkpointModel(recipe, checkpoint, tokenizer, definitions);
    checkMemory(setup.model, mostTokens);
    return setup;
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

async function newModel(
  definition: ModelDefinition,
  recipe: Recipe,
  vocabulary: number,
  mostTokens: number,
  signal: AbortSignal | undefined,
): Promise<ModelSetup> {
  const { layers, width, hidden, dropout, learningRate, seed } = recipe;
  const size = definition.newSize({ layers, width, hidden, vocabulary });
  const graph = definition.build(size, { layerNormEpsilon: 1e-5, dropout });
  const { learning, adamEpsilon } = definition.training;
  const model = trainableModel(graph, new Map(), { ...recipe, weights: graph.weights, learning });
  checkMemory(model, mostTokens);
  const random = randomGenerator(seed);
  const first = firstTensorsInSteps(definition, graph, { size, embeddingRange: learningRate, random });
  const tensors = await interruptible(first, signal);
  const layout = newLayout(definition, graph, size);
  return {
    size,
    adamEpsilon,
    metadata: {},
    model: { ...model, tensors },
    weights: (parameters, dtype, onNotice) => learnedTensors({ layout, tensors }, parameters, [], dtype, onNotice),
    async close() {},
  };
}

async function checkpointModel(
  recipe: Recipe,
  checkpoint: Checkpoint,
  tokenizer: Pick<Tokenizer, "vocabularySize">,
  definitions: readonly ModelDefinition[],
): Promise<ModelSetup> {
  const { dropout, lora, tuneState, seed } = recipe;
  const bound = bindModel(checkpoint, { dropout, definitions });
  const { graph, size, tensors, metadata, definition } = bound;
  const { learning, adamEpsilon } = definition.training;
  const mismatch = sizeMismatch(tokenizer, size.vocabulary);
  if (mismatch) throw new TrainingError(`${checkpoint.name}: ${mismatch}`);
  const close = () => checkpoint.close();
  if (tuneState) {
    const state = tunedState(graph, tensors);
    const all = new Map([...tensors, ...state.tensors]);
    return {
      size,
      adamEpsilon,
      metadata,
      model: trainableModel(graph, all, { ...recipe, weights: [], states: state.weights, learning }),
      state: { ...state, fingerprint: await fingerprintOf(bound) },
      weights: (_, dtype, onNotice) => learnedTensors(bound, [], [], dtype, onNotice),
      close,
    };
  }
  if (lora) {
    const options = loraOf(lora, definition);
    const adapted = withLowRankAdditions(graph, options, randomGenerator(seed));
    const all = new Map([...tensors, ...adapted.tensors]);
    const fingerprint = await fingerprintOf(bound);
    const weights = adapted.additions.flatMap(({ down, up }) => [down, up]);
    return {
      size,
      adamEpsilon,
      metadata,
      model: trainableModel(adapted.graph, all, { ...recipe, weights, learning }),
      weights: (parameters, dtype, onNotice) => learnedTensors(bound, parameters, adapted.additions, dtype, onNotice),
      adapter: (parameters, dtype) => ({
        tensors: learnedAdditions(parameters, dtype),
        metadata: {
          [alphaEntry]: String(options.alpha),
          [versionEntry]: definition.version,
          [fingerprintEntry]: String(fingerprint),
        },
      }),
      close,
    };
  }
  return {
    size,
    adamEpsilon,
    metadata,
    model: trainableModel(graph, tensors, { ...recipe, weights: graph.weights, learning }),
    weights: (parameters, dtype, onNotice) => learnedTensors(bound, parameters, [], dtype, onNotice),
    close,
  };
}

/** The tensors of a model: weights that are learned as they are now, others as they were stored. */
function learnedTensors(
  { layout, tensors }: { layout: readonly LaidOutTensor[]; tensors: ReadonlyMap<string, StoredTensor> },
  parameters: readonly Parameter[],
  additions: readonly LowRankAddition[],
  dtype: FloatType,
  onNotice: ((message: string) => void) | undefined,
): WritableTensor[] {
  const learned = new Map(parameters.map((parameter) => [parameter.name, parameter]));
  const added = new Map(additions.map((addition) => [addition.weight.name, addition]));
  const valuesOf = ({ name }: { name: string }) => learned.get(name)?.values;
  return writtenTensors({
    layout,
    dtype,
    valuesOf(weight) {
      const addition = added.get(weight.name);
      return addition ? mergedValues(tensors.get(weight.name) as StoredTensor, addition, valuesOf) : valuesOf(weight);
    },
    ...(onNotice && { onNotice }),
  });
}

function learnedAdditions(parameters: readonly Parameter[], dtype: FloatType): WritableTensor[] {
  return parameters.map((parameter) => {
    const { name, shape } = parameter;
    return { name, dtype, shape, bytes: () => tensorPieces(storedTensor(name, shape, parameter.values), dtype) };
  });
}

async function mergedValues(
  stored: StoredTensor,
  addition: LowRankAddition,
  valuesOf: (weight: { name: string }) => Float32Array | undefined,
): Promise<Float32Array> {
  const [down, up] = [addition.down, addition.up].map((weight) => valuesOf(weight) as Float32Array);
  return mergeAddition(await readFloat32(stored), addition, down as Float32Array, up as Float32Array);
}
