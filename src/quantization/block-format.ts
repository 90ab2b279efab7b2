// What a type of weights in blocks must tell so that matrices of it can be read, looked at and computed with. The
// type itself is one file beside this one, listed in storage-types.ts.

import type { BlockType, ComputeType } from "../dtypes.js";

/** How a matrix [outputs, inputs] lies in a file as blocks of numbers with a scale. */
export interface BlockFormat {
  /** Outputs whose bytes lie together: a group. The last group of a matrix has as many bytes as the others. */
  readonly groupOutputs: number;
  /** What inputs must be a multiple of. */
  readonly inputsMultiple: number;
  /** What kernels compute with where nobody asks for another type; the nearest they have. */
  readonly computed: ComputeType;
  /** Bytes of a group. */
  groupSize(inputs: number): number;
  /**
   * The weights of a group.
   *
   * @param target [rows, inputs]; the last group may have fewer rows
   */
  decode(group: Uint8Array, inputs: number, target: Float32Array): void;
  /** Visits the scales of whole groups: their bits as binary16, and the row of the group that each belongs to. */
  visitScales(groups: Uint8Array, inputs: number, visit: (bits: number, row: number) => void): void;
  /** Of types whose rows are blocks one after the other: the bytes of one, and where its numbers of binary16 are in it. */
  readonly block?: { readonly bytes: number; readonly scales: readonly number[] };
  /** Where the same numbers and scales can be laid out as kernels read them, so that nothing is lost. */
  readonly repack?: Repacking;
}

/** A change of layout alone. */
export interface Repacking {
  readonly to: BlockType;
  /**
   * Makes a group of `to`.
   *
   * @param rows as they are stored, one after the other: as many as a group of `to` has, or fewer at a matrix's end
   * @param target zeros
   */
  group(rows: Uint8Array, inputs: number, target: Uint8Array): void;
}
