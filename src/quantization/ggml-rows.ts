// Types of ggml (llama.cpp, GGUF, rwkv.cpp): a row is blocks, one after the other, each with its own scale or scales in binary16. What
// the types have in common is here; ggml-blocks.ts and ggml-super-blocks.ts have the types. Byte orders are those of the structs in
// ggml's ggml-common.h, values those of dequantize_row_* in its ggml-quants.c, which float64 arithmetic, rounded once, gives to the bit.

import type { BlockType, ComputeType } from "../dtypes.js";
import type { BlockFormat, Repacking } from "./block-format.js";

/** A type of ggml's, by what one block tells. */
export interface GgmlType {
  /** Weights of a block. */
  readonly inputs: number;
  readonly bytes: number;
  /** Where the block's numbers of binary16 are, in bytes from its start. */
  readonly scales: readonly number[];
  /** What kernels compute with. */
  readonly computed: ComputeType;
  /** The weights of the block that begins at `at`, to `target` from `to` on. */
  decode(view: DataView, at: number, target: Float32Array, to: number): void;
  readonly repack?: {
    readonly to: BlockType;
    /**
     * Puts one block into a group of `to`.
     *
     * @param at where the block begins
     * @param row of the group
     * @param block number of the block in its row
     */
    block(view: DataView, at: number, group: DataView, row: number, block: number): void;
  };
}

/** A type of ggml's as a format: rows stand by themselves. */
export function ggmlFormat(type: GgmlType): BlockFormat {
  const rowSize = (inputs: number) => (inputs / type.inputs) * type.bytes;
  return {
    groupOutputs: 1,
    inputsMultiple: type.inputs,
    computed: type.computed,
    block: { bytes: type.bytes, scales: type.scales },
    groupSize: rowSize,
    decode(group, inputs, target) {
      const view = viewOf(group);
      for (let block = 0; block * type.inputs < inputs; block++) {
        type.decode(view, block * type.bytes, target, block * type.inputs);
      }
    },
    visitScales(groups, _, visit) {
      const view = viewOf(groups);
      for (let at = 0; at < groups.length; at += type.bytes) {
        // Rows are groups of one, so each scale belongs to the first output of its own.
        for (const scale of type.scales) visit(view.getUint16(at + scale, true), 0);
      }
    },
    ...(type.repack && { repack: repacking(type, type.repack) }),
  };
}

function repacking(type: GgmlType, { to, block: put }: NonNullable<GgmlType["repack"]>): Repacking {
  return {
    to,
    group(rows, inputs, target) {
      const view = viewOf(rows);
      const group = viewOf(target);
      const blocks = inputs / type.inputs;
      for (let at = 0, i = 0; at < rows.length; at += type.bytes, i++) {
        put(view, at, group, Math.floor(i / blocks), i % blocks);
      }
    },
  };
}

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}
