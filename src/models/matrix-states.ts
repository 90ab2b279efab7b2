// States that are a matrix for each head, of RWKV-5 to 7, and what they are before the first token where a file says so: in a
// checkpoint, or in one of nothing else, as state tuning leaves it. Its tensors are `blocks.N.att.time_state`
// [heads, values, keys], as training has them (RWKV-LM, RWKV-v5/cuda/wkv6state_cuda.cu; RWKV-PEFT, rwkvt/rwkv7/att.py).

import type { StateVector } from "../graph/graph.js";
import type { GraphBuilder } from "../graph/graph-builder.js";
import type { ModelSize, NamedShapes } from "./model-definition.js";

/**
 * The sizes of a model with a matrix for each head. Where a file says what the matrices are before the first token, it has an
 * `initialState` of 1.
 */
export interface MatrixStateSize extends ModelSize {
  readonly heads: number;
}

/** The tensor of a part of the model, such as `blocks.0.att`, that says what its matrices begin with. */
const nameIn = (part: string): string => `${part}.time_state`;

/** The matrices of a layer's state, which begin as 0 or as the weight of their part says. */
export function matrixState(g: GraphBuilder, part: string, size: MatrixStateSize): StateVector {
  const { width, heads, initialState } = size;
  return g.state([heads, width / heads, width / heads], initialState === 1 ? nameIn(part) : 0);
}

/** The sizes of a model whose checkpoint has these tensors, with what states begin with if it says that. */
export function withStoredStates<Size extends MatrixStateSize>(size: Size, tensors: NamedShapes): Size {
  return tensors.has(nameIn("blocks.0.att")) ? withInitialStates(size) : size;
}

/** The sizes of the same model where a file says what its states begin with. */
export function withInitialStates<Size extends MatrixStateSize>(size: Size): Size {
  return { ...size, initialState: 1 };
}
