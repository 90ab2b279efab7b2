// What a file of this folder tells about one RWKV version: how to know its checkpoints, where its weights lie in
// them, how large the model is, its graph, and how it is trained. Nothing outside this folder knows one version from
// another. Adding a version is adding such a file to the list in definitions.ts.

import type { Graph, WeightNode } from "../graph/graph.js";
import type { RandomGenerator } from "../sampling/random.js";
import type { Location } from "./location.js";
import type { Setting, Settings } from "./settings.js";

/**
 * Dimensions of a model, read from the shapes of its tensors: those that every version has, and a version's own by
 * their names.
 */
export interface ModelSize {
  readonly layers: number;
  /** Width of the residual stream (n_embd). */
  readonly width: number;
  /** Width of the hidden layer in channel mixing. */
  readonly hidden: number;
  readonly vocabulary: number;
  /** Heads, their width, ranks of low-rank parts. */
  readonly [dimension: string]: number;
}

/** What must be said of a new model; the definition says the rest. */
export interface NewModelSize {
  readonly layers: number;
  readonly width: number;
  readonly vocabulary: number;
  readonly hidden?: number;
}

/** A tensor as far as a definition needs to know it. */
export interface NamedShape {
  readonly name: string;
  readonly shape: readonly number[];
}

/** The tensors of a checkpoint by their canonical names. */
export type NamedShapes = ReadonlyMap<string, NamedShape>;

/** One RWKV version. */
export interface ModelDefinition<Size extends ModelSize = ModelSize> {
  /** "4", "5.2", ... */
  readonly version: string;
  /**
   * Whether tensors of these canonical names are a model of this version.
   *
   * @param tensors the same with their shapes, for versions whose names are alike
   */
  matches(names: ReadonlySet<string>, tensors: NamedShapes): boolean;
  /** The canonical name of a tensor that another library stores under `name`, once the names of wrappers are taken off. */
  canonicalName(name: string): string;
  /** Parts that models of this version may have and that are not built here, by their tensors' canonical names. */
  readonly unsupportedParts: readonly (readonly [description: string, mark: RegExp])[];
  /** Canonical names of tensors that checkpoints of this version may carry and that nothing is computed from. */
  readonly ignored?: readonly RegExp[];
  /** The matrices that the dimensions are read from, for the error where they are not there. */
  readonly sizeSource: string;
  /** Reads the dimensions; undefined if a tensor that they are read from is missing or has too few dimensions. */
  sizeOf(tensors: NamedShapes): Size | undefined;
  /** Numbers of its own that files tell beside their tensors; all versions have the epsilon of layer norms. */
  readonly settings?: readonly Setting[];
  /**
   * The dimensions of the same model where a file says what its states are before the first token. Each state that it then says
   * begins as a weight, which lies in the file as in a checkpoint. Absent where nobody writes such files for a version.
   */
  withInitialStates?(size: Size): Size;
  /** The dimensions of a new model. @throws OptionError for those that no model of this version has */
  newSize(size: NewModelSize): Size;
  /**
   * Where a weight of the graph lies: a view of a tensor, or several that are joined along the first dimension. Undefined: in a
   * tensor of its own name and shape. Vectors are the same to dimensions of 1.
   *
   * @param tensors of the checkpoint; of a new model none, so that the answer is how RWKV-LM writes it
   */
  locate?(weight: WeightNode, size: Size, tensors: NamedShapes): Location | readonly Location[] | undefined;
  build(size: Size, options: BuildOptions): Graph;
  /**
   * Where in a state the row lies that the last layer's channel mixing has read last, in floats; by default it is the end of the
   * state.
   */
  lastRowOffset?(size: Pick<ModelSize, "layers" | "width">): number;
  readonly training: TrainingDefinition<Size>;
}

export interface BuildOptions {
  readonly layerNormEpsilon: number;
  /** The version's own, as a checkpoint tells them; by default as usual. */
  readonly settings?: Settings;
  /** Share of what each part of a layer adds that training leaves out; default 0. */
  readonly dropout?: number;
}

/** How a version is trained. */
export interface TrainingDefinition<Size extends ModelSize = ModelSize> {
  /** The first values of a weight of a new model, row-major; in steps, since those of a large matrix take a while. */
  firstValues(weight: WeightNode, options: FirstValuesOptions<Size>): Generator<void, Float32Array, void>;
  /** What AdamW adds to the root of the second moment. */
  readonly adamEpsilon: number;
  /** How a weight is learned. */
  learning(weight: WeightNode): WeightLearning;
  /** The matrices that low-rank adaptation can add to, and adds to if nobody says, as endings of their names: "att.key". */
  readonly adapted: readonly string[];
}

export interface FirstValuesOptions<Size extends ModelSize = ModelSize> {
  readonly size: Size;
  /** Embeddings are uniform in plus or minus this: RWKV-LM takes the learning rate, so that the first steps change all of it. */
  readonly embeddingRange: number;
  readonly random: RandomGenerator;
}

/** How a weight is learned, beside what a run's options say of all. */
export interface WeightLearning {
  /** What the learning rate is multiplied by. */
  readonly rateFactor: number;
  /** Whether weight decay applies. */
  readonly decays: boolean;
}

/** The dimensions in words: "12 layers, width 768, hidden 3072, vocabulary 50277, heads 12". */
export function describeSize({ layers, ...others }: ModelSize): string {
  const inWords = (name: string) => name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
  const further = Object.entries(others).map(([name, value]) => `${inWords(name)} ${value}`);
  return [`${layers} layer${layers === 1 ? "" : "s"}`, ...further].join(", ");
}

/** Layers by the names of tensors: one more than the highest number in `blocks.<number>.`; 0 where there is none. */
export function countLayers(tensors: NamedShapes): number {
  let layers = 0;
  for (const name of tensors.keys()) {
    const layer = /^blocks\.(\d{1,4})\./.exec(name)?.[1];
    if (layer !== undefined) layers = Math.max(layers, Number(layer) + 1);
  }
  return layers;
}
