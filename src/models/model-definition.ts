// What a file of this folder tells about one RWKV version: how to know its checkpoints, how large the model is, and its
// graph. Adding a version is adding such a file to the list in versions.ts.

import type { Graph } from "../graph/graph.js";

/** Dimensions of a model, read from the shapes of its tensors. */
export interface ModelSize {
  readonly layers: number;
  /** Width of the residual stream (n_embd). */
  readonly width: number;
  /** Width of the hidden layer in channel mixing. */
  readonly hidden: number;
  readonly vocabulary: number;
}

/** Weights of the matrices of an RWKV-4's layers, which every token is multiplied by. */
export function layerWeights({ layers, width, hidden }: Omit<ModelSize, "vocabulary">): number {
  return layers * (5 * width * width + 2 * width * hidden);
}

/** A tensor as far as a definition needs to know it. */
export interface NamedShape {
  readonly name: string;
  readonly shape: readonly number[];
}

/** One RWKV version. */
export interface ModelDefinition {
  /** "4", "5", ... */
  readonly version: string;
  /** Whether tensors of these canonical names are a model of this version. */
  matches(names: ReadonlySet<string>): boolean;
  /** The canonical name of a tensor that another library stores under `name`, once the names of wrappers are taken off. */
  canonicalName(name: string): string;
  /** Parts that models of this version may have and that are not built here, by their tensors' canonical names. */
  readonly unsupportedParts: readonly (readonly [description: string, mark: RegExp])[];
  /** Reads the dimensions; undefined if a tensor that they are read from is missing or has too few dimensions. */
  sizeOf(tensors: ReadonlyMap<string, NamedShape>): ModelSize | undefined;
  build(size: ModelSize, options: BuildOptions): Graph;
}

export interface BuildOptions {
  readonly layerNormEpsilon: number;
  /** Share of what each part of a layer adds that training leaves out; default 0. */
  readonly dropout?: number;
}
