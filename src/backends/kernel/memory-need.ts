// How much of a machine's memory a model takes, counted from what its header tells, before anything else of it is read.

import { byteLengthOf } from "../../checkpoints/checkpoint.js";
import { elementCount, isBlockType } from "../../dtypes.js";
import { callsOf, rootsOf, topologicalOrder, type Vector, vectorsOf } from "../../graph/graph.js";
import { planGraph } from "../../graph/plan.js";
import { stateLayout } from "../../graph/state-layout.js";
import type { BackendModel, OpenOptions } from "../backend.js";
import { matrixUses } from "../matrix-uses.js";
import { matrixTypes } from "../placement.js";
import { formSize } from "./by-input.js";
import { maxTokens } from "./kernel-runtime.js";

/** What of a model's options changes how much memory it takes. */
export type MemoryOptions = Pick<OpenOptions, "dtype" | "skipZeros">;

/** States that there is room for at the least. */
const roomForStates = 8;

/** Bytes of the matrices alone. */
export function matrixBytes({ graph, tensors }: BackendModel, { dtype }: MemoryOptions): number {
  const types = matrixTypes(graph, tensors, dtype);
  return sumOf(types, ([{ shape }, type]) => byteLengthOf({ dtype: type, shape }));
}

/** Bytes that stay from pass to pass: matrices, with their second forms where zeros are skipped, vectors and a few states. */
export function lastingBytes(model: BackendModel, options: MemoryOptions): number {
  const { graph, tensors } = model;
  const types = matrixTypes(graph, tensors, options.dtype);
  const sparse = options.skipZeros ? matrixUses(graph).sparse : [];
  const forms = sumOf(sparse, (weight) => formSize(weight, types.get(weight)) ?? 0);
  const vectors = new Set<Vector>(callsOf(topologicalOrder(...rootsOf(graph))).flatMap(vectorsOf));
  const floats = sumOf(vectors, ({ shape }) => elementCount(shape)) + roomForStates * stateLayout(graph).length;
  return matrixBytes(model, options) + forms + 4 * floats;
}

/** Bytes of the values of a pass. */
export function passBytes({ graph, tensors }: BackendModel, { dtype }: MemoryOptions): number {
  const types = [...matrixTypes(graph, tensors, dtype)];
  const quantized = new Set(types.flatMap(([weight, type]) => (isBlockType(type) ? [weight] : [])));
  return planGraph(rootsOf(graph), maxTokens, { quantized }).arenaSize;
}

function sumOf<T>(all: Iterable<T>, bytesOf: (one: T) => number): number {
  return [...all].reduce((sum, one) => sum + bytesOf(one), 0);
}
