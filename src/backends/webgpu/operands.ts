// Where the operands of an operation are, as shaders need to know it.

import type { ComputeType } from "../../dtypes.js";
import type { FusedCall } from "../../graph/fusion.js";
import type { RowNode, StateVector, Vector, WeightNode } from "../../graph/graph.js";
import type { Invocation } from "./shader.js";

/** Some rows of a matrix: all, where it fits into one buffer. */
export interface MatrixPart {
  /** The number of its buffer. */
  readonly buffer: number;
  /** Where it begins there, in vectors of 16 bytes. */
  readonly offset: number;
  readonly firstRow: number;
  readonly rows: number;
}

/** A matrix on the device. */
export interface GpuMatrix {
  readonly dtype: ComputeType;
  /** Vectors of 16 bytes from one row to the next, or from one group of 16 rows where it is in blocks. */
  readonly stride: number;
  readonly parts: readonly MatrixPart[];
}

/** Where the operands are. */
export interface Operands {
  /** Where a value is in the arena, in floats. */
  value(node: RowNode): number;
  /** Where a vector is among the vectors, in floats. */
  vector(vector: Vector): number;
  matrix(weight: WeightNode): GpuMatrix;
  /** Offset in a sequence's block, in floats. */
  state(state: StateVector): number;
  readonly abilities: Abilities;
}

/** What shaders are made for. */
export interface Abilities {
  /** Whether WGSL has products of four bytes at once. */
  readonly hasByteProducts: boolean;
  /** Whether the device is a processor that stands in for a GPU: it takes long to begin an invocation. */
  readonly isSoftware: boolean;
}

/** How an operation is carried out: as one invocation, or several that do not depend on each other. */
export type Kernel = (fused: FusedCall, operands: Operands) => readonly Invocation[];
