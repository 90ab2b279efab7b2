// What every architecture of the lab is: a graph over the same embedding, norms and head, that trains in parallel and runs token
// by token with a state.

import type { Graph } from "../../graph/graph.js";
import type { ModelDefinition, ModelSize } from "../../models/model-definition.js";

export interface ArchitectureSize {
  readonly layers: number;
  readonly width: number;
  readonly hidden: number;
  readonly vocabulary: number;
  /** Heads of kinds of attention; they divide the width. */
  readonly heads: number;
  /** Most tokens of a sequence, for those that must know. */
  readonly capacity: number;
}

/** How a cost grows with the number of tokens T: the exponent of T. */
export interface Growth {
  /** Time of a training step of one sequence of T tokens. */
  readonly training: number;
  /** Time of generating the token at position T. */
  readonly token: number;
  /** Bytes that a sequence of T tokens carries along. */
  readonly state: number;
}

/** Of computing T tokens of width d. */
export interface Complexity {
  readonly time: string;
  readonly space: string;
}

/** An RWKV version, which has a recipe of its own: first values, and how each weight is learned. */
export interface RwkvVersion {
  readonly definition: ModelDefinition;
  /** All dimensions of the version, of those that every architecture has. */
  sizeOf(size: ArchitectureSize): ModelSize;
}

export interface Architecture {
  readonly name: string;
  readonly title: string;
  /** Where it is from. */
  readonly paper: string;
  /** As the papers' tables have it (arXiv 2105.14103, table 1; arXiv 2305.13048, table 1); s is a window. */
  readonly complexity: Complexity;
  /** What that is as powers of T at fixed width, and of one token. */
  readonly theory: Growth;
  /** The RWKV version that it is, if it is one. */
  readonly version?: RwkvVersion;
  build(size: ArchitectureSize): Graph;
}
