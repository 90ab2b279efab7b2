// What a run trains, by its recipe: a new model or a checkpoint's, all of its weights, additions to them, or its first state; and how
// the result is written as a model that anyone can load.

import type { Parameter, TrainableModel } from "../backends/training.js";
import type { Checkpoint, Metadata, StoredTensor } from "../checkpoints/checkpoint.js";
import { openCheckpoint } from "../checkpoints/open-checkpoint.js";
import { readFloat32, tensorPieces } from "../checkpoints/read-tensor.js";
import type { WritableTensor } from "../checkpoints/writer.js";
import { bytesPerElement, convertElements, type FloatType } from "../dtypes.js";
import { TrainingError } from "../errors.js";
import type { Graph } from "../graph/graph.js";
import { interruptible } from "../interruptible.js";
import { fingerprintOf } from "../models/fingerprint.js";
import type { ModelSize } from "../models/model-definition.js";
import { rwkv4 } from "../models/rwkv4.js";
import { bindModel } from "../models/versions.js";
import { randomGenerator } from "../sampling/random.js";
import { sizeMismatch } from "../tokenizers/open-tokenizer.js";
import type { Tokenizer } from "../tokenizers/tokenizer.js";
import { type LowRankAddition, mergeAddition, type TunedState, tunedState, withLowRankAdditions } from "./adapters.js";
import { rwkv4Initialization } from "./initialize.js";
import { checkMemory } from "./memory.js";
import type { Recipe } from "./recipe.js";
import { trainableModel } from "./trainable-model.js";

/** A run's model. */
export interface ModelSetup {
  readonly size: ModelSize;
  readonly model: TrainableModel;
  /** What its files say beside the tensors. */
  readonly metadata: Metadata;
  /** For runs that learn the first state. */
  readonly state?: TunedState & { readonly fingerprint: number };
  /** All weights of the model as they are now, additions merged. */
  weights(parameters: readonly Parameter[], dtype: FloatType): WritableTensor[];
  close(): Promise<void>;
}

/**
 * @throws CheckpointError, TrainingError where the tokenizer is not the checkpoint's, or memory is not enough; InterruptedError
 */
export async function setUpModel(recipe: Recipe, tokenizer: Tokenizer, signal?: AbortSignal): Promise<ModelSetup> {
  if (recipe.from === null) return newModel(recipe, tokenizer.vocabularySize, signal);
  const checkpoint = await openCheckpoint(recipe.from);
  try {
    const setup = await checkpointModel(recipe, checkpoint, tokenizer);
    checkMemory(setup.model, recipe.batch * recipe.context);
    return setup;
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

async function newModel(recipe: Recipe, vocabulary: number, signal?: AbortSignal): Promise<ModelSetup> {
  const { layers, width, hidden, dropout, learningRate, seed } = recipe;
  const size = { layers, width, hidden, vocabulary };
  const graph = rwkv4.build(size, { layerNormEpsilon: 1e-5, dropout });
  const model = trainableModel(graph, new Map(), { ...recipe, weights: graph.weights });
  checkMemory(model, recipe.batch * recipe.context);
  const random = randomGenerator(seed);
  const first = rwkv4Initialization(graph.weights, { size, embeddingRange: learningRate, random });
  const tensors = await interruptible(first, signal);
  return {
    size,
    metadata: {},
    model: { ...model, tensors },
    weights: (parameters, dtype) => learnedTensors(graph, tensors, parameters, [], dtype),
    async close() {},
  };
}

async function checkpointModel(recipe: Recipe, checkpoint: Checkpoint, tokenizer: Tokenizer): Promise<ModelSetup> {
  const { dropout, lora, tuneState, seed } = recipe;
  const bound = bindModel(checkpoint, { dropout });
  const { graph, size, tensors, metadata } = bound;
  const mismatch = sizeMismatch(tokenizer, size.vocabulary);
  if (mismatch) throw new TrainingError(`${checkpoint.name}: ${mismatch}`);
  const close = () => checkpoint.close();
  if (tuneState) {
    const state = tunedState(graph);
    const all = new Map([...tensors, ...state.tensors]);
    return {
      size,
      metadata,
      model: trainableModel(graph, all, { ...recipe, weights: [], states: state.weights }),
      state: { ...state, fingerprint: await fingerprintOf(bound) },
      weights: (_, dtype) => learnedTensors(graph, tensors, [], [], dtype),
      close,
    };
  }
  if (lora) {
    const adapted = withLowRankAdditions(graph, lora, randomGenerator(seed));
    const all = new Map([...tensors, ...adapted.tensors]);
    const weights = adapted.additions.flatMap(({ down, up }) => [down, up]);
    return {
      size,
      metadata,
      model: trainableModel(adapted.graph, all, { ...recipe, weights }),
      weights: (parameters, dtype) => learnedTensors(graph, tensors, parameters, adapted.additions, dtype),
      close,
    };
  }
  return {
    size,
    metadata,
    model: trainableModel(graph, tensors, { ...recipe, weights: graph.weights }),
    weights: (parameters, dtype) => learnedTensors(graph, tensors, parameters, [], dtype),
    close,
  };
}

/** The weights of a graph: those that are learned as they are now, others as they were stored. */
function learnedTensors(
  graph: Graph,
  tensors: ReadonlyMap<string, StoredTensor>,
  parameters: readonly Parameter[],
  additions: readonly LowRankAddition[],
  dtype: FloatType,
): WritableTensor[] {
  const learned = new Map(parameters.map((parameter) => [parameter.name, parameter]));
  const added = new Map(additions.map((addition) => [addition.weight.name, addition]));
  return graph.weights.map(({ name, op, shape }) => {
    const stored = tensors.get(name) as StoredTensor;
    const addition = added.get(name);
    return {
      name,
      dtype,
      // Vectors keep the shape that others expect: RWKV-LM's time_mix is [1, 1, width].
      shape: op === "matrix" ? shape : /\.time_mix_\w+$/.test(name) ? [1, 1, ...shape] : shape,
      async *bytes() {
        const parameter = learned.get(name);
        if (parameter) yield inType(parameter.values, dtype);
        else if (!addition) yield* tensorPieces(stored, dtype);
        else {
          const [down, up] = [addition.down, addition.up].map((w) => learned.get(w.name)?.values as Float32Array);
          const merged = mergeAddition(await readFloat32(stored), addition, down as Float32Array, up as Float32Array);
          yield inType(merged, dtype);
        }
      },
    };
  });
}

function inType(values: Float32Array, dtype: FloatType): Uint8Array {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  if (dtype === "f32") return bytes;
  const converted = new Uint8Array(values.length * bytesPerElement[dtype]);
  convertElements(bytes, "f32", converted, dtype);
  return converted;
}
